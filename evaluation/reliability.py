"""Whether answers hold what they say of themselves: confidence, p_annotated, the AC's interval.

A case is an entry of `cases` in metrics.json; those whose answer says nothing of itself are left
out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

Case = Mapping[str, Any]
BINS = 10
# A case that scores less has lost the frame or the sweep, not only some overlap or millimetres.
POOR_SCORE = 0.6


def reliability(cases: Sequence[Case]) -> dict[str, float | int | None]:
    """The figures of all three claims.

    Returns:
        How many answers make claims (`n`); the expected calibration errors of `confidence` against
        the score and of `p_annotated` against the chosen frame's being annotated; the ROC areas of
        `confidence` for a score of at least POOR_SCORE and of `p_annotated` for annotated frames;
        the share of references inside the interval (`ac_coverage`) and how many there were
        (`n_references`). None where a figure is not defined.
    """
    claiming = [case for case in cases if case.get("confidence") is not None]
    confidence, score = (_column(claiming, key) for key in ("confidence", "score"))
    p_annotated = _column(claiming, "p_annotated")
    annotated = np.array([case["quality"] != "none" for case in claiming], float)
    inside = [_is_inside(case) for case in claiming if case["reference_mm"] is not None]
    return {
        "n": len(claiming),
        "confidence_calibration_error": calibration_error(confidence, score),
        "p_annotated_calibration_error": calibration_error(p_annotated, annotated),
        "confidence_roc_area": roc_area(confidence, score >= POOR_SCORE),
        "p_annotated_roc_area": roc_area(p_annotated, annotated > 0),
        "ac_coverage": float(np.mean(inside)) if inside else None,
        "n_references": len(inside),
    }


def calibration_error(claimed: np.ndarray, came: np.ndarray) -> float | None:
    """Expected calibration error over BINS bins of equal width; None without cases.

    The mean over cases of the distance between what was claimed and what came, both averaged over
    the bin (Naeini et al., AAAI 2015).

    Args:
        claimed: (n,) in 0..1.
        came: (n,) in 0..1.
    """
    if not len(claimed):
        return None
    total = 0.0
    for chosen in bins(claimed):
        total += chosen.sum() * abs(claimed[chosen].mean() - came[chosen].mean())
    return float(total / len(claimed))


def bins(claimed: np.ndarray) -> list[np.ndarray]:
    """Which cases each bin holds, (n,) bool each; empty bins are left out."""
    number = np.minimum((claimed * BINS).astype(int), BINS - 1)
    return [number == k for k in np.unique(number)]


def roc_area(claimed: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the ROC curve; None where the truth, (n,) bool, does not vary."""
    if not len(truth) or truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, claimed))


def risk_coverage(cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss of the surest cases, the more of them the farther on.

    Returns:
        Coverage, the share of cases kept, and risk, their mean of 1 - score; (n,) each.
    """
    claiming = [case for case in cases if case.get("confidence") is not None]
    confidence, score = (_column(claiming, key) for key in ("confidence", "score"))
    loss = 1 - score[np.argsort(-confidence, kind="stable")]
    count = np.arange(1, len(loss) + 1)
    return count / max(len(loss), 1), np.cumsum(loss) / count


def _column(cases: Sequence[Case], key: str) -> np.ndarray:
    return np.array([case[key] for case in cases], float)


def _is_inside(case: Case) -> bool:
    low, high = case["ac_interval_mm"]
    return bool(low <= case["reference_mm"] <= high)
