"""The stages in a row: a stack and a bundle in, a measurement out."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from acouslic.bundle import Bundle
from acouslic.challenge import CHALLENGE_FAN, TYPICAL_AC_MM
from acouslic.ellipse import Ellipse
from acouslic.errors import OddStackError
from acouslic.expected_score import expected_score
from acouslic.mask import Outline, fallback_circle
from acouslic.preprocess import to_grid
from acouslic.segment import NoMemoryError, full_size, predict
from acouslic.selection import Outlines, Rule, believe, choose
from acouslic.stack import Stack

log = logging.getLogger(__name__)


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
    not_measured: str | None = None
    """Why this is no measurement but a guess, of confidence 0; None for a measurement."""

    def __str__(self) -> str:
        """The answer in one line for people."""
        return (
            f"frame {self.frame} of sweep {self.sweep}, AC {self.ac_mm:.1f} mm, "
            f"confidence {self.confidence:.2f}"
        )


def measure(
    stack: Stack, bundle: Bundle, rule: Rule | None = None, *, fail_soft: bool = False
) -> Measurement:
    """Choose the frame of a stack, outline the abdomen on it and measure its circumference.

    Args:
        stack: the case.
        bundle: the weights.
        rule: how frames are scored, for comparisons; None takes the expected score.
        fail_soft: whether a stack that cannot be measured gets an answer of confidence 0 that says
            why, in place of an error.

    Returns:
        The answer; its confidence has to be read.

    Raises:
        BundleError: the networks say what is no number.
        OddStackError: the stack is all black, has no six sweeps of equal length, shows no abdomen,
            or does not fit into memory.
    """
    if not fail_soft and stack.oddity is not None:
        raise stack.oddity
    try:
        measurement, problem = _measure_odd(stack, bundle, rule)
    except NoMemoryError as error:
        measurement, problem = _guess(stack, bundle), error
    if problem is None:
        return measurement
    if not fail_soft:
        raise problem
    log.warning("%s: no measurement, but a guess of confidence 0: %s", stack.name, problem)
    return replace(measurement, confidence=0.0, p_annotated=0.0, not_measured=str(problem))


def _measure_odd(
    stack: Stack, bundle: Bundle, rule: Rule | None
) -> tuple[Measurement, OddStackError | None]:
    """The best answer that a stack allows, and why it is no measurement."""
    oddity = stack.oddity
    if not stack.tissue.any():
        return _guess(stack, bundle), oddity
    measurement, outline = _measure(stack.with_whole_sweeps(), bundle, rule)
    if outline.is_guess and oddity is None:
        oddity = OddStackError(
            expected=f"a frame of {stack.name} on which the network sees an abdomen",
            found="none",
            advice="look at the stack; weights that were trained on other images may see nothing",
        )
    return replace(measurement, frame_scores=measurement.frame_scores[: len(stack.frames)]), oddity


def _guess(stack: Stack, bundle: Bundle) -> Measurement:
    """A circle of a typical circumference on a frame in the middle of those that show anything."""
    spacing_mm, config, fan = stack.geometry.spacing_mm[0], bundle.config.selection, CHALLENGE_FAN
    frames = np.flatnonzero(stack.tissue) if stack.tissue.any() else np.arange(len(stack.frames))
    frame = int(frames[len(frames) // 2])
    circle = fallback_circle(np.ones(fan.mask().shape), fan.mask(), spacing_mm, TYPICAL_AC_MM)
    return Measurement(
        frame=frame,
        sweep=stack.sweep_of(frame) + 1,
        mask=circle.mask.astype(np.uint8),
        ac_mm=circle.ac_mm,
        ellipse=circle.ellipse,
        ac_interval_mm=(config.smallest_mm, config.largest_mm),
        confidence=0.0,
        p_annotated=0.0,
        frame_scores=np.zeros(len(stack.frames), np.float32),
        seconds={},
    )


def _measure(stack: Stack, bundle: Bundle, rule: Rule | None) -> tuple[Measurement, Outline]:
    """The answer for a stack of six whole sweeps that shows something, and its outline."""
    config = bundle.config.selection
    clock = _Clock()
    with clock.stage("preprocess"):
        tissue = stack.tissue
        size, device = bundle.config.network.trunk.image_size, bundle.engine.device
        grid = to_grid(stack.frames, size, np.flatnonzero(tissue), device)
    with clock.stage("network"):
        prediction = predict(bundle.engine, grid, tissue, cpu_too=bundle.cpu_too)
    with clock.stage("selection"):
        belief = believe(prediction, tissue, config, bundle.sweep_head)
        expected = expected_score(belief, config.calibration)
        scores = expected if rule is None else rule(prediction, tissue, config)
        logits_of = partial(full_size, prediction)
        outlines = Outlines(logits_of, stack.geometry.spacing_mm[0], config)
        frame, outline = choose(scores, tissue, outlines)
        calibration = config.calibration
        p_annotated = calibration.p_annotated(float(belief.annotated[frame]))
    measurement = Measurement(
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
    return measurement, outline


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
