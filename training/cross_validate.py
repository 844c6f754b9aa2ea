"""`cross-validate`: every case judged by the one network that never saw it; a calibration fitted.

`sweep-head` does the same, and tries a head along each sweep besides.

The stages that ship make each prediction, and what they say of every frame is kept beside the run.
The calibration is fitted on it, and judged fold by fold with what the other folds fitted. The
default gives way only to a fit that is clearly better. No epoch is chosen on the cases that a fold
is judged on: its weights are those after its last one.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from acouslic import files, selection
from acouslic.errors import InputError
from acouslic.expected_score import Evidence
from acouslic.lora import LoraConfig
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.selection import SelectionConfig
from dataset.backends import Backend, Needs, finish
from dataset.cache import CachedCase, open_cache
from dataset.jobs import FileJobs
from training.adapters import add_lora, merge_lora
from training.base import base_sha256, load_base
from training.calibration import SWEEP_HEAD, HeldOut, calibrate, describe
from training.fit import fold_folder
from training.options import SweepHeadRecipe
from training.provenance import code_version
from training.runs import OPTIONS, WEIGHTS, load_weights
from training.whole_stack import predict_case, tissue_of

REPORT, HEAD_WEIGHTS = "cross-validation.json", "sweep-head.safetensors"
# What is found in every report of ours, and in no other file of that name.
REPORT_MARK = '"calibration"'
# The name of a tensor in every sweep head.
HEAD_MARK = "frame_odds.weight"
OUT_OF_FOLD = "out-of-fold"
# The name of an array in every file of evidence.
EVIDENCE_MARK = "goodness.npy"
# Set by hand: a ViT-L/14 in float32 and what it says of a stack.
MEMORY_MIB = 3 * 1024

log = logging.getLogger(__name__)


def cross_validate(
    cache_folder: Path,
    base: Path,
    runs: Path,
    device: torch.device,
    backend: Backend,
    recipe: SweepHeadRecipe | None = None,
) -> dict[str, Any]:
    """Judge all cases out of fold, fit the calibration, and write `runs`/cross-validation.json.

    Where a sweep head is tried and clearly better, it is written beside the report; else none is.

    What the same weights said of a case before, with the same code, is not computed again.

    Args:
        cache_folder: the cache that the folds were trained on.
        base: the base, or bundle, that they were trained on.
        runs: the folder of all folds' runs.
        device: what computes.
        backend: where.
        recipe: how a sweep head is trained; None tries none.

    Returns:
        What is written, see `calibrate`.

    Raises:
        InputError: a fold is not trained, or on another base.
        OutputError: a file of that name is not such a report.
    """
    files.refuse_foreign_file(runs / REPORT, REPORT_MARK, "a cross-validation")
    files.refuse_foreign_file(runs / HEAD_WEIGHTS, HEAD_MARK, "a sweep head")
    jobs = _evidences(cache_folder, base, runs, device)
    finish(jobs, backend, Needs(device.type == "cuda", MEMORY_MIB), "cases")
    cases = {case.facts.uuid: case for case in open_cache(cache_folder).cases}
    held_out = [
        HeldOut(cases[uuid], fold, read_evidence(jobs.result(uuid)))
        for uuid, fold in jobs.folds.items()
    ]
    _, report, head = calibrate(held_out, _Networks(runs, base, device).of, recipe)
    (runs / HEAD_WEIGHTS).unlink(missing_ok=True)
    if head is not None:
        with files.new_file(runs / HEAD_WEIGHTS) as partial:
            save_file(head.state_dict(), partial)
        report[SWEEP_HEAD]["sha256"] = files.sha256(runs / HEAD_WEIGHTS)
    files.write_json(runs / REPORT, report)
    log.info("%s", describe(report))
    return report


@dataclass(frozen=True)
class Evidences(FileJobs):
    """What each fold's network says of the cases that it never saw: a job a case."""

    cache_folder: Path
    """The cache that the folds were trained on."""
    base: Path
    """The base, or bundle, that they were trained on."""
    device: torch.device
    """What computes."""
    folds: Mapping[str, int]
    """The fold that held a case out, by uuid, one fold's cases behind another's."""

    def result(self, name: str) -> Path:
        """A case's evidence, beside the run of its fold."""
        return fold_folder(self.folder, self.folds[name]) / OUT_OF_FOLD / f"{name}.npz"

    def begin(self) -> Callable[[str], None]:
        """Predicts a case with its fold's network, which is kept for the next."""
        cases = {case.facts.uuid: case for case in open_cache(self.cache_folder).cases}
        networks = _Networks(self.folder, self.base, self.device)

        def predict(name: str) -> None:
            evidence = case_evidence(cases[name], networks.of(self.folds[name]))
            _write_evidence(self.result(name), evidence, self.identity(self.folds[name]))

        return predict

    def identity(self, fold: int) -> str:
        """All that a fold's evidence depends on."""
        return json.dumps(
            {
                "code": code_version(),
                "base": base_sha256(self.base),
                "weights": files.sha256(fold_folder(self.folder, fold) / WEIGHTS),
                "device": str(self.device),
                "selection": asdict(SelectionConfig()),
            }
        )


def _evidences(cache_folder: Path, base: Path, runs: Path, device: torch.device) -> Evidences:
    """The jobs; evidence of other weights or of other code is removed."""
    folders = trained_folds(runs)
    folds = {
        uuid: fold
        for fold, folder in enumerate(folders)
        for uuid in read_options(folder)["validation"]
    }
    places = runs.resolve(), tuple(folds), cache_folder.resolve(), base.resolve()
    jobs = Evidences(*places, device, folds)
    identities = [jobs.identity(fold) for fold in range(len(folders))]
    for uuid, fold in folds.items():
        path = jobs.result(uuid)
        files.refuse_foreign_file(path, EVIDENCE_MARK, "what a network said of a case")
        if path.is_file() and _identity_of(path) != identities[fold]:
            path.unlink()
    return jobs


class _Networks:
    """The folds' networks on the device, one at a time."""

    def __init__(self, runs: Path, base: Path, device: torch.device) -> None:
        self.runs, self.base, self.device = runs, base, device
        self._loaded: tuple[int, AbdomenNet] | None = None

    def of(self, fold: int) -> Sequence[AbdomenNet]:
        """The fold's network, its adapters merged."""
        if self._loaded is None or self._loaded[0] != fold:
            self._loaded = None
            network = trained_network(fold_folder(self.runs, fold), self.base)[0].to(self.device)
            merge_lora(network.trunk)
            self._loaded = fold, network
        return [self._loaded[1]]


def trained_folds(runs: Path) -> list[Path]:
    """The folders of all folds, each finished.

    Raises:
        InputError: folds are still to be trained; they are listed.
    """
    known = [path.parent for path in sorted(runs.glob(f"fold-*/{OPTIONS}"))]
    count = max((read_options(folder)["folds"] for folder in known), default=0)
    missing = [fold for fold in range(count) if not (fold_folder(runs, fold) / WEIGHTS).is_file()]
    if missing or not count:
        raise InputError(
            expected=f"every fold trained in {runs}",
            found=f"folds {missing} unfinished" if count else "no run",
            advice="train them with `python -m training fit ... --fold K`",
        )
    return [fold_folder(runs, fold) for fold in range(count)]


def read_options(folder: Path) -> dict[str, Any]:
    """What a run was started with.

    Raises:
        InputError: the folder holds no run.
    """
    try:
        options: dict[str, Any] = json.loads((folder / OPTIONS).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"{OPTIONS} in {folder}", found=str(error), advice="train that fold again"
        ) from error
    return options


def trained_network(folder: Path, base: Path) -> tuple[AbdomenNet, LoraConfig]:
    """A finished run's network on its base.

    Args:
        folder: the run's.
        base: the base, or bundle, that it was trained on.

    Returns:
        The network in evaluation mode, its adapters not merged, and their options.

    Raises:
        InputError: the run stands on another base.
    """
    options = read_options(folder)
    if options["base_sha256"] != base_sha256(base):
        raise InputError(
            expected=f"the base with sha256 {options['base_sha256'][:12]}... that {folder} needs",
            found=f"another one in {base}",
            advice="give --base as it was given to `fit`",
        )
    network = AbdomenNet(NetworkConfig.from_dict(options["network"]))
    network.trunk.load_state_dict(load_base(base)[1].state_dict())
    lora = LoraConfig(**options["lora"])
    add_lora(network.trunk, lora)
    load_weights(network, folder)
    return network.eval().requires_grad_(False), lora


def case_evidence(case: CachedCase, members: Sequence[AbdomenNet]) -> Evidence:
    """What networks that never saw a case say of it."""
    prediction = predict_case(members, case)
    return selection.evidence(prediction, tissue_of(case), SelectionConfig())


def _identity_of(path: Path) -> str:
    with np.load(path) as arrays:
        return str(arrays["identity"])


def read_evidence(path: Path) -> Evidence:
    """What an `Evidences` job wrote."""
    with np.load(path) as arrays:
        return Evidence(arrays["quality"], arrays["goodness"], arrays["tissue"])


def _write_evidence(path: Path, evidence: Evidence, identity: str) -> None:
    with files.new_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            identity=identity,
            quality=evidence.quality,
            goodness=evidence.goodness,
            tissue=evidence.tissue,
        )
