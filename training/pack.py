"""`pack`: base, adapters, heads and the calibration -> one bundle that tells its origin.

One fold may be packed merged (a plain network, cast after merging in fp32) or apart; several folds
are an ensemble of adapters over one base and stay apart.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from acouslic import files
from acouslic.bundle import BUNDLE, load_bundle, save_bundle
from acouslic.calibration import Calibration
from acouslic.errors import InputError
from acouslic.sweep_head import SweepHead, SweepHeadConfig
from training.adapters import merge_lora
from training.base import NO_LICENCE, TORCH_TYPES, load_base
from training.calibration import SWEEP_HEAD, WITH_HEAD, with_calibration
from training.cards import model_card
from training.cross_validate import (
    HEAD_WEIGHTS,
    REPORT,
    read_options,
    trained_folds,
    trained_network,
)
from training.mixture import MIXED_IN
from training.options import PackOptions
from training.provenance import code_version

DATA = "ACOUSLIC-AI training set v1.1 (Zenodo 12697994)"
DATA_LICENCE = "CC BY-NC-SA 4.0"
SIMULATED_DATA = "phantoms: simulated images"
INTENDED_USE = "Measures the fetal abdominal circumference in blind sweeps, for research only."
log = logging.getLogger(__name__)


def pack(runs: Path, base: Path, output: Path, options: PackOptions) -> None:
    """Write a bundle of trained folds, and load it again to be certain that it is whole.

    Args:
        runs: the folder of all folds' runs, with the report of `cross-validate`.
        base: the base, or bundle, that they were trained on.
        output: the bundle's folder; a README.md that is there stays.
        options: which folds, and how.

    Raises:
        InputError: a fold, the report or its sweep head is missing, or an ensemble is to be merged.
        OutputError: `output` holds something else, or a bundle that is not to be replaced.
    """
    if options.merge and len(options.folds) > 1:
        raise InputError(
            expected="one fold to be merged",
            found=f"{len(options.folds)} folds, which share one base",
            advice="use --no-merge for an ensemble, or give one --folds",
        )
    files.refuse_stranger(output, BUNDLE, overwrite=options.overwrite)
    report = _read_report(runs)
    folders = _chosen(trained_folds(runs), options.folds)
    loaded = [trained_network(folder, base) for folder in folders]
    members, lora = [network for network, _ in loaded], loaded[0][1]
    if options.merge:
        merge_lora(members[0].trunk)
    provenance = _provenance(report, base, folders, options)
    save_bundle(
        output,
        members,
        name=options.name,
        selection=with_calibration(Calibration.from_dict(report["calibration"])),
        lora=None if options.merge else lora,
        provenance=provenance,
        card=model_card(provenance),
        sweep_head=_sweep_head(runs, report),
        dtype=TORCH_TYPES[options.dtype],
        overwrite=options.overwrite,
    )
    size_mb = sum(path.stat().st_size for path in output.iterdir()) / 1e6
    log.info("%s: bundle %s, %.1f MB", output, load_bundle(output).id, size_mb)


def _read_report(runs: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((runs / REPORT).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"{REPORT} in {runs}",
            found=f"none that can be read ({error})",
            advice="run `python -m training cross-validate` first: it fits the calibration",
        ) from error
    return report


def _sweep_head(runs: Path, report: dict[str, Any]) -> SweepHead | None:
    """The sweep head that the report found clearly better; None where it found none."""
    if report["column"] != WITH_HEAD:
        return None
    told, path = report[SWEEP_HEAD], runs / HEAD_WEIGHTS
    if not path.is_file() or files.sha256(path) != told["sha256"]:
        raise InputError(
            expected=f"the sweep head of {REPORT} in {path}",
            found="another one" if path.is_file() else "no such file",
            advice="run `python -m training sweep-head` again",
        )
    head = SweepHead(SweepHeadConfig(told["recipe"]["channels"]))
    head.load_state_dict(load_file(path))
    return head


def _chosen(folders: Sequence[Path], folds: Sequence[int]) -> list[Path]:
    if not folds or not set(folds) <= set(range(len(folders))):
        raise InputError(
            expected=f"folds from 0 to {len(folders) - 1}",
            found=str(list(folds)),
            advice="give --folds as they were trained",
        )
    return [folders[fold] for fold in folds]


def _provenance(
    report: dict[str, Any], base: Path, folders: Sequence[Path], options: PackOptions
) -> dict[str, Any]:
    runs = [read_options(folder) for folder in folders]
    validation = {key: value for key, value in report.items() if key != "by_case"}
    base_provenance, of_phantoms = load_base(base)[2], any(run["simulated"] for run in runs)
    return {
        "name": options.name,
        "simulated": of_phantoms or base_provenance["simulated"],
        "intended_use": INTENDED_USE,
        "data": SIMULATED_DATA if of_phantoms else DATA,
        "data_licence": NO_LICENCE if of_phantoms else DATA_LICENCE,
        "base": base_provenance,
        "members": len(folders),
        "merged": options.merge,
        "folds": list(options.folds),
        "recipes": [run["recipe"] for run in runs],
        MIXED_IN: [_counted(run[MIXED_IN]) for run in runs if MIXED_IN in run],
        "lora": runs[0]["lora"],
        "code": code_version(),
        "cross_validation": validation,
    }


def _counted(mixed_in: dict[str, Any]) -> dict[str, Any]:
    """What is told of a run's phantoms: their number, where the run holds their names."""
    return {**mixed_in, "phantoms": len(mixed_in["phantoms"])}
