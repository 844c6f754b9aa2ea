"""Which cases and frames train, validate and test, by the protocol.

`paper` is the run of arXiv 2507.22802 as its code does it, `strict` the fair one. All that differs
is a field of `benchmark.options.Protocol`.
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acouslic.errors import InputError
from benchmark.frames import FrameTable, frame_table
from benchmark.options import Protocol
from dataset.cache import Cache, open_cache
from dataset.folds import assign_folds

# The seed in the paper's code: of NumPy's generator, which permutes the uuids in the csv's order.
PAPER_SPLIT_SEED = 9872398152123123767126
# Of the cases, for training and validation; the rest is tested.
PAPER_SHARES = (0.7, 0.1)
# Any number would do; it is the paper's month.
STRICT_SPLIT_SEED = 2507
# Of ten folds by subject two are the test and one validates: the paper's 70/10/20.
STRICT_FOLDS, STRICT_TEST_FOLDS, STRICT_VALIDATION_FOLD = 10, (0, 1), 2


class Split(NamedTuple):
    """The cases of each part."""

    training: Cache
    """What is trained on."""
    validation: Cache
    """What picks the epoch, and under `strict` the threshold."""
    test: Cache
    """What is measured."""


class Tables(NamedTuple):
    """The frames of each part that the protocol counts."""

    training: FrameTable
    """What is trained on."""
    validation: FrameTable
    """What picks the epoch, and under `strict` the threshold."""
    test: FrameTable
    """What is measured."""


def split(cache: Cache, protocol: Protocol, test_cache: Path | None = None) -> Split:
    """Divide the cases; all trials have the same division.

    Args:
        cache: all cases.
        protocol: whether they are divided by subject.
        test_cache: folder of a cache whose cases are the test part; those that would have been are
            trained on then. None: all parts are of the one cache.

    Returns:
        The cases of each part.

    Raises:
        InputError: a part would be empty, or the second cache is of another size or has cases of
            the first.
    """
    uuids = _by_subject(cache) if protocol.group_by_subject else _by_case(cache)
    if test_cache is None:
        divided = Split(*(cache.select(of_part) for of_part in uuids))
    else:
        training, validation, rest = uuids
        test = _other_cases(cache, test_cache)
        divided = Split(cache.select([*training, *rest]), cache.select(validation), test)
    if not all(part.cases for part in divided):
        raise InputError(
            expected="enough cases for a training, a validation and a test part",
            found=f"{len(cache.cases)} cases",
            advice="benchmark a larger cache: 10 cases are the least",
        )
    return divided


def _other_cases(cache: Cache, test_cache: Path) -> Cache:
    """The cases of a second cache, none of which the first one has."""
    test = open_cache(test_cache)
    shared = {case.facts.uuid for case in cache.cases} & {case.facts.uuid for case in test.cases}
    if shared or test.size != cache.size:
        raise InputError(
            expected=f"other cases than in {cache.folder}, of {cache.size} px, in {test_cache}",
            found=f"{len(shared)} of its cases, and frames of {test.size} px",
            advice="prepare a data set of its own for --test-cache, with the same --size",
        )
    return test


def _by_case(cache: Cache) -> list[list[str]]:
    """The paper's division. A cache keeps its cases in the order of the csv."""
    uuids = [case.facts.uuid for case in cache.cases]
    shuffled = np.random.default_rng(PAPER_SPLIT_SEED).permutation(uuids).tolist()
    training, validation = (round(share * len(uuids)) for share in PAPER_SHARES)
    return [
        shuffled[:training],
        shuffled[training : training + validation],
        shuffled[training + validation :],
    ]


def _by_subject(cache: Cache) -> list[list[str]]:
    """The fair division: no subject is in two parts."""
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
    uuids: list[list[str]] = [[], [], []]
    for uuid, fold in folds.items():
        part = 2 if fold in STRICT_TEST_FOLDS else int(fold == STRICT_VALIDATION_FOLD)
        uuids[part].append(uuid)
    return uuids


def tables(cases: Split, protocol: Protocol, *, soften_frames: float = 0.0) -> Tables:
    """List the frames of each part, black ones included.

    Args:
        cases: those of each part.
        protocol: whether sweeps without an AC are left out.
        soften_frames: see `frames.soft_targets`; only training frames are softened.

    Returns:
        A table for each part.
    """
    training, validation, test = (
        frame_table(
            part,
            annotated_sweeps_only=protocol.annotated_sweeps_only,
            soften_frames=soften,
            reference_images=protocol.reference_images,
        )
        for part, soften in zip(cases, (soften_frames, 0.0, 0.0), strict=True)
    )
    return Tables(training, validation, test)


def counts(cases: Split, frames: Tables) -> dict[str, dict[str, Any]]:
    """Count what the parts hold.

    Args:
        cases: those of each part.
        frames: those of each part.

    Returns:
        For each part cases, subjects, frames and annotated frames; for the test part also the
        number of its subjects that are in the training part as well.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, part, table in zip(Split._fields, cases, frames, strict=True):
        positives = int(np.count_nonzero(table.quality))
        result[name] = {
            "cases": len(part.cases),
            "subjects": len(_subjects(part)),
            "frames": len(table),
            "black_frames": int(np.count_nonzero(table.row < 0)),
            "positives": positives,
            "positive_percent": round(100 * positives / max(1, len(table)), 3),
        }
    shared = _subjects(cases.training) & _subjects(cases.test)
    result["test"]["subjects_also_in_training"] = len(shared)
    return result


def _subjects(part: Cache) -> set[str]:
    return {case.facts.subject for case in part.cases}
