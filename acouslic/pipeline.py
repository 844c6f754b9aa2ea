"""The stages in a row: a stack and a bundle in, a measurement out."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import expit, logit

from acouslic import mask, selection
from acouslic.bundle import Bundle
from acouslic.ellipse import Ellipse
from acouslic.fan import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.mask import Outline
from acouslic.network import QUALITY_VALUES
from acouslic.preprocess import from_grid, masks_to_grid, to_grid
from acouslic.segment import StackPrediction, predict
from acouslic.selection import SelectionConfig
from acouslic.stack import Stack

log = logging.getLogger(__name__)

CANDIDATES = 40
NEARLY_AS_GOOD = 0.8
FALLBACK_AC_MM = 236.0
Rule = Callable[[StackPrediction, np.ndarray, SelectionConfig], np.ndarray]


@dataclass(frozen=True)
class Measurement:
    """The answer for one stack.

    frame: 0-based index in the stack; sweep: 1-based, as people count them.
    mask: (H, W) uint8, 0/1, as it is written; ac_mm: the evaluator's reading of it.
    ellipse: fitted to the visible border, in pixels of the frame.
    confidence: the frame's score, 0..1; frame_scores: (T,) float32, of all frames.
    seconds: wall time by stage.
    """

    frame: int
    sweep: int
    mask: np.ndarray
    ac_mm: float
    ellipse: Ellipse
    confidence: float
    frame_scores: np.ndarray
    seconds: dict[str, float]


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def score_frames(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> np.ndarray:
    """Each frame's score, (T,): the rule that ships."""
    return selection.frame_scores(*evidence(prediction, tissue, config), tissue, config)


def measure(stack: Stack, bundle: Bundle, rule: Rule = score_frames) -> Measurement:
    """Choose the frame of a stack, outline the abdomen on it and measure its circumference.

    Another `rule` than the one that ships is for comparisons.
    """
    config = bundle.config.selection
    clock = _Clock()
    with clock.stage("preprocess"):
        tissue = stack.tissue
        grid = to_grid(stack.frames[tissue], bundle.config.network.trunk.image_size)
    with clock.stage("network"):
        prediction = predict(bundle.members, grid, tissue)
    with clock.stage("selection"):
        scores = rule(prediction, tissue, config)
        outlines = Outlines(prediction, stack.geometry.spacing_mm[0], config.mask_threshold)
        frame, outline = choose(scores, tissue, outlines)
    return Measurement(
        frame=frame,
        sweep=stack.sweep_of(frame) + 1,
        mask=outline.mask.astype(np.uint8),
        ac_mm=outline.ac_mm,
        ellipse=outline.ellipse,
        confidence=float(np.clip(scores[frame], 0, 1)),
        frame_scores=scores,
        seconds=clock.seconds,
    )


def evidence(
    prediction: StackPrediction, tissue: np.ndarray, config: SelectionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """What the selection weighs, (T,) each: frames' expected quality and their masks' goodness, of
    shape and of mean probability.
    """
    expected_quality = prediction.quality @ np.array(QUALITY_VALUES, np.float32)
    size = prediction.mask_logits.shape[-1]
    fan = masks_to_grid(CHALLENGE_FAN.mask()[None], size)[0]
    pixel_mm = SPACING_MM * max(FRAME_SHAPE) / size
    plausible_mm = (config.smallest_mm, config.largest_mm)
    goodness = np.zeros(len(tissue), np.float32)
    for frame in np.flatnonzero(tissue):
        logits = prediction.mask_logits[frame].astype(np.float32)
        found = (logits > logit(config.mask_threshold)) & fan
        shape = mask.goodness(found, fan, pixel_mm, plausible_mm)
        goodness[frame] = shape * expit(logits[found]).mean() if shape else 0
    return expected_quality, goodness


class Outlines:
    """The outlines of a prediction's frames, `outlines[frame]`: found when asked for, once."""

    def __init__(
        self, prediction: StackPrediction, spacing_mm: float, mask_threshold: float
    ) -> None:
        self.prediction, self.spacing_mm = prediction, spacing_mm
        self._least_logit = logit(mask_threshold)
        self._known: dict[int, Outline | None] = {}

    def __getitem__(self, frame: int) -> Outline | None:
        if frame not in self._known:
            found = full_size(self.prediction, frame) > self._least_logit
            self._known[frame] = mask.outline(found, CHALLENGE_FAN.mask(), self.spacing_mm)
        return self._known[frame]


def choose(scores: np.ndarray, tissue: np.ndarray, outlines: Outlines) -> tuple[int, Outline]:
    """The best-scored tissue frame whose mask the evaluator's procedure reads well, and its
    outline; `scores` and `tissue` are (T,).

    Only frames that score nearly as well as the best may take its place; where none is read well
    the least misread is taken, and where the network sees no abdomen at all, a circle of the
    population's mean.
    """
    ranking = selection.ranked(scores, tissue)
    best = int(ranking[0])
    readable: list[tuple[float, int, Outline]] = []
    for frame in ranking[:CANDIDATES].tolist():
        if scores[frame] < NEARLY_AS_GOOD * scores[best] and readable:
            break
        outline = outlines[frame]
        if outline is None:
            continue
        readable.append((outline.misread, frame, outline))
        if outline.misread <= mask.MISREAD:
            break
    if not readable:
        log.warning("no abdomen is seen in any frame; a circle of %g mm is written", FALLBACK_AC_MM)
        weights = np.exp(full_size(outlines.prediction, best))
        fan = CHALLENGE_FAN.mask()
        return best, mask.fallback_circle(weights, fan, outlines.spacing_mm, FALLBACK_AC_MM)
    misread, frame, outline = min(readable, key=lambda item: item[0])
    if frame != best:
        log.info(
            "frame %d scores best, but its mask would be misread; frame %d is taken", best, frame
        )
    if misread > mask.MISREAD:
        log.warning(
            "the AC read from the mask differs by %.1f %% from its outline's", 100 * misread
        )
    return frame, outline


def full_size(prediction: StackPrediction, frame: int) -> np.ndarray:
    """One frame's mask logits at the frame's own size, (H, W) float32."""
    logits = torch.from_numpy(prediction.mask_logits[frame][None]).float()
    return from_grid(logits, FRAME_SHAPE)[0].numpy()
