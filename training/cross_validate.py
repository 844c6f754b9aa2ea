"""`cross-validate`: every case judged by the one network that never saw it; the selection fitted.

The stages that ship make each prediction. A fixed grid of selection parameters is tried on it, and
only figures are kept, so that nothing grows with the network's maps. The default gives way only to
parameters that are clearly better. What the fit gained is told twice: on the very cases it was
fitted on, and honestly, each fold with the parameters that the other folds chose.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

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
from training.whole_stack import Figures, choose, figures, judge_outline, predict_case, tissue_of

REPORT = "cross-validation.json"
# What is found in every report of ours, and in no other file of that name.
REPORT_MARK = '"fitted_by_fold"'
OUT_OF_FOLD = "out-of-fold"
JUDGED_MARK = '"configs"'

# The grid: around the defaults, with a value that turns the part off where there is one.
SMOOTHING_FRAMES = (0.0, 1.0, 2.0, 3.0, 5.0)
MASK_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
MASK_THRESHOLDS = (0.35, 0.5, 0.65)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """One case, judged out of fold."""

    uuid: str
    """The case's name."""
    subject: str
    """Whose case it is."""
    fold: int
    """The fold that held it out."""
    figures: list[Figures]
    """Its figures under every entry of the grid."""


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

    Cases that the same weights were judged on before, with the same configs, are not judged again.

    Args:
        cache_folder: the cache that the folds were trained on.
        base: the base, or bundle, that they were trained on.
        runs: the folder of all folds' runs.
        device: what computes.
        configs: what is tried, the whole grid where there are none; the others are compared with
            the first.

    Returns:
        What is written, see `summarise`.

    Raises:
        InputError: a fold is not trained, or on another base.
        OutputError: a file of that name is not such a report.
    """
    files.refuse_foreign_file(runs / REPORT, REPORT_MARK, "a cross-validation")
    cache, configs = open_cache(cache_folder), configs or grid()
    judged: list[Judged] = []
    for fold, folder in enumerate(trained_folds(runs)):
        held_out = cache.select(read_options(folder)["validation"]).cases
        for case, by_config in zip(
            held_out, _judge_fold(held_out, base, folder, device, configs), strict=True
        ):
            judged.append(Judged(case.facts.uuid, case.facts.subject, fold, by_config))
    report = summarise(judged, configs)
    files.write_json(runs / REPORT, report)
    log.info("%s", describe(report))
    return report


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


def _judge_fold(
    held_out: Sequence[CachedCase],
    base: Path,
    folder: Path,
    device: torch.device,
    configs: list[SelectionConfig],
) -> Iterator[list[Figures]]:
    network: AbdomenNet | None = None
    with logging_redirect_tqdm():
        for case in tqdm(held_out, folder.name, unit="case", disable=not sys.stderr.isatty()):
            path = folder / OUT_OF_FOLD / f"{case.facts.uuid}.json"
            files.refuse_foreign_file(path, JUDGED_MARK, "a judged case")
            by_config = _read_judged(path, folder / WEIGHTS, configs)
            if by_config is None:
                if network is None:
                    network = trained_network(folder, base)[0].to(device)
                    merge_lora(network.trunk)
                by_config = judge_on_grid(case, [network], configs)
                _write_judged(path, by_config, configs)
            yield by_config
    log.info("%s: %d held-out cases judged", folder.name, len(held_out))


def _read_judged(path: Path, weights: Path, configs: list[SelectionConfig]) -> list[Figures] | None:
    """The figures that an earlier run got on the same grid with these weights, if it did."""
    if not path.is_file() or path.stat().st_mtime_ns < weights.stat().st_mtime_ns:
        return None
    raw = json.loads(path.read_text())
    if raw["configs"] != [asdict(config) for config in configs]:
        return None
    return [Figures(**values) for values in raw["figures"]]


def _write_judged(path: Path, by_config: list[Figures], configs: list[SelectionConfig]) -> None:
    raw = {
        "configs": [asdict(config) for config in configs],
        "figures": [asdict(values) for values in by_config],
    }
    files.write_json(path, raw, indent=None)


def judge_on_grid(
    case: CachedCase, members: Sequence[AbdomenNet], configs: list[SelectionConfig]
) -> list[Figures]:
    """One case's figures under each config, from one prediction, by the stages that ship.

    Args:
        case: a cached case.
        members: the networks, one or an ensemble.
        configs: differ in nothing that masks, outlines and their goodness depend on but the
            threshold, which saves most of the work.

    Returns:
        The figures in the order of `configs`.
    """
    tissue = tissue_of(case)
    prediction = predict_case(members, case)
    evidence, outlines = {}, {}
    for config in configs:
        threshold = config.mask_threshold
        if threshold not in evidence:
            evidence[threshold] = selection.evidence(prediction, tissue, config)
            outlines[threshold] = selection.Outlines(
                prediction, case.facts.spacing_mm[0], threshold
            )
    known: dict[tuple[float, int], Figures] = {}
    by_config = []
    for config in configs:
        threshold = config.mask_threshold
        scores = selection.frame_scores(*evidence[threshold], tissue, config)
        frame, outline = choose(case, scores, outlines[threshold])
        if (threshold, frame) not in known:
            known[threshold, frame] = figures(judge_outline(case, frame, outline))
        by_config.append(known[threshold, frame])
    return by_config


def summarise(judged: list[Judged], configs: list[SelectionConfig]) -> dict[str, Any]:
    """What the selection's fit chose, and what it gained.

    Args:
        judged: all cases, with figures in the order of `configs`.
        configs: what was tried; the first is the default.

    Returns:
        Plain JSON. `fitted`: what `choose_config` takes on all cases, to be packed. `scores`: means
        with 95 % intervals, subjects resampled, for the default, for the fit on the cases that it
        was fitted on, and for each fold under the parameters that the other folds chose.
    """
    scores = np.array([[values.score for values in case.figures] for case in judged])
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
        "scores": {name: _means(by_case, subjects) for name, by_case in picks.items()},
        "by_case": {
            case.uuid: {"fold": case.fold, **asdict(case.figures[chosen])} for case in judged
        },
    }


def choose_config(scores: np.ndarray, subjects: np.ndarray) -> int:
    """Choose a config: the first, the default, unless another is clearly better.

    Clearly means that the 95 % interval of what the best one gains on it lies above 0.

    Args:
        scores: (cases, configs).
        subjects: (cases,), whose case each is; they are resampled for the interval.

    Returns:
        A column of `scores`.
    """
    best = int(np.argmax(scores.mean(axis=0)))
    gain = mean_intervals(scores[:, [best]] - scores[:, [0]], subjects)
    return best if gain is not None and gain[0, 0] > 0 else 0


def _means(by_case: list[Figures], subjects: np.ndarray) -> dict[str, Any]:
    columns = np.array([astuple(values) for values in by_case])
    intervals = mean_intervals(columns, subjects)
    if intervals is None:
        raise ValueError("folds grouped by subject have at least two subjects")
    return {
        field.name: {"mean": float(columns[:, k].mean()), "interval": intervals[k].tolist()}
        for k, field in enumerate(fields(Figures))
    }


def describe(report: dict[str, Any]) -> str:
    """The report as a few lines."""
    lines = [f"{report['cases']} cases of {report['subjects']} subjects, {report['folds']} folds"]
    for name, by_figure in report["scores"].items():
        texts = [
            f"{figure} {value['mean']:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}]"
            for figure, value in by_figure.items()
        ]
        lines.append(f"{name.replace('_', ' ')}: {', '.join(texts)}")
    lines.append(f"fitted selection: {report['fitted']}")
    return "\n".join(lines)
