"""Confidence intervals by resampling SUBJECTS and not cases: the project's only bootstrap.

Two scans of one fetus are not two independent observations. So each resample draws as many
subjects as there are, with replacement, and every subject comes with all of its cases (the cluster
bootstrap: Field & Welsh, J. R. Stat. Soc. B 2007, 69(3), 369-390).

Means over cases need `mean_intervals` alone. For any other statistic take `subject_draws`, compute
the statistic of each draw, and give these values to `interval`. The same draws serve for several
systems: then their differences are paired.
"""

from collections.abc import Sequence

import numpy as np

# From seed to seed an end of an interval then moves by 1 % of its width (SD; 60 subjects).
RESAMPLES = 5000
LEVEL_PERCENT = 95.0
# Any number would do; this one stands behind all published intervals of the project.
SEED = 20240
# With fewer, intervals are too narrow. Of 600 simulated studies with normal values the interval of
# 95 % held the true mean in 93 % with 20 subjects, in 89 % with 10, 85 % with 5, and 49 % with 2.
FEW_SUBJECTS = 20
_ENDS_PERCENT = ((100 - LEVEL_PERCENT) / 2, (100 + LEVEL_PERCENT) / 2)


def subject_draws(n_subjects: int, *, seed: int = SEED, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each resample draws each subject.

    Args:
        n_subjects: number of subjects.
        seed: of the random numbers; the same seed gives the same draws.
        resamples: number of draws.

    Returns:
        (resamples, n_subjects) int; every row adds up to `n_subjects`.
    """
    rng = np.random.default_rng(seed)
    share = np.full(n_subjects, 1 / n_subjects)
    return np.asarray(rng.multinomial(n_subjects, share, size=resamples))


def sums_by_subject(values: np.ndarray, subject: np.ndarray, n_subjects: int) -> np.ndarray:
    """Sums of the rows that belong to each subject.

    Args:
        values: (n, ...), a row for each case or frame.
        subject: (n,) int, the subject of each row, from 0.
        n_subjects: number of subjects.

    Returns:
        (n_subjects, ...) float.
    """
    sums = np.zeros((n_subjects, *values.shape[1:]))
    np.add.at(sums, subject, values)
    return sums


def mean_draws(
    values: Sequence[float] | np.ndarray, subject: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """The mean over cases in every resample.

    Args:
        values: (cases,) or (cases, columns).
        subject: (cases,) int, the subject of each case, from 0.
        draws: (resamples, n_subjects) of `subject_draws`.

    Returns:
        (resamples,) or (resamples, columns).
    """
    n_subjects = draws.shape[1]
    sums = draws @ sums_by_subject(np.asarray(values, float), subject, n_subjects)
    sizes = draws @ np.bincount(subject, minlength=n_subjects)
    return np.asarray((sums.T / sizes).T)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of a statistic.

    Args:
        values: (resamples,), the statistic of each draw; NaN where it is undefined.

    Returns:
        Both ends of the 95 % interval of the defined values; None where no value is defined.
    """
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, _ENDS_PERCENT)
    return float(low), float(high)


def mean_intervals(
    values: np.ndarray,
    subjects: Sequence[str] | np.ndarray,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> np.ndarray | None:
    """The percentile interval of each column's mean over cases.

    Args:
        values: (cases, columns).
        subjects: the subject of each case, by name or by number.
        seed: of the random numbers.
        resamples: number of draws.

    Returns:
        (columns, 2), both ends of each 95 % interval; None where there are no two subjects.
    """
    names, subject = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < 2:
        return None
    draws = subject_draws(len(names), seed=seed, resamples=resamples)
    return np.asarray(np.percentile(mean_draws(values, subject, draws), _ENDS_PERCENT, axis=0).T)


def few_subjects(n_subjects: int) -> str | None:
    """What to warn of where there are too few subjects for an honest interval; None elsewhere."""
    if n_subjects >= FEW_SUBJECTS:
        return None
    if n_subjects < 2:
        return "One subject: no interval can be given, and nothing is known of any other subject."
    return (
        f"Only {n_subjects} subjects: intervals over so few are too narrow, and from fewer than "
        f"{FEW_SUBJECTS} nothing general should be concluded."
    )
