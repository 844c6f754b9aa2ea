"""Which frame to measure on: the evidence of every frame, outlines, the choice.

Scores are (T,) float32 in 0..1, 0 on black frames. Nothing is averaged across a sweep's end.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit, logit

from acouslic import mask
from acouslic.challenge import (
    CHALLENGE_FAN,
    FRAME_SHAPE,
    QUALITY_VALUES,
    SPACING_MM,
    TYPICAL_AC_MM,
)
from acouslic.mask import Outline
from acouslic.preprocess import masks_to_grid
from acouslic.segment import StackPrediction, full_size
from acouslic.stack import sweep_slices

log = logging.getLogger(__name__)

# The least that a mask's goodness counts, so that quality alone still ranks frames without a mask.
LEAST_GOODNESS = 1e-3
# At most so many frames are tried for one whose mask is read right; an outline takes some 10 ms.
CANDIDATES = 40
# A frame may take the best one's place where its score is at least this share of the best; set by
# hand.
NEARLY_AS_GOOD = 0.8
# Guards a division; on a tissue frame the Gaussian's weights sum up to far more.
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class SelectionConfig:
    """How frames are scored.

    `training cross-validate` fits the first three on a grid; the defaults stay unless others are
    clearly better. The training set's circumferences reach from 141 to 351 mm.
    """

    smoothing_frames: float = 3.0
    """Standard deviation, in frames, of the Gaussian along the sweep; 0 smooths nothing."""
    mask_weight: float = 0.5
    """Exponent of the mask's goodness beside the expected quality; 0 ignores it."""
    mask_threshold: float = 0.5
    """Probability above which a pixel is abdomen, 0 to 1."""
    smallest_mm: float = 120.0
    """Least plausible circumference in mm."""
    largest_mm: float = 380.0
    """Greatest plausible circumference in mm."""


# A rule scores every frame, (T,), from the prediction, which frames show tissue, and the config.
Rule = Callable[[StackPrediction, np.ndarray, SelectionConfig], np.ndarray]


def score_frames(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """Score every frame by the rule that ships.

    Args:
        prediction: the network's, of T frames.
        tissue: which frames show anything, (T,) bool.
        config: how the evidence is joined.

    Returns:
        (T,), 0 to 1.
    """
    return frame_scores(*evidence(prediction, tissue, config), tissue, config)


def evidence(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """What the rule that ships scores frames by.

    Args:
        prediction: the network's, of T frames.
        tissue: which frames show anything, (T,) bool.
        config: its threshold and its plausible circumferences are used.

    Returns:
        The expected quality of each frame, and the goodness of its mask: that of the shape, times
        the mean probability under it. Both (T,), 0 to 1.
    """
    expected_quality = prediction.quality @ np.array(QUALITY_VALUES, np.float32)
    size = prediction.mask_logits.shape[-1]
    fan = masks_to_grid(CHALLENGE_FAN.mask()[None], size)[0]
    pixel_mm = SPACING_MM * max(FRAME_SHAPE) / size
    plausible_mm = (config.smallest_mm, config.largest_mm)
    goodness = np.zeros(len(tissue), np.float32)
    for frame in np.flatnonzero(tissue):
        logits = prediction.mask_logits[frame].astype(np.float32)
        covered = (logits > logit(config.mask_threshold)) & fan
        shape = mask.goodness(covered, fan, pixel_mm, plausible_mm)
        goodness[frame] = shape * expit(logits[covered]).mean() if shape else 0
    return expected_quality, goodness


def frame_scores(
    expected_quality: np.ndarray, goodness: np.ndarray, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """Score every frame from its evidence.

    Where no frame has a mask, the quality alone still ranks them.

    Args:
        expected_quality: (T,), P(optimal) + 0.6 P(suboptimal), which is the frame's expected WFSS
            in a stack that has an optimal one.
        goodness: (T,), of the masks, 0..1, see `evidence`.
        tissue: (T,) bool.
        config: how they are joined.

    Returns:
        (T,), 0 to 1.
    """
    quality = smooth(expected_quality, tissue, config.smoothing_frames)
    return np.asarray(quality * np.power(np.maximum(goodness, LEAST_GOODNESS), config.mask_weight))


def smooth(values: np.ndarray, tissue: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Average values along each sweep with a Gaussian, over its tissue frames only.

    Args:
        values: (T,).
        tissue: (T,) bool.
        sigma_frames: the Gaussian's standard deviation; 0 or less averages nothing.

    Returns:
        (T,), 0 on black frames.
    """
    if sigma_frames <= 0:
        return np.asarray(values * tissue)
    result = np.zeros(len(values), np.float32)
    for sweep in sweep_slices(len(values)):
        present = tissue[sweep].astype(np.float32)
        weight = gaussian_filter1d(present, sigma_frames, mode="constant")
        total = gaussian_filter1d(values[sweep] * present, sigma_frames, mode="constant")
        result[sweep] = np.where(present > 0, total / np.maximum(weight, LEAST_WEIGHT), 0)
    return result


def ranked(scores: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The indices of the tissue frames, from best to worst; of equals the earlier one first."""
    order = np.argsort(-scores, kind="stable")
    return np.asarray(order[tissue[order]])


class Outlines:
    """The outlines of a prediction's frames, `outlines[frame]`; each is made once, when needed."""

    def __init__(
        self, prediction: StackPrediction, spacing_mm: float, mask_threshold: float
    ) -> None:
        """Make none yet.

        Args:
            prediction: the network's.
            spacing_mm: side of the frames' square pixels.
            mask_threshold: probability above which a pixel is abdomen.
        """
        self.prediction, self.spacing_mm = prediction, spacing_mm
        self._least_logit = logit(mask_threshold)
        self._known: dict[int, Outline | None] = {}

    def __getitem__(self, frame: int) -> Outline | None:
        """The frame's outline, or None where its mask has none."""
        if frame not in self._known:
            covered = full_size(self.prediction, frame) > self._least_logit
            self._known[frame] = mask.outline(covered, CHALLENGE_FAN.mask(), self.spacing_mm)
        return self._known[frame]


def choose(scores: np.ndarray, tissue: np.ndarray, outlines: Outlines) -> tuple[int, Outline]:
    """Choose the best-scored tissue frame whose mask the evaluator's procedure reads right.

    Only frames that score nearly as well as the best may take its place. Where none of them is read
    right, the least misread is taken. Where the network sees no abdomen at all, it is a circle of a
    typical circumference on the best frame.

    Args:
        scores: (T,).
        tissue: (T,) bool.
        outlines: of the same frames.

    Returns:
        The frame's index and its outline.
    """
    ranking = ranked(scores, tissue)
    best = int(ranking[0])
    readable = _readable(ranking, scores, outlines)
    if not readable:
        log.warning("no abdomen is seen in any frame; a circle of %g mm is written", TYPICAL_AC_MM)
        weights = np.exp(full_size(outlines.prediction, best))
        fan = CHALLENGE_FAN.mask()
        return best, mask.fallback_circle(weights, fan, outlines.spacing_mm, TYPICAL_AC_MM)
    frame, outline = min(readable, key=lambda candidate: candidate[1].misread)
    if frame != best:
        log.info(
            "frame %d scores best, but its mask would be misread; frame %d is taken", best, frame
        )
    if outline.misread > mask.MISREAD:
        log.warning(
            "the AC read from the mask differs by %.1f %% from its outline's", 100 * outline.misread
        )
    return frame, outline


def _readable(
    ranking: np.ndarray, scores: np.ndarray, outlines: Outlines
) -> list[tuple[int, Outline]]:
    """The candidates that have an outline, down to the first one that is read right."""
    readable: list[tuple[int, Outline]] = []
    for frame in ranking[:CANDIDATES].tolist():
        if scores[frame] < NEARLY_AS_GOOD * scores[ranking[0]] and readable:
            break
        outline = outlines[frame]
        if outline is None:
            continue
        readable.append((frame, outline))
        if outline.misread <= mask.MISREAD:
            break
    return readable
