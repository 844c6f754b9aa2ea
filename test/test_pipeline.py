import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from acouslic import pipeline, selection
from acouslic.bundle import Bundle, load_bundle
from acouslic.calibration import Calibration
from acouslic.challenge import (
    CHALLENGE_FAN,
    CIRCUMFERENCE_FILE,
    FRAME_SHAPE,
    SPACING_MM,
    TYPICAL_AC_MM,
)
from acouslic.ellipse import Ellipse, circumference_mm
from acouslic.errors import BundleError, OddStackError
from acouslic.mask import Outline
from acouslic.metaimage import Geometry
from acouslic.platform_io import write_outputs
from acouslic.segment import NoMemoryError, StackPrediction, full_size
from acouslic.selection import SelectionConfig
from acouslic.stack import Stack

SIDE = 128
SCALE = 744 / SIDE
CONFIG = SelectionConfig(calibration=Calibration(smoothing_frames=0.0))
TISSUE = np.array([True, False] * 6)


def grid_logits(ellipse: Ellipse) -> np.ndarray:
    """The logit map, sharp but for one pixel, of an ellipse given in frame pixels."""
    rows, columns = np.indices((SIDE, SIDE))
    x = (columns + 0.5) * SCALE - 0.5 - ellipse.centre_x_px
    y = (rows + 0.5) * SCALE - 0.5 - 91 - ellipse.centre_y_px
    angle = np.radians(ellipse.angle_deg)
    along = (np.cos(angle) * x + np.sin(angle) * y) / ellipse.semi_major_px
    across = (np.cos(angle) * y - np.sin(angle) * x) / ellipse.semi_minor_px
    distance_px = (1 - np.hypot(along, across)) * ellipse.semi_minor_px
    return np.asarray(np.clip(distance_px / SCALE, -6, 6).astype(np.float16))


def prediction(quality: dict[int, float], ellipses: dict[int, Ellipse]) -> StackPrediction:
    probabilities = np.zeros((12, 3), np.float32)
    probabilities[:, 0] = 1
    for frame, value in quality.items():
        probabilities[frame] = (1 - value, 0, value)
    logits = np.full((12, SIDE, SIDE), -6, np.float16)
    for frame, ellipse in ellipses.items():
        logits[frame] = grid_logits(ellipse)
    return StackPrediction(probabilities, logits)


def choose(found: StackPrediction) -> tuple[int, Outline]:
    scores = selection.score_frames(found, TISSUE, CONFIG)
    return selection.choose(scores, TISSUE, outlines(found))


def outlines(found: StackPrediction) -> selection.Outlines:
    return selection.Outlines(partial(full_size, found), SPACING_MM, CONFIG)


INSIDE = Ellipse(370.0, 300.0, 140.0, 120.0, 30.0)
CUT_THRICE = Ellipse(333.0, 113.0, 140.5, 106.1, 90.2)


def test_the_best_frame_is_outlined_and_measured_as_it_is_written() -> None:
    frame, outline = choose(prediction({4: 0.9, 8: 0.5}, {4: INSIDE, 8: INSIDE}))
    assert frame == 4
    assert outline.ac_mm == pytest.approx(INSIDE.circumference_px * SPACING_MM, rel=0.01)
    assert outline.ac_mm == circumference_mm(outline.mask, CHALLENGE_FAN.mask(), SPACING_MM)


def test_of_two_equal_shapes_the_surer_mask_is_chosen() -> None:
    found = prediction({4: 0.9, 8: 0.9}, {4: INSIDE, 8: INSIDE})
    found.mask_logits[4] *= 0.5
    goodness = selection.evidence(found, TISSUE, CONFIG).goodness
    covered = found.mask_logits[8].astype(np.float32)
    covered = covered[covered > 0]
    shape = goodness[8] / np.mean(1 / (1 + np.exp(-covered)))
    assert 0.9 < shape <= 1
    halved = np.mean(1 / (1 + np.exp(-covered / 2)))
    assert goodness[4] == pytest.approx(shape * halved, rel=1e-3)
    assert choose(found)[0] == 8


def test_a_frame_whose_mask_would_be_misread_gives_way_to_one_nearly_as_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    found = prediction({4: 0.95, 8: 0.9}, {4: CUT_THRICE, 8: INSIDE})
    even = np.where(TISSUE, found.quality[:, 2], 0)
    frame, _ = selection.choose(even, TISSUE, outlines(found))
    assert frame == 8
    assert "frame 4 scores best" in caplog.text


def test_a_misread_mask_is_still_written_where_nothing_else_is_as_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = prediction({4: 0.95, 8: 0.1}, {4: CUT_THRICE, 8: INSIDE})
    even = np.where(TISSUE, found.quality[:, 2], 0)
    frame, outline = selection.choose(even, TISSUE, outlines(found))
    assert frame == 4
    assert outline.mask.any()
    assert "differs by" in caplog.text


def test_where_no_abdomen_is_seen_a_circle_is_written_on_the_best_frame(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame, outline = choose(prediction({6: 0.3}, {}))
    assert frame == 6
    assert outline.ac_mm == pytest.approx(TYPICAL_AC_MM, rel=0.01)
    assert "no abdomen is seen" in caplog.text


IDENTITY = Geometry.plain(SPACING_MM)


def blind(bundle: Bundle) -> Bundle:
    """The bundle, whose networks see nothing any more."""
    for member in bundle.members:
        member.get_parameter("decoder.logit.1.bias").fill_(-100)
    return bundle


def no_memory(*_arguments: object, **_options: object) -> StackPrediction:
    raise NoMemoryError(expected="memory", found="too little", advice="buy some")


ODD: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "all black": (np.zeros_like, "all black"),
    "eleven frames": (lambda frames: frames[:11], "11 frames, no multiple of 6"),
    "one frame": (lambda frames: frames[:1], "1 frames, no multiple of 6"),
    "thirteen frames": (lambda frames: np.concatenate([frames, frames[:1]]), "13 frames"),
    "nothing seen": (lambda frames: frames, "the network sees an abdomen; found none"),
    "no memory": (lambda frames: frames, "too little"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_can_be_read_but_not_measured_is_an_error_or_a_guess_of_confidence_0(
    tiny_bundle: Path,
    frames: np.ndarray,
    odd: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    change, reason = ODD[odd]
    stack, bundle = Stack("case", change(frames), IDENTITY), load_bundle(tiny_bundle)
    if odd == "nothing seen":
        blind(bundle)
    elif odd == "no memory":
        monkeypatch.setattr(pipeline, "predict", no_memory)
    with pytest.raises(OddStackError, match=reason):
        pipeline.measure(stack, bundle)
    guess = pipeline.measure(stack, bundle, fail_soft=True)
    assert guess.confidence == guess.p_annotated == 0
    assert guess.not_measured is not None and reason in guess.not_measured
    (line,) = [record for record in caplog.records if record.name == "acouslic.pipeline"]
    assert reason in line.message and "\n" not in line.message
    assert 0 <= guess.frame < len(stack.frames) == len(guess.frame_scores)
    assert 1 <= guess.sweep <= 6
    low, high = guess.ac_interval_mm
    assert low < guess.ac_mm < high and guess.mask.any()
    write_outputs(tmp_path, stack, guess, bundle.id, simulated=True)
    described = json.loads((tmp_path / CIRCUMFERENCE_FILE).read_text())
    assert (described["confidence"], described["not_measured"]) == (0, guess.not_measured)


def test_a_stack_of_eleven_frames_is_answered_as_if_its_end_were_black(
    tiny_bundle: Path, frames: np.ndarray
) -> None:
    """The twelfth frame is black, so that nothing but the confidence differs."""
    bundle = load_bundle(tiny_bundle)
    whole = pipeline.measure(Stack("case", frames, IDENTITY), bundle)
    short = pipeline.measure(Stack("case", frames[:11], IDENTITY), bundle, fail_soft=True)
    assert (short.frame, short.sweep, short.ac_mm) == (whole.frame, whole.sweep, whole.ac_mm)
    assert np.array_equal(short.mask, whole.mask)


def test_a_sound_stack_is_answered_alike_with_and_without_fail_soft(
    tiny_bundle: Path, frames: np.ndarray
) -> None:
    bundle, stack = load_bundle(tiny_bundle), Stack("case", frames, IDENTITY)
    strict, soft = pipeline.measure(stack, bundle), pipeline.measure(stack, bundle, fail_soft=True)
    assert soft.not_measured is None and soft.confidence == strict.confidence > 0
    assert np.array_equal(strict.mask, soft.mask)


def test_weights_that_give_no_number_are_refused_even_softly(
    tiny_bundle: Path, frames: np.ndarray
) -> None:
    bundle = load_bundle(tiny_bundle)
    bundle.members[0].get_parameter("decoder.logit.1.bias").fill_(float("nan"))
    with pytest.raises(BundleError, match="not finite"):
        pipeline.measure(Stack("case", frames, IDENTITY), bundle, fail_soft=True)


def test_measure_runs_all_stages_and_says_the_same_twice(
    tiny_bundle: Path, frames: np.ndarray
) -> None:
    stack = Stack("case", frames, Geometry((SPACING_MM,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0)))
    bundle = load_bundle(tiny_bundle)
    first, second = pipeline.measure(stack, bundle), pipeline.measure(stack, bundle)
    assert first.frame == second.frame
    assert np.array_equal(first.mask, second.mask)
    assert first.mask.shape == FRAME_SHAPE
    assert first.mask.dtype == np.uint8
    assert first.frame % 2 == 0  # odd ones are black
    assert first.sweep == first.frame // 2 + 1
    assert first.frame_scores[first.frame] == pytest.approx(first.frame_scores.max(), rel=0.21)
    assert set(first.seconds) == {"preprocess", "network", "selection"}
