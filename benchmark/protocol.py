"""The two protocols: which cases train, validate and test, and which of the paper's traps are kept.

`paper` is the run of arXiv 2507.22802 as its code does it, `strict` the fair one. Every difference
is a field of Protocol, so that each can be turned off or on by itself.
"""

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from acouslic.errors import InputError
from benchmark.frames import FrameTable, frame_table
from dataset.cache import Cache
from dataset.folds import assign_folds

# The seed in the paper's code. NumPy's generator, applied to the uuids in the order of the csv.
PAPER_SPLIT_SEED = 9872398152123123767126
PAPER_SHARES = (0.7, 0.1)
STRICT_SPLIT_SEED = 2507
# Of ten folds by subject two are the test and one validates: the paper's 70/10/20.
STRICT_FOLDS, STRICT_TEST_FOLDS, STRICT_VALIDATION_FOLD = 10, (0, 1), 2


@dataclass(frozen=True)
class Protocol:
    """How systems are compared.

    group_by_subject: no subject is in two parts; False is the paper's split, by case.
    annotated_sweeps_only: sweeps without an AC are left out of training AND test.
    fixed_threshold: each system's own fixed threshold; False takes validation's best F1.
    shared_weights: a fully trained baseline begins trial k with the last weights of trial k - 1.
    centre_crop: CNNs see the middle 0.875 of the image, which cuts the fan.
    reference_adapters: LoRA where the paper put it: no q, k, v, and FetalCLIP's `out_proj` dead.
    frozen_segmentation_encoder: FetalCLIP_SEG trains its decoder only.
    offline_copies: the original and two fixed variations of each frame; False varies every frame
        anew, within the fan.
    """

    name: str
    group_by_subject: bool
    annotated_sweeps_only: bool
    fixed_threshold: bool
    shared_weights: bool
    centre_crop: bool
    reference_adapters: bool
    frozen_segmentation_encoder: bool
    offline_copies: bool


PAPER = Protocol("paper", False, True, True, True, True, True, True, True)
STRICT = Protocol("strict", True, False, False, False, False, False, False, False)
PROTOCOLS = {protocol.name: protocol for protocol in (PAPER, STRICT)}


class Parts(NamedTuple):
    """The three parts of the cases."""

    training: Cache
    validation: Cache
    test: Cache


class Tables(NamedTuple):
    """The frames of the three parts that the protocol counts."""

    training: FrameTable
    validation: FrameTable
    test: FrameTable


def split(cache: Cache, protocol: Protocol) -> Parts:
    """The cases of each part; the same for all trials.

    Raises InputError where a part would be empty.
    """
    uuids = _by_subject(cache) if protocol.group_by_subject else _by_case(cache)
    parts = Parts(*(cache.select(part) for part in uuids))
    if not all(part.cases for part in parts):
        raise InputError(
            expected="enough cases for a training, a validation and a test part",
            found=f"{len(cache.cases)} cases",
            advice="benchmark a larger cache: 10 cases are the least",
        )
    return parts


def _by_case(cache: Cache) -> list[list[str]]:
    """The paper's split. A cache keeps its cases in the order of the csv."""
    uuids = [case.facts.uuid for case in cache.cases]
    shuffled = np.random.default_rng(PAPER_SPLIT_SEED).permutation(uuids).tolist()
    training, validation = (round(share * len(uuids)) for share in PAPER_SHARES)
    return [
        shuffled[:training],
        shuffled[training : training + validation],
        shuffled[training + validation :],
    ]


def _by_subject(cache: Cache) -> list[list[str]]:
    with warnings.catch_warnings():
        # With few cases a fold may lack a case with, or without, an optimal frame.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        try:
            folds = assign_folds(cache, folds=STRICT_FOLDS, seed=STRICT_SPLIT_SEED)
        except ValueError as error:
            raise InputError(
                expected=f"cases enough for {STRICT_FOLDS} folds",
                found=str(error),
                advice="benchmark a larger cache: 20 cases are enough",
            ) from error
    parts: list[list[str]] = [[], [], []]
    for uuid, fold in folds.items():
        held = 2 if fold in STRICT_TEST_FOLDS else int(fold == STRICT_VALIDATION_FOLD)
        parts[held].append(uuid)
    return parts


def tables(parts: Parts, protocol: Protocol, *, soften_frames: float = 0.0) -> Tables:
    """The frames of each part, black ones included; only those that are trained on are softened."""
    only = protocol.annotated_sweeps_only
    return Tables(
        frame_table(parts.training, annotated_sweeps_only=only, soften_frames=soften_frames),
        frame_table(parts.validation, annotated_sweeps_only=only),
        frame_table(parts.test, annotated_sweeps_only=only),
    )


def counts(parts: Parts, found: Tables) -> dict[str, dict[str, Any]]:
    """Cases, subjects, frames and positives of each part, and the subjects in train and test."""
    result: dict[str, dict[str, Any]] = {}
    for name, part, table in zip(Parts._fields, parts, found, strict=True):
        positives = int(np.count_nonzero(table.quality))
        result[name] = {
            "cases": len(part.cases),
            "subjects": len(_subjects(part)),
            "frames": len(table),
            "black_frames": int(np.count_nonzero(table.row < 0)),
            "positives": positives,
            "positive_percent": round(100 * positives / max(1, len(table)), 3),
        }
    shared = _subjects(parts.training) & _subjects(parts.test)
    result["test"]["subjects_also_in_training"] = len(shared)
    return result


def _subjects(part: Cache) -> set[str]:
    return {case.facts.subject for case in part.cases}
