"""Agreement of measured and reference AC: bias and limits, each with its interval.

A case is an entry of `cases` in metrics.json; those without a measured or a reference AC are left
out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.intervals import SEED, interval, subject_draws, sums_by_subject

Case = Mapping[str, Any]
# 95 % of a normal distribution lie within so many standard deviations.
NORMAL_95 = 1.96
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Agreement:
    """Bias and limits of agreement of measured minus reference AC, in mm or percent."""

    bias: float
    """The mean difference."""
    low: float
    """The lower limit: bias - 1.96 SD."""
    high: float
    """The upper limit: bias + 1.96 SD."""
    bias_ci95: Interval
    """The bias's 95 % interval, over subjects; None where there are no two."""
    low_ci95: Interval
    """The lower limit's."""
    high_ci95: Interval
    """The upper limit's."""


def measured_cases(cases: Sequence[Case]) -> list[Case]:
    """Those with both a measured and a reference AC."""
    return [case for case in cases if case["ac_mm"] and case["reference_mm"]]


def pairs(cases: Sequence[Case], *, in_percent: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means and differences of measured and reference AC.

    Args:
        cases: all cases.
        in_percent: differences in percent of the mean of both (Bland & Altman, Lancet 1986,
            307-310), not in mm.

    Returns:
        (n,) each, of the n cases that have both.
    """
    both = measured_cases(cases)
    measured_mm = np.array([case["ac_mm"] for case in both], dtype=float)
    reference_mm = np.array([case["reference_mm"] for case in both], dtype=float)
    means, differences = (measured_mm + reference_mm) / 2, measured_mm - reference_mm
    return means, 100 * differences / means if in_percent else differences


def agreement(cases: Sequence[Case], *, in_percent: bool, seed: int = SEED) -> Agreement | None:
    """Bias and limits of agreement with their intervals.

    Args:
        cases: all cases.
        in_percent: see `pairs`.
        seed: of the bootstrap over subjects.

    Returns:
        None where there are no two cases.
    """
    _, differences = pairs(cases, in_percent=in_percent)
    if len(differences) < 2:
        return None
    subjects = [str(case["subject_id"]) for case in measured_cases(cases)]
    bias, spread = float(differences.mean()), NORMAL_95 * float(differences.std(ddof=1))
    ends = _intervals(differences, subjects, seed)
    return Agreement(bias, bias - spread, bias + spread, *ends)


def _intervals(differences: np.ndarray, subjects: Sequence[str], seed: int) -> list[Interval]:
    """Those of bias, lower and upper limit."""
    names, subject = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        return [None] * 3
    powers = np.stack([np.ones_like(differences), differences, differences**2], axis=1)
    drawn = subject_draws(len(names), seed=seed) @ sums_by_subject(powers, subject, len(names))
    count, total, squares = drawn.T
    bias = total / count
    # A draw of one case has no spread. Rounding may leave a sum of squares a little below zero.
    freedom = np.where(count > 1, count - 1, np.nan)
    spread = NORMAL_95 * np.sqrt(np.maximum(squares - count * bias**2, 0) / freedom)
    return [interval(values) for values in (bias, bias - spread, bias + spread)]
