"""From the trials' predictions to the numbers of the table.

Intervals are of the mean over trials, by resampling the TEST SUBJECTS: what other subjects would
change. What another training would change they do not tell; the deviation over trials does.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.challenge_score import MEASURES, read_judged
from benchmark.frames import FrameTable
from benchmark.marks import marks
from benchmark.measures import (
    Measures,
    frame_measures,
    picked_frame,
    quality_measures,
    ranking_draws,
    rates,
    wfss_of,
)
from benchmark.options import PAPER, STRICT
from benchmark.systems import SYSTEMS, System, real_parameters
from benchmark.trial import PREDICTIONS, RESULT
from benchmark.weights import RANDOM
from evaluation.intervals import interval, mean_draws, subject_draws, sums_by_subject

# ROC-AUC and average precision need a sum over all frames for every draw: a fifth of the draws.
RANKING_RESAMPLES = 1000
# An interval of "95 %" from two subjects held the truth in 49 of 100 simulated studies, one from
# five in 85: see `evaluation.intervals`.
FEWEST_SUBJECTS = 5
COMPARED = ("f1", "average_precision", "wfss")
BEST_BY = "f1"


@dataclass(frozen=True)
class Trial:
    """A finished trial."""

    result: dict[str, Any]
    """The content of its result.json."""
    score: np.ndarray
    """(n,), what is compared with the threshold, of each test frame."""
    quality: np.ndarray
    """(n,), what picks a stack's frame, of each test frame."""


def trial_folder(output: Path, system: str, trial: int) -> Path:
    """The folder of a trial, numbered from 0."""
    return output / system / f"trial-{trial}"


def read_trials(output: Path, system: str) -> list[Trial]:
    """Read the finished trials of a system, in their order."""
    folders = sorted((output / system).glob("trial-*"), key=lambda path: int(path.name[6:]))
    trials = []
    for folder in folders:
        if (folder / RESULT).is_file():
            with np.load(folder / PREDICTIONS) as arrays:
                score, quality = arrays["score"], arrays["quality"]
            trials.append(Trial(json.loads((folder / RESULT).read_text()), score, quality))
    return trials


def case_picks(trial: Trial, test: FrameTable) -> list[float]:
    """WFSS of each test case, where the frame with the highest quality is picked."""
    values = []
    for number, case in enumerate(test.cache.cases):
        mine = test.case == number
        if mine.any():
            picked = picked_frame(trial.quality[mine], test.row[mine] >= 0)
            frame = int(test.number[mine][picked]) if picked >= 0 else -1
            values.append(wfss_of(frame, case.stack_quality()))
    return values


def summarise(
    output: Path, test: FrameTable, differs: list[str], *, resamples: int | None = None
) -> dict[str, Any]:
    """Summarise all systems that have a finished trial, in the registry's order.

    Args:
        output: the benchmark's folder.
        test: the test frames.
        differs: in what the run differs from the paper's, see `marks.differences`.
        resamples: number of draws of subjects; None takes the bootstrap's own.

    Returns:
        The summaries by the systems' names: `systems` of results.json.
    """
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
            summaries[name] |= _honesty(system, trials[0].result, differs)
            summaries[name]["challenge"] = _challenge(output, name, test, draws)
    _compare_with_best(summaries, by_draw, draws)
    return summaries


def _summarise(
    system: System, trials: list[Trial], test: FrameTable, draws: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A system's summary, and its measures in every draw."""
    by_trial = [_measures(system, trial, test) for trial in trials]
    by_draw = _draws(trials, test, draws)
    summary = {
        **_description(system, [trial.result for trial in trials]),
        "trials": by_trial,
        "mean": {name: _over_trials(by_trial, name, np.mean) for name in by_trial[0]},
        "sd": {name: _over_trials(by_trial, name, _sd) for name in by_trial[0]},
        "interval": {name: _interval(values, draws) for name, values in by_draw.items()},
    }
    return summary, by_draw


def _challenge(
    output: Path, name: str, test: FrameTable, draws: np.ndarray
) -> dict[str, Any] | None:
    """What the challenge would give a system, over its judged trials; None without any."""
    judged = read_judged(output, name, test)
    if not judged:
        return None
    by_trial = np.stack([figures.mean(axis=0) for figures in judged])
    _, first = np.unique(test.case, return_index=True)
    counted = test.case[first]
    by_draw = mean_draws(np.mean(judged, axis=0)[counted], test.subject[first], draws)
    return {
        "trials": len(judged),
        "mean": dict(zip(MEASURES, by_trial.mean(axis=0).tolist(), strict=True)),
        "sd": {k: _sd(by_trial[:, i].tolist()) for i, k in enumerate(MEASURES)},
        "interval": {k: _interval(by_draw[:, i], draws) for i, k in enumerate(MEASURES)},
    }


def _honesty(system: System, result: dict[str, Any], differs: list[str]) -> dict[str, Any]:
    """The system's marks, and in what it differs from the paper's where the paper has it."""
    own = list(differs) if system.kind == "published" else []
    if system.kind == "published" and result["origin"] == RANDOM:
        own.append("first weights random")
    return {"marks": marks(system, result, own), "differs": own}


def _description(system: System, results: list[dict[str, Any]]) -> dict[str, Any]:
    """What was trained and how long, from the trials' result.json."""
    first = results[0]
    return {
        "title": system.title,
        "network": first["network"],
        "trained": first["trained"],
        "origin": first["origin"],
        "begun_from": [result["begun_from"] for result in results],
        "parameters": first["parameters"],
        "real_parameters": {
            protocol.name: real_parameters(system, protocol)[0] for protocol in (PAPER, STRICT)
        },
        "published": None if system.published is None else asdict(system.published),
        "thresholds": [result["threshold"] for result in results],
        "train_seconds": float(np.mean([result["train_seconds"] for result in results])),
        "frames_per_second": float(np.mean([result["frames_per_second"] for result in results])),
    }


def _measures(system: System, trial: Trial, test: FrameTable) -> Measures:
    labels = test.quality > 0
    measures = frame_measures(trial.score, labels, trial.result["threshold"])
    measures["wfss"] = float(np.mean(case_picks(trial, test)))
    if system.rates_quality:
        measures |= quality_measures(trial.quality, test.target, test.case)
    return measures


def _over_trials(
    by_trial: list[Measures], name: str, statistic: Callable[[list[float]], Any]
) -> float | None:
    """A statistic of a measure over the trials that define it."""
    values = [value for measures in by_trial if (value := measures[name]) is not None]
    return float(statistic(values)) if values else None


def _sd(values: list[float]) -> float:
    """The sample's standard deviation, 0 for one trial."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _draws(trials: list[Trial], test: FrameTable, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure's mean over trials in every draw of subjects, (draws,)."""
    by_trial = [_trial_draws(trial, test, draws) for trial in trials]
    return {name: np.mean([values[name] for values in by_trial], axis=0) for name in by_trial[0]}


def _trial_draws(trial: Trial, test: FrameTable, draws: np.ndarray) -> dict[str, np.ndarray]:
    labels = test.quality > 0
    positive = trial.score >= trial.result["threshold"]
    one_hot = np.stack(
        [positive & labels, positive & ~labels, ~positive & labels, ~positive & ~labels], axis=1
    )
    values = rates(draws @ sums_by_subject(one_hot.astype(float), test.subject, draws.shape[1]))
    values["roc_auc"], values["average_precision"] = ranking_draws(
        trial.score, labels, test.subject, draws[:RANKING_RESAMPLES]
    )
    _, first = np.unique(test.case, return_index=True)
    values["wfss"] = mean_draws(case_picks(trial, test), test.subject[first], draws)
    return values


def _interval(values: np.ndarray, draws: np.ndarray) -> tuple[float, float] | None:
    """A measure's interval; None from fewer than five subjects, which know nothing of others."""
    return interval(values) if draws.shape[1] >= FEWEST_SUBJECTS else None


def _compare_with_best(
    summaries: dict[str, Any], by_draw: dict[str, dict[str, np.ndarray]], draws: np.ndarray
) -> None:
    """Add to each system its paired difference to the one of the highest mean F1."""
    if not summaries:
        return
    best = max(summaries, key=lambda name: summaries[name]["mean"][BEST_BY])
    for name, summary in summaries.items():
        summary["best"] = best
        summary["difference_to_best"] = {
            measure: _difference(summaries, by_draw, draws, measure, name, best)
            for measure in COMPARED
        }


def _difference(
    summaries: dict[str, Any],
    by_draw: dict[str, dict[str, np.ndarray]],
    draws: np.ndarray,
    measure: str,
    name: str,
    best: str,
) -> dict[str, Any]:
    mine, theirs = (summaries[system]["mean"][measure] for system in (name, best))
    return {
        "difference": None if mine is None or theirs is None else mine - theirs,
        "interval": _interval(by_draw[name][measure] - by_draw[best][measure], draws),
    }
