"""Rules for choosing the frame, by name: the one that ships and simple ones to compare it with.

A rule takes the network's prediction for a stack, which of its T frames show tissue (T,), and the
bundle's selection settings. It returns a score for each frame, (T,); the highest one is chosen.
Outline and measurement that follow are the same for all.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from acouslic.challenge import QUALITY_VALUES
from acouslic.expected_score import smooth
from acouslic.segment import StackPrediction
from acouslic.selection import Rule, SelectionConfig, evidence
from evaluation.options import RuleName

# Of the rule of version 0.1, as it was: the defaults that its fit never beat clearly.
OLD_SMOOTHING_FRAMES = 3.0
OLD_LEAST_GOODNESS = 1e-3


def quality_times_mask(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """The rule of version 0.1, (T,): expected quality at equal shares, times a mask's goodness.

    The quality is smoothed along the sweep; of the goodness it is the square root.
    """
    said = evidence(prediction, tissue, config)
    quality = smooth(said.quality @ np.array(QUALITY_VALUES), tissue, OLD_SMOOTHING_FRAMES)
    return np.asarray(quality * np.sqrt(np.maximum(said.goodness, OLD_LEAST_GOODNESS)))


def largest_area(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """The share of the grid that the mask covers, (T,): the challenge baseline's rule."""
    covered = expit(prediction.mask_logits.astype(np.float32)) > config.mask_threshold
    return np.asarray(covered.mean(axis=(1, 2)) * tissue)


def highest_probability(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """The mean probability under the mask, (T,); 0 where there is no mask."""
    probability = expit(prediction.mask_logits.astype(np.float32))
    covered = probability > config.mask_threshold
    total = (probability * covered).sum(axis=(1, 2))
    return np.asarray(total / np.maximum(covered.sum(axis=(1, 2)), 1) * tissue)


def peak_probability(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """The highest probability of any pixel, (T,); 0 where there is no mask."""
    peak = expit(prediction.mask_logits.max(axis=(1, 2)).astype(np.float32))
    return np.asarray(peak * (peak > config.mask_threshold) * tissue)


# None: what `measure` does by itself.
RULES: Mapping[RuleName, Rule | None] = {
    "shipped": None,
    "quality-times-mask": quality_times_mask,
    "largest-area": largest_area,
    "highest-probability": highest_probability,
    "peak-probability": peak_probability,
}
