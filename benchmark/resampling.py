"""Bootstrap over subjects for measures that are no means of cases: F1, ROC-AUC, average precision.

The same draws serve every system and every trial, so that differences are paired. They are those of
`evaluation.intervals`, whose seed, number and level are used.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.intervals import LEVEL_PERCENT, RESAMPLES, SEED

DRAWS_AT_ONCE = 64


def subject_draws(n_subjects: int, *, seed: int = SEED, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, n_subjects) int: how often each subject is drawn."""
    rng = np.random.default_rng(seed)
    share = np.full(n_subjects, 1 / n_subjects)
    return np.asarray(rng.multinomial(n_subjects, share, size=resamples))


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of a statistic's draws; undefined draws are left out."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    tail = (100 - LEVEL_PERCENT) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def sums_by_subject(values: np.ndarray, subject: np.ndarray, n_subjects: int) -> np.ndarray:
    """(n_subjects, columns): sums of (n, columns) values over each subject's rows."""
    sums = np.zeros((n_subjects, values.shape[1]))
    np.add.at(sums, subject, values)
    return sums


def mean_draws(values: Sequence[float], subject: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(resamples,): the mean over cases of a value of each case."""
    columns = np.stack([np.asarray(values, float), np.ones(len(subject))], axis=1)
    sums = draws @ sums_by_subject(columns, subject, draws.shape[1])
    return np.asarray(sums[:, 0] / sums[:, 1])


def ranking_draws(
    scores: np.ndarray, labels: np.ndarray, subject: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ROC-AUC and average precision of each draw, (resamples,) each; NaN where undefined.

    Equal scores are one threshold, as in scikit-learn; a subject drawn twice counts twice.
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
    """Areas under ROC (trapezoids) and precision-recall (steps) of cumulated counts (draws, k)."""
    steps_tp = np.diff(tp, axis=1, prepend=0)
    steps_fp = np.diff(fp, axis=1, prepend=0)
    before = tp - steps_tp
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (steps_fp * (before + tp) / 2).sum(axis=1) / (tp[:, -1] * fp[:, -1])
        steps = np.where(steps_tp > 0, steps_tp * tp / (tp + fp), 0)
        precision = steps.sum(axis=1) / tp[:, -1]
    return auc, precision
