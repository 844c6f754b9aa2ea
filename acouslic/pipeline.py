"""The stages in a row: a stack and a bundle in, a measurement out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from acouslic.bundle import Bundle
from acouslic.ellipse import Ellipse
from acouslic.preprocess import to_grid
from acouslic.segment import predict
from acouslic.selection import Outlines, Rule, choose, score_frames
from acouslic.stack import Stack


@dataclass(frozen=True)
class Measurement:
    """The answer for one stack."""

    frame: int
    """0-based index of the chosen frame in the stack."""
    sweep: int
    """Its sweep, 1 to 6, as people count them."""
    mask: np.ndarray
    """(H, W) uint8, 0/1, as it is written."""
    ac_mm: float
    """The evaluator's reading of the mask."""
    ellipse: Ellipse
    """Fitted to the visible border, in pixels of the frame."""
    confidence: float
    """The frame's score, 0..1."""
    frame_scores: np.ndarray
    """(T,) float32, the scores of all frames."""
    seconds: dict[str, float]
    """Wall time by stage."""

    def __str__(self) -> str:
        """The answer in one line for people."""
        return (
            f"frame {self.frame} of sweep {self.sweep}, AC {self.ac_mm:.1f} mm, "
            f"confidence {self.confidence:.2f}"
        )


def measure(stack: Stack, bundle: Bundle, rule: Rule = score_frames) -> Measurement:
    """Choose the frame of a stack, outline the abdomen on it and measure its circumference.

    Args:
        stack: the case.
        bundle: the weights.
        rule: how frames are scored; another one than the default is for comparisons.

    Returns:
        The answer; there always is one, and its confidence has to be read.
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


@dataclass
class _Clock:
    """Measures how long stages take."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as the stage of this name."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
