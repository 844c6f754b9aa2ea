"""Which frame to measure on: the evidence of every frame, outlines, the choice.

Scores are (T,) float32 in 0..1, 0 on black frames. Nothing is averaged across a sweep's end.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Interval
from scipy.special import expit, logit

from acouslic import mask
from acouslic.calibration import Calibration
from acouslic.challenge import (
    CHALLENGE_FAN,
    FRAME_SHAPE,
    SPACING_MM,
    TYPICAL_AC_MM,
)
from acouslic.expected_score import Evidence, Posteriors, expected_score, posteriors
from acouslic.mask import Outline
from acouslic.preprocess import masks_to_grid
from acouslic.segment import StackPrediction
from acouslic.sweep_head import SweepHead

log = logging.getLogger(__name__)

# At most so many frames are tried for one whose mask is read right; an outline takes some 10 ms.
CANDIDATES = 40
# A frame may take the best one's place where its score is at least this share of the best; set by
# hand.
NEARLY_AS_GOOD = 0.8
# exp(88) is about the largest number that float32 holds.
_LARGEST_EXPONENT = 80
# A circumference in mm: a frame's own border is 731 mm long.
Length = Annotated[float, Interval(gt=0, le=1000)]


@dataclass(frozen=True)
class SelectionConfig:
    """How a frame is chosen; the training set's circumferences reach from 141 to 351 mm."""

    mask_threshold: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Probability above which a pixel is abdomen, 0 to 1."""
    smallest_mm: Length = 120.0
    """Least plausible circumference in mm."""
    largest_mm: Length = 380.0
    """Greatest plausible circumference in mm."""
    sweep_prior: bool = True
    """Whether a sweep's number counts in the choice."""
    calibration: Calibration = field(default_factory=Calibration)
    """The numbers that make probabilities of what the network says."""

    def __post_init__(self) -> None:
        """Refuse a range without anything in it."""
        if self.smallest_mm >= self.largest_mm:
            raise ValueError(f"no circumference is in {self.smallest_mm}..{self.largest_mm} mm")


# A rule scores every frame, (T,), from the prediction, which frames show tissue, and the config.
Rule = Callable[[StackPrediction, np.ndarray, SelectionConfig], np.ndarray]


def score_frames(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """Score every frame by the rule that ships: its expected score.

    Args:
        prediction: the network's, of T frames.
        tissue: which frames show anything, (T,) bool.
        config: how a frame is chosen.

    Returns:
        (T,), 0 to 1.
    """
    return expected_score(believe(prediction, tissue, config), config.calibration)


def believe(
    prediction: StackPrediction,
    tissue: np.ndarray,
    config: SelectionConfig,
    head: SweepHead | None = None,
) -> Posteriors:
    """What is to be believed of a stack after the network's prediction; see `score_frames`.

    Args:
        prediction: the network's, of T frames.
        tissue: which frames show anything, (T,) bool.
        config: how a frame is chosen.
        head: the bundle's sweep head, if it has one.
    """
    said = evidence(prediction, tissue, config)
    correction = None if head is None else head.correction(said)
    return posteriors(
        said, config.calibration, sweep_prior=config.sweep_prior, correction=correction
    )


def evidence(prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig) -> Evidence:
    """What the network says of each frame, and how much its mask looks like an abdomen.

    A mask's goodness is that of its shape, times the mean probability under it.

    Args:
        prediction: the network's, of T frames.
        tissue: which frames show anything, (T,) bool.
        config: its threshold and its plausible circumferences are used.
    """
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
    return Evidence(prediction.quality, goodness, tissue)


def ranked(scores: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The indices of the tissue frames, from best to worst; of equals the earlier one first."""
    order = np.argsort(-scores, kind="stable")
    return np.asarray(order[tissue[order]])


class Outlines:
    """The outlines of a stack's frames, `outlines[frame]`; each is made once, when needed."""

    def __init__(
        self, logits_of: Callable[[int], np.ndarray], spacing_mm: float, config: SelectionConfig
    ) -> None:
        """Make none yet.

        Args:
            logits_of: gives a frame's mask logits at the frame's own size, (H, W).
            spacing_mm: side of the frames' square pixels.
            config: its threshold and its scale of the AC are used.
        """
        self.logits_of, self.spacing_mm = logits_of, spacing_mm
        self._least_logit = logit(config.mask_threshold)
        self._ac_scale = config.calibration.ac_scale
        self._known: dict[int, Outline | None] = {}

    def __getitem__(self, frame: int) -> Outline | None:
        """The frame's outline, or None where its mask has none."""
        if frame not in self._known:
            covered = self.logits_of(frame) > self._least_logit
            fan = CHALLENGE_FAN.mask()
            self._known[frame] = mask.outline(covered, fan, self.spacing_mm, self._ac_scale)
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
        weights = np.exp(np.minimum(outlines.logits_of(best), _LARGEST_EXPONENT))
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
