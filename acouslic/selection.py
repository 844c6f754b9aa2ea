"""Which frame to measure on: quality and mask of each, joined, smoothed inside the sweep.

Scores are (T,) float32 in 0..1, 0 on black frames; nothing crosses a sweep's end.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from acouslic.stack import sweep_slices

LEAST_GOODNESS = 1e-3


@dataclass(frozen=True)
class SelectionConfig:
    """The few numbers that cross-validation fits; they travel in the bundle.

    smoothing_frames: standard deviation of the Gaussian along the sweep.
    mask_weight: exponent of the mask's goodness beside the expected quality; 0 ignores it.
    mask_threshold: probability above which a pixel is abdomen.
    smallest_mm, largest_mm: circumferences between which a fetal abdomen is plausible in the weeks
        of the challenge.
    """

    smoothing_frames: float = 3.0
    mask_weight: float = 0.5
    mask_threshold: float = 0.5
    smallest_mm: float = 120.0
    largest_mm: float = 380.0


def smooth(values: np.ndarray, tissue: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Gaussian mean of (T,) values over the tissue frames around each frame of its sweep."""
    if sigma_frames <= 0:
        return np.asarray(values * tissue)
    result = np.zeros(len(values), np.float32)
    for sweep in sweep_slices(len(values)):
        seen = tissue[sweep].astype(np.float32)
        weight = gaussian_filter1d(seen, sigma_frames, mode="constant")
        total = gaussian_filter1d(values[sweep] * seen, sigma_frames, mode="constant")
        result[sweep] = np.where(seen > 0, total / np.maximum(weight, 1e-6), 0)
    return result


def frame_scores(
    expected_quality: np.ndarray, goodness: np.ndarray, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """Score every frame.

    `expected_quality` (T,): P(optimal) + 0.6 P(suboptimal). `goodness` (T,): of its mask, 0..1, see
    `pipeline.evidence`. Where no frame has a mask, the quality alone still ranks them.
    """
    quality = smooth(expected_quality, tissue, config.smoothing_frames)
    return np.asarray(quality * np.power(np.maximum(goodness, LEAST_GOODNESS), config.mask_weight))


def ranked(scores: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The tissue frames' indices from best to worst; ties go to the earlier frame."""
    order = np.argsort(-scores, kind="stable")
    return np.asarray(order[tissue[order]])
