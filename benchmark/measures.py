"""How good a trial is: measures of frames, of the picked frame, and of quality as a number.

Pure functions on arrays. Scores are (n,) from 0 to 1, labels (n,) bool; None stands for undefined.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from acouslic.challenge import labels_of_quality
from dataset.labels import Labels
from evaluation.metrics import wfss

Measures = dict[str, float | None]
# 64 draws of 50,400 frames (60 whole stacks) are 26 MB an array.
DRAWS_AT_ONCE = 64
QUALITY_MEASURES = ("plcc", "srocc", "krocc", "mae", "rmse")


def confusion(positive: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count frames by answer and truth.

    Args:
        positive: (n,) bool, whether a frame is called annotated.
        labels: (n,) bool, whether it is.

    Returns:
        (4,) int64: true positives, false positives, false negatives, true negatives.
    """
    return np.array(
        [
            np.count_nonzero(positive & labels),
            np.count_nonzero(positive & ~labels),
            np.count_nonzero(~positive & labels),
            np.count_nonzero(~positive & ~labels),
        ]
    )


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, F1, precision, recall and specificity.

    Args:
        counts: (..., 4), in the order of `confusion`.

    Returns:
        (...,) of each measure, by name; 0 for 0 / 0.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, float), -1, 0)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def frame_measures(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Measures:
    """Measures of frames that are called annotated at or above a threshold.

    Args:
        scores: (n,).
        labels: (n,) bool, whether a frame is annotated.
        threshold: the least score of a frame that is called annotated.

    Returns:
        Those of `rates`, ROC-AUC and average precision, by name.
    """
    measures: Measures = {
        name: float(value) for name, value in rates(confusion(scores >= threshold, labels)).items()
    }
    both = bool(labels.any() and not labels.all())
    measures["roc_auc"] = float(roc_auc_score(labels, scores)) if both else None
    measures["average_precision"] = (
        float(average_precision_score(labels, scores)) if labels.any() else None
    )
    return measures


def ranking_draws(
    scores: np.ndarray, labels: np.ndarray, subject: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ROC-AUC and average precision in every resample of subjects.

    Equal scores are one threshold, as in scikit-learn; a subject drawn twice counts twice.

    Args:
        scores: (n,).
        labels: (n,) bool, whether a frame is annotated.
        subject: (n,) int, the subject of each frame, from 0.
        draws: (resamples, n_subjects) of `evaluation.intervals.subject_draws`.

    Returns:
        (resamples,) each; NaN where undefined.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    positive = labels[order].astype(float)
    owner = subject[order]
    auc, precision = np.empty(len(draws)), np.empty(len(draws))
    for start in range(0, len(draws), DRAWS_AT_ONCE):
        weights = draws[start : start + DRAWS_AT_ONCE, owner].astype(float)
        tp = np.cumsum(weights * positive, axis=1)[:, ends]
        fp = np.cumsum(weights * (1 - positive), axis=1)[:, ends]
        stop = start + len(weights)
        auc[start:stop], precision[start:stop] = _areas(tp, fp)
    return auc, precision


def _areas(tp: np.ndarray, fp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under ROC (trapezoids) and precision-recall (steps) of running counts, (draws, k)."""
    steps_tp = np.diff(tp, axis=1, prepend=0)
    steps_fp = np.diff(fp, axis=1, prepend=0)
    before = tp - steps_tp
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (steps_fp * (before + tp) / 2).sum(axis=1) / (tp[:, -1] * fp[:, -1])
        steps = np.where(steps_tp > 0, steps_tp * tp / (tp + fp), 0)
        precision = steps.sum(axis=1) / tp[:, -1]
    return auc, precision


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of the highest F1; 0.5 where no frame is annotated."""
    if not labels.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = _ratio(2 * precision * recall, precision + recall)[:-1]
    return float(thresholds[int(np.argmax(f1))])


def picked_frame(quality: np.ndarray, candidates: np.ndarray) -> int:
    """The frame of a stack with the highest quality, the first of equals.

    Args:
        quality: (T,), predicted.
        candidates: (T,) bool, the frames that may be picked.

    Returns:
        Its index; -1 where there is no candidate.
    """
    if not candidates.any():
        return -1
    return int(np.argmax(np.where(candidates, quality, -np.inf)))


def wfss_of(frame: int, quality: np.ndarray) -> float:
    """The challenge's frame selection score of a frame, for the stack's true quality (T,)."""
    labels = labels_of_quality(quality)
    annotated = {int(k): labels[k].reshape(1, 1) for k in np.flatnonzero(labels)}
    return wfss(Labels(len(quality), (1, 1), annotated), frame)


def quality_measures(predicted: np.ndarray, truth: np.ndarray, case: np.ndarray) -> Measures:
    """QUALITY_MEASURES over all frames, and as means over cases with the prefix `case_`.

    Ties are respected: SROCC is of mean ranks, KROCC is tau-b. A correlation is undefined where one
    side does not vary; such cases are left out of its mean.

    Args:
        predicted: (n,), predicted quality.
        truth: (n,), true quality.
        case: (n,), the case of each frame.

    Returns:
        The measures by name.
    """
    measures = _quality(predicted, truth)
    by_case = [_quality(predicted[case == k], truth[case == k]) for k in np.unique(case)]
    for name in QUALITY_MEASURES:
        values = [value for of_case in by_case if (value := of_case[name]) is not None]
        measures[f"case_{name}"] = float(np.mean(values)) if values else None
    return measures


def _quality(predicted: np.ndarray, truth: np.ndarray) -> Measures:
    difference = predicted.astype(float) - truth
    return {
        "plcc": _correlation(stats.pearsonr, predicted, truth),
        "srocc": _correlation(stats.spearmanr, predicted, truth),
        "krocc": _correlation(stats.kendalltau, predicted, truth),
        "mae": float(np.abs(difference).mean()),
        "rmse": float(np.sqrt((difference**2).mean())),
    }


def _correlation(
    function: Callable[..., tuple[float, float]], a: np.ndarray, b: np.ndarray
) -> float | None:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    with warnings.catch_warnings():
        # Scores may differ in their last digit only; the number is as right as it can be then.
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        value = float(function(a.astype(float), b.astype(float))[0])
    return value if math.isfinite(value) else None
