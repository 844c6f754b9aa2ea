"""From the trials' predictions to the numbers of the table: means, deviations, intervals,
differences.

Intervals are of the mean over trials, by resampling the TEST SUBJECTS; they do not hold what
another training would change, which is what the deviation over trials shows.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.frames import FrameTable
from benchmark.measures import (
    Measures,
    frame_measures,
    picked_frame,
    quality_measures,
    ranking_draws,
    rates,
    wfss_of,
)
from benchmark.protocol import PAPER, STRICT
from benchmark.systems import SYSTEMS, System, real_parameters
from benchmark.trial import PREDICTIONS, RESULT
from evaluation.intervals import interval, mean_draws, subject_draws, sums_by_subject

# ROC-AUC and average precision need a sum over all frames for every draw.
RANKING_RESAMPLES = 1000
COMPARED = ("f1", "average_precision", "wfss")
BEST_BY = "f1"


@dataclass(frozen=True)
class Trial:
    """A finished trial: its result.json, `score` and `quality` (n,) of the test frames."""

    result: dict[str, Any]
    score: np.ndarray
    quality: np.ndarray


def trial_folder(output: Path, system: str, trial: int) -> Path:
    return output / system / f"trial-{trial}"


def read_trials(output: Path, system: str) -> list[Trial]:
    """The finished trials of a system, in their order."""
    folders = sorted((output / system).glob("trial-*"), key=lambda path: int(path.name[6:]))
    trials = []
    for folder in folders:
        if (folder / RESULT).is_file():
            with np.load(folder / PREDICTIONS) as arrays:
                score, quality = arrays["score"], arrays["quality"]
            trials.append(Trial(json.loads((folder / RESULT).read_text()), score, quality))
    return trials


def case_picks(trial: Trial, test: FrameTable) -> list[float]:
    """WFSS of each test case, the frame being the one whose quality is highest."""
    found = []
    for number, case in enumerate(test.cache.cases):
        mine = test.case == number
        if mine.any():
            picked = picked_frame(trial.quality[mine], test.row[mine] >= 0)
            frame = int(test.number[mine][picked]) if picked >= 0 else -1
            found.append(wfss_of(frame, case.stack_quality()))
    return found


def summarise(output: Path, test: FrameTable, *, resamples: int | None = None) -> dict[str, Any]:
    """All systems with a finished trial in `output`, in the registry's order, by name."""
    n_subjects = int(test.subject.max()) + 1
    draws = (
        subject_draws(n_subjects)
        if resamples is None
        else subject_draws(n_subjects, resamples=resamples)
    )
    summaries: dict[str, Any] = {}
    by_draw: dict[str, dict[str, np.ndarray]] = {}
    for name, system in SYSTEMS.items():
        trials = read_trials(output, name)
        if trials:
            summaries[name], by_draw[name] = _summarise(system, trials, test, draws)
    _compare_with_best(summaries, by_draw)
    return summaries


def _summarise(
    system: System, trials: list[Trial], test: FrameTable, draws: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    each = [_measures(system, trial, test) for trial in trials]
    by_draw = _draws(trials, test, draws)
    first = trials[0].result
    seconds = [trial.result["train_seconds"] for trial in trials]
    speed = [trial.result["frames_per_second"] for trial in trials]
    summary = {
        "title": system.title,
        "network": first["network"],
        "trained": first["trained"],
        "origin": first["origin"],
        "begun_from": [trial.result["begun_from"] for trial in trials],
        "parameters": first["parameters"],
        "real_parameters": {
            each.name: real_parameters(system, each)[0] for each in (PAPER, STRICT)
        },
        "published": None if system.published is None else asdict(system.published),
        "trials": each,
        "thresholds": [trial.result["threshold"] for trial in trials],
        "mean": {name: _over_trials(each, name, np.mean) for name in each[0]},
        "sd": {name: _over_trials(each, name, _sd) for name in each[0]},
        "interval": {name: interval(values) for name, values in by_draw.items()},
        "train_seconds": float(np.mean(seconds)),
        "frames_per_second": float(np.mean(speed)),
    }
    return summary, by_draw


def _measures(system: System, trial: Trial, test: FrameTable) -> Measures:
    labels = test.quality > 0
    found = frame_measures(trial.score, labels, trial.result["threshold"])
    found["wfss"] = float(np.mean(case_picks(trial, test)))
    if system.rates_quality:
        found |= quality_measures(trial.quality, test.target, test.case)
    return found


def _over_trials(each: list[Measures], name: str, statistic: Any) -> float | None:
    values = [value for one in each if (value := one[name]) is not None]
    return float(statistic(values)) if values else None


def _sd(values: list[float]) -> float:
    """The sample's standard deviation, 0 for one trial."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _draws(trials: list[Trial], test: FrameTable, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure's mean over trials in every draw of subjects."""
    parts: dict[str, list[np.ndarray]] = {}
    for trial in trials:
        for name, values in _trial_draws(trial, test, draws).items():
            parts.setdefault(name, []).append(values)
    return {name: np.mean(values, axis=0) for name, values in parts.items()}


def _trial_draws(trial: Trial, test: FrameTable, draws: np.ndarray) -> dict[str, np.ndarray]:
    labels = test.quality > 0
    positive = trial.score >= trial.result["threshold"]
    one_hot = np.stack(
        [positive & labels, positive & ~labels, ~positive & labels, ~positive & ~labels], axis=1
    )
    found = rates(draws @ sums_by_subject(one_hot.astype(float), test.subject, draws.shape[1]))
    few = draws[:RANKING_RESAMPLES]
    found["roc_auc"], found["average_precision"] = ranking_draws(
        trial.score, labels, test.subject, few
    )
    _, first = np.unique(test.case, return_index=True)
    found["wfss"] = mean_draws(case_picks(trial, test), test.subject[first], draws)
    return found


def _compare_with_best(
    summaries: dict[str, Any], by_draw: dict[str, dict[str, np.ndarray]]
) -> None:
    """Add to each system its paired difference to the one of the highest mean F1."""
    if not summaries:
        return
    best = max(summaries, key=lambda name: summaries[name]["mean"][BEST_BY])
    for name, summary in summaries.items():
        summary["best"] = best
        summary["difference_to_best"] = {
            measure: _difference(summaries, by_draw, measure, name, best) for measure in COMPARED
        }


def _difference(
    summaries: dict[str, Any],
    by_draw: dict[str, dict[str, np.ndarray]],
    measure: str,
    name: str,
    best: str,
) -> dict[str, Any]:
    mine, theirs = (summaries[each]["mean"][measure] for each in (name, best))
    return {
        "difference": None if mine is None or theirs is None else mine - theirs,
        "interval": interval(by_draw[name][measure] - by_draw[best][measure]),
    }
