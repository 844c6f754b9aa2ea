"""Confidence intervals of means over cases, by resampling SUBJECTS and not cases.

Two scans of one fetus are not two independent observations.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 5000
LEVEL_PERCENT = 95.0
SEED = 20240


def mean_intervals(
    values: np.ndarray,
    subjects: Sequence[str] | np.ndarray,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> np.ndarray | None:
    """Percentile bootstrap interval of each column's mean, (columns, 2); None below two subjects.

    The cluster bootstrap: as many subjects as there are, drawn with replacement, each with all of
    its cases (Field & Welsh, J. R. Stat. Soc. B 2007, 69(3), 369-390).

    Args:
        values: (cases, columns).
        subjects: the subject of each case.
    """
    names, index = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values)
    sizes = np.bincount(index, minlength=len(names))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    means = (draws @ sums) / (draws @ sizes)[:, None]
    tail = (100 - LEVEL_PERCENT) / 2
    return np.asarray(np.percentile(means, [tail, 100 - tail], axis=0).T)
