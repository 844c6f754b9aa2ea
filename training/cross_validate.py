"""`cross-validate`: every case judged by the one network that never saw it, and the selection
fitted on just that.

The shipped stages make each prediction; a fixed grid of selection parameters is tried on it and
only figures are kept, so that nothing grows with the network's maps. The default gives way only to
parameters that are clearly better. What the fit added is told twice: on the very cases it was
fitted on, and honestly, each fold with the parameters that the other folds chose.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from acouslic import files, selection
from acouslic.errors import InputError
from acouslic.lora import LoraConfig, add_lora, merge_lora
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.selection import SelectionConfig
from dataset.cache import CachedCase, open_cache
from evaluation.intervals import mean_intervals
from training.base import base_sha256, load_base
from training.fit import fold_folder
from training.runs import OPTIONS, WEIGHTS, load_weights
from training.whole_stack import Figures, figures, judge_outline, predict_case, tissue_of

REPORT = "cross-validation.json"
OUT_OF_FOLD = "out-of-fold"

SMOOTHING_FRAMES = (0.0, 1.0, 2.0, 3.0, 5.0)
MASK_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
MASK_THRESHOLDS = (0.35, 0.5, 0.65)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """One case out of fold: its figures under every entry of the grid."""

    uuid: str
    subject: str
    fold: int
    figures: list[Figures]


def grid() -> list[SelectionConfig]:
    """The selection parameters that are tried; the first entry is the default."""
    default = SelectionConfig()
    tried = [
        replace(default, smoothing_frames=sigma, mask_weight=weight, mask_threshold=threshold)
        for sigma, weight, threshold in product(SMOOTHING_FRAMES, MASK_WEIGHTS, MASK_THRESHOLDS)
    ]
    return [default, *(config for config in tried if config != default)]


def cross_validate(
    cache_folder: Path,
    base: Path,
    runs: Path,
    device: torch.device,
    configs: list[SelectionConfig] | None = None,
) -> dict[str, Any]:
    """Judge all cases out of fold, fit the selection, and write `runs`/cross-validation.json.

    `configs` are tried, the whole grid by default; the first is what the others are compared with.
    Cases that were judged on them by the same weights are not judged again. Raises InputError where
    a fold is not trained.
    """
    cache, configs = open_cache(cache_folder), configs or grid()
    judged: list[Judged] = []
    for fold, folder in enumerate(trained_folds(runs)):
        held_out = cache.select(read_options(folder)["validation"]).cases
        for case, found in zip(
            held_out, _judge_fold(held_out, base, folder, device, configs), strict=True
        ):
            judged.append(Judged(case.facts.uuid, case.facts.subject, fold, found))
    report = summarise(judged, configs)
    files.write_json(runs / REPORT, report)
    log.info("%s", describe(report))
    return report


def trained_folds(runs: Path) -> list[Path]:
    """The folders of all folds, each finished.

    Raises InputError that lists the folds still to be trained.
    """
    known = sorted(runs.glob("fold-*"))
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
    """What a run was started with."""
    try:
        options: dict[str, Any] = json.loads((folder / OPTIONS).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"{OPTIONS} in {folder}", found=str(error), advice="train that fold again"
        ) from error
    return options


def trained_network(folder: Path, base: Path) -> tuple[AbdomenNet, LoraConfig]:
    """A finished run's network on its base, adapters not merged, and the adapters' options.

    Raises InputError where `base` is not the one that the run stood on.
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


def _judge_fold(
    held_out: Sequence[CachedCase],
    base: Path,
    folder: Path,
    device: torch.device,
    configs: list[SelectionConfig],
) -> Iterator[list[Figures]]:
    network: AbdomenNet | None = None
    for case in tqdm(held_out, desc=folder.name, unit="case", disable=not sys.stderr.isatty()):
        path = folder / OUT_OF_FOLD / f"{case.facts.uuid}.json"
        found = _read_judged(path, folder / WEIGHTS, configs)
        if found is None:
            if network is None:
                network = trained_network(folder, base)[0].to(device)
                merge_lora(network.trunk)
            found = judge_on_grid(case, [network], configs)
            _write_judged(path, found, configs)
        yield found


def _read_judged(path: Path, weights: Path, configs: list[SelectionConfig]) -> list[Figures] | None:
    """What an earlier run found on the same grid with these weights, if it did."""
    if not path.is_file() or path.stat().st_mtime_ns < weights.stat().st_mtime_ns:
        return None
    raw = json.loads(path.read_text())
    if raw["configs"] != [asdict(config) for config in configs]:
        return None
    return [Figures(**each) for each in raw["figures"]]


def _write_judged(path: Path, found: list[Figures], configs: list[SelectionConfig]) -> None:
    raw = {
        "configs": [asdict(config) for config in configs],
        "figures": [asdict(each) for each in found],
    }
    files.write_json(path, raw, indent=None)


def judge_on_grid(
    case: CachedCase, members: Sequence[AbdomenNet], configs: list[SelectionConfig]
) -> list[Figures]:
    """One case's figures for each selection, from one prediction, by the shipped stages."""
    tissue = tissue_of(case)
    prediction = predict_case(members, case)
    spacing_mm = case.facts.spacing_mm[0]
    # The grid varies nothing else that masks, outlines and their goodness depend on.
    weighed, outlines = {}, {}
    for config in configs:
        threshold = config.mask_threshold
        if threshold not in weighed:
            weighed[threshold] = selection.evidence(prediction, tissue, config)
            outlines[threshold] = selection.Outlines(prediction, spacing_mm, threshold)
    known: dict[tuple[float, int], Figures] = {}
    result = []
    for config in configs:
        threshold = config.mask_threshold
        scores = selection.frame_scores(*weighed[threshold], tissue, config)
        frame, outline = selection.choose(scores, tissue, outlines[threshold])
        if (threshold, frame) not in known:
            known[threshold, frame] = figures(judge_outline(case, frame, outline))
        result.append(known[threshold, frame])
    return result


def summarise(judged: list[Judged], configs: list[SelectionConfig]) -> dict[str, Any]:
    """What the selection's fit chose and brought; `judged` has the figures in the order of
    `configs`.

    fitted: what `choose_config` takes on all cases, which is to be packed.
    scores: means, with 95 % intervals by resampling subjects, for the default, for the fit on the
    cases that it was fitted on, and for each fold under the parameters that the other folds chose.
    """
    scores = np.array([[each.score for each in case.figures] for case in judged])
    folds = np.array([case.fold for case in judged])
    subjects = np.array([case.subject for case in judged])
    chosen = choose_config(scores, subjects)
    honest = {
        fold: choose_config(scores[folds != fold], subjects[folds != fold])
        for fold in set(folds.tolist())
    }
    picks = {
        "default": [case.figures[0] for case in judged],
        "fitted": [case.figures[chosen] for case in judged],
        "fitted_on_other_folds": [case.figures[honest[case.fold]] for case in judged],
    }
    return {
        "cases": len(judged),
        "subjects": len(set(subjects.tolist())),
        "folds": len(honest),
        "fitted": asdict(configs[chosen]),
        "fitted_by_fold": {str(fold): asdict(configs[k]) for fold, k in honest.items()},
        "scores": {name: _means(found, subjects) for name, found in picks.items()},
        "by_case": {
            case.uuid: {"fold": case.fold, **asdict(case.figures[chosen])} for case in judged
        },
    }


def choose_config(scores: np.ndarray, subjects: np.ndarray) -> int:
    """Which column of `scores` (cases, configs) has the best mean; the first, the default, unless
    the 95 % interval of what the best gains on it is above 0.

    `subjects` (cases,) are resampled for the interval.
    """
    best = int(np.argmax(scores.mean(axis=0)))
    gain = mean_intervals(scores[:, [best]] - scores[:, [0]], subjects)
    return best if gain is not None and gain[0, 0] > 0 else 0


def _means(found: list[Figures], subjects: np.ndarray) -> dict[str, Any]:
    names = [field.name for field in fields(Figures)]
    columns = np.array([[getattr(each, name) for name in names] for each in found])
    intervals = mean_intervals(columns, subjects)
    if intervals is None:
        raise ValueError("folds grouped by subject have at least two subjects")
    return {
        name: {"mean": float(columns[:, k].mean()), "interval": intervals[k].tolist()}
        for k, name in enumerate(names)
    }


def describe(report: dict[str, Any]) -> str:
    """The report as a few lines."""
    lines = [f"{report['cases']} cases of {report['subjects']} subjects, {report['folds']} folds"]
    for name, found in report["scores"].items():
        parts = [
            f"{figure} {value['mean']:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}]"
            for figure, value in found.items()
        ]
        lines.append(f"{name}: {', '.join(parts)}")
    lines.append(f"fitted selection: {report['fitted']}")
    return "\n".join(lines)
