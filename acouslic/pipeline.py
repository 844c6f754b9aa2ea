"""The stages in a row: a stack and a bundle in, a measurement out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from acouslic.bundle import Bundle
from acouslic.ellipse import Ellipse
from acouslic.expected_score import expected_score
from acouslic.preprocess import to_grid
from acouslic.segment import full_size, predict
from acouslic.selection import Outlines, Rule, believe, choose
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
    ac_interval_mm: tuple[float, float]
    """Where the reference AC lies in 90 % of cases, if the sweep has one."""
    confidence: float
    """The score that the answer is expected to get, 0..1."""
    p_annotated: float
    """The probability that an annotator would have chosen this frame too."""
    frame_scores: np.ndarray
    """(T,) float32, the scores of all frames by which one was chosen."""
    seconds: dict[str, float]
    """Wall time by stage."""

    def __str__(self) -> str:
        """The answer in one line for people."""
        return (
            f"frame {self.frame} of sweep {self.sweep}, AC {self.ac_mm:.1f} mm, "
            f"confidence {self.confidence:.2f}"
        )


def measure(stack: Stack, bundle: Bundle, rule: Rule | None = None) -> Measurement:
    """Choose the frame of a stack, outline the abdomen on it and measure its circumference.

    Args:
        stack: the case.
        bundle: the weights.
        rule: how frames are scored, for comparisons; None takes the expected score.

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
        belief = believe(prediction, tissue, config)
        expected = expected_score(belief, config.calibration)
        scores = expected if rule is None else rule(prediction, tissue, config)
        logits_of = partial(full_size, prediction)
        outlines = Outlines(logits_of, stack.geometry.spacing_mm[0], config)
        frame, outline = choose(scores, tissue, outlines)
        calibration = config.calibration
        p_annotated = calibration.p_annotated(float(belief.annotated[frame]))
    return Measurement(
        frame=frame,
        sweep=stack.sweep_of(frame) + 1,
        mask=outline.mask.astype(np.uint8),
        ac_mm=outline.ac_mm,
        ellipse=outline.ellipse,
        ac_interval_mm=calibration.ac_interval_mm(outline.ac_mm, p_annotated),
        confidence=calibration.confidence(float(expected[frame])),
        p_annotated=p_annotated,
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
