"""Ellipses of known perimeter, and equality with the evaluator's procedure on whole frames."""

import math

import cv2
import numpy as np
import pytest
from scipy.special import ellipe

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.ellipse import Ellipse, circumference_mm, fit_ellipse

FAN = CHALLENGE_FAN.mask()
OPEN = np.ones(FRAME_SHAPE, dtype=bool)


def reference_fit(mask: np.ndarray, fan: np.ndarray) -> tuple[float, ...] | None:
    """The evaluator's procedure spelled out, padded: centre x and y, width, height, angle."""
    pad = 200
    size = (mask.shape[0] + 2 * pad, mask.shape[1] + 2 * pad)
    wide_mask, wide_fan = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    wide_mask[pad:-pad, pad:-pad] = mask != 0
    wide_fan[pad:-pad, pad:-pad] = fan != 0
    lines = []
    for image in (wide_mask * wide_fan, wide_fan):
        found = cv2.findContours(image, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        lines.append(cv2.drawContours(np.zeros(size, np.uint8), found, -1, 255, 1))
    wide_line = lines[1]
    for _ in range(3):
        wide_line = cv2.dilate(wide_line, np.ones((3, 3), np.uint8))
    free = np.where(wide_line > 0, 0, lines[0]).astype(np.uint8)
    pieces = cv2.findContours(free, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    areas = [cv2.contourArea(piece) for piece in pieces]
    if not pieces or len(pieces[int(np.argmax(areas))]) <= 5:
        return None
    cv2.setRNGSeed(0)  # points on a line are jittered with it
    (x, y), axes, angle = cv2.fitEllipse(pieces[int(np.argmax(areas))])
    return None if any(math.isnan(axis) for axis in axes) else (x, y, *axes, angle)


def reference_circumference_px(mask: np.ndarray, fan: np.ndarray) -> float | None:
    fitted = reference_fit(mask, fan)
    if fitted is None:
        return None
    a, b = fitted[2] / 2, fitted[3] / 2
    return float(np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b))))


def assert_equal_to_reference(mask: np.ndarray, fan: np.ndarray) -> Ellipse | None:
    """Exact: no tolerance anywhere."""
    expected, found = reference_fit(mask, fan), fit_ellipse(mask, fan)
    if expected is None:
        assert found is None
        assert circumference_mm(mask, fan, SPACING_MM) is None
        return None
    assert found is not None
    assert found.centre_x_px == expected[0] - 200
    assert found.centre_y_px == expected[1] - 200
    assert found.semi_minor_px == min(expected[2:4]) / 2
    assert found.semi_major_px == max(expected[2:4]) / 2
    assert found.circumference_px == reference_circumference_px(mask, fan)
    return found


def random_ellipse(rng: np.random.Generator) -> Ellipse:
    semi_major = rng.uniform(30, 240)
    return Ellipse(
        centre_x_px=rng.uniform(20, 724),
        centre_y_px=rng.uniform(0, 562),
        semi_major_px=semi_major,
        semi_minor_px=semi_major * rng.uniform(0.5, 1.0),
        angle_deg=rng.uniform(0, 180),
    )


def perimeter_mm(ellipse: Ellipse) -> float:
    """The exact perimeter by the complete elliptic integral of the second kind."""
    eccentricity_squared = 1 - (ellipse.semi_minor_px / ellipse.semi_major_px) ** 2
    return float(4 * ellipse.semi_major_px * ellipe(eccentricity_squared) * SPACING_MM)


@pytest.mark.parametrize("seed", range(60))
def test_random_ellipses_clipped_by_the_fan_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_equal_to_reference(random_ellipse(rng).mask(FRAME_SHAPE) & FAN, FAN)


@pytest.mark.parametrize("seed", range(20))
def test_random_blobs_with_holes_and_components_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    mask = np.zeros(FRAME_SHAPE, dtype=bool)
    for _ in range(rng.integers(2, 6)):
        mask ^= random_ellipse(rng).mask(FRAME_SHAPE)
    if seed % 2:
        mask ^= rng.random(FRAME_SHAPE) > 0.97
    assert_equal_to_reference(mask, FAN)
    assert_equal_to_reference(mask, OPEN)


def constructed_masks() -> dict[str, np.ndarray]:
    abdomen = Ellipse(372, 300, 120, 100, 20)
    frame = np.zeros(FRAME_SHAPE, dtype=bool)
    masks = {"empty": frame.copy(), "whole frame": ~frame, "whole fan": FAN.copy()}
    masks["whole"] = abdomen.mask(FRAME_SHAPE)
    masks["hole"] = masks["whole"] & ~Ellipse(372, 300, 20, 20, 0).mask(FRAME_SHAPE)
    masks["two parts"] = masks["whole"] | Ellipse(372, 500, 30, 20, 0).mask(FRAME_SHAPE)
    masks["equal parts"] = Ellipse(330, 300, 30, 20, 0).mask(FRAME_SHAPE) | Ellipse(
        430, 300, 30, 20, 0
    ).mask(FRAME_SHAPE)
    masks["outside the fan"] = Ellipse(40, 40, 25, 20, 0).mask(FRAME_SHAPE)
    masks["four pixels"] = frame.copy()
    masks["four pixels"][300:302, 370:372] = True
    masks["one pixel"] = frame.copy()
    masks["one pixel"][300, 370] = True
    masks["a line"] = frame.copy()
    masks["a line"][300, 300:400] = True
    masks["a square"] = frame.copy()
    masks["a square"][200:300, 300:400] = True
    masks["far cut"] = Ellipse(372, 500, 150, 110, 0).mask(FRAME_SHAPE)
    masks["left cut"] = Ellipse(200, 300, 120, 100, 0).mask(FRAME_SHAPE)
    masks["left and right cut"] = Ellipse(372, 250, 260, 120, 0).mask(FRAME_SHAPE)
    masks["left, right and far cut"] = Ellipse(372, 420, 330, 200, 0).mask(FRAME_SHAPE)
    masks["near cut"] = Ellipse(372, 60, 120, 80, 0).mask(FRAME_SHAPE)
    masks["labels"] = masks["whole"].astype(np.uint8) * 2
    return masks


@pytest.mark.parametrize("name", constructed_masks())
@pytest.mark.parametrize("fan", [FAN, OPEN], ids=["fan", "open"])
def test_constructed_masks_equal_the_reference(name: str, fan: np.ndarray) -> None:
    found = assert_equal_to_reference(constructed_masks()[name], fan)
    if name in ("empty", "one pixel", "four pixels"):
        assert found is None
    if name in ("whole", "hole", "labels"):
        assert found is not None
        assert found.circumference_px == pytest.approx(692.2, rel=0.01)


def test_masks_touching_each_edge_of_the_frame_equal_the_reference() -> None:
    for x, y in ((0, 281), (743, 281), (372, 0), (372, 561), (0, 0), (743, 561)):
        assert_equal_to_reference(Ellipse(x, y, 90, 60, 33).mask(FRAME_SHAPE), OPEN)


def test_other_frame_shapes_and_fans_equal_the_reference() -> None:
    shape = (120, 200)
    fan = Ellipse(100, 60, 90, 55, 0).mask(shape)
    for x in (20, 60, 100, 170):
        assert_equal_to_reference(Ellipse(x, 60, 50, 30, 10).mask(shape), fan)


def test_known_perimeters_in_mm_against_the_elliptic_integral() -> None:
    """Within 0.3 %: a mask is pixels, and its outline runs through the outermost centres."""
    rng = np.random.default_rng(7)
    for _ in range(40):
        semi_major = rng.uniform(80, 190)
        truth = Ellipse(
            372 + rng.uniform(-5, 5),
            281,
            semi_major,
            semi_major * rng.uniform(0.6, 1),
            180 * rng.random(),
        )
        found_mm = circumference_mm(truth.mask(FRAME_SHAPE), OPEN, SPACING_MM)
        # The outline passes half a pixel inside the ellipse on average: about pi px of perimeter.
        assert found_mm == pytest.approx(perimeter_mm(truth) - math.pi * SPACING_MM, rel=0.003)


def test_a_circle_is_not_measured_by_its_full_axes() -> None:
    circle = Ellipse(372, 281, 100, 100, 0)
    assert circle.circumference_px == pytest.approx(2 * math.pi * 100, rel=1e-12)
    found_mm = circumference_mm(circle.mask(FRAME_SHAPE), OPEN, SPACING_MM)
    assert found_mm == pytest.approx(2 * math.pi * 100 * SPACING_MM, rel=0.01)


def test_ramanujan_is_close_to_the_exact_perimeter() -> None:
    for ratio in (1.0, 0.9, 0.7, 0.5):
        ellipse = Ellipse(0, 0, 100, 100 * ratio, 0)
        assert ellipse.circumference_px * SPACING_MM == pytest.approx(
            perimeter_mm(ellipse), rel=2e-5
        )


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 75.0, 90.0, 120.0, 165.0])
def test_angle_is_that_of_the_major_axis_from_x_towards_y(angle_deg: float) -> None:
    truth = Ellipse(372, 300, 120, 70, angle_deg)
    found = fit_ellipse(truth.mask(FRAME_SHAPE), OPEN)
    assert found is not None
    difference = (found.angle_deg - angle_deg + 90) % 180 - 90
    assert abs(difference) < 0.5
    assert found.semi_major_px == pytest.approx(120, abs=1)
    assert found.semi_minor_px == pytest.approx(70, abs=1)
    assert found.centre_x_px == pytest.approx(372, abs=0.2)
    assert found.centre_y_px == pytest.approx(300, abs=0.2)
    assert 0 <= found.angle_deg < 180


def test_a_cut_ellipse_is_restored_beyond_the_fan() -> None:
    truth = Ellipse(372, 500, 130, 100, 0)
    clipped = truth.mask(FRAME_SHAPE) & FAN
    found = fit_ellipse(clipped, FAN)
    assert found is not None
    assert clipped.sum() < 0.9 * math.pi * 130 * 100
    assert found.circumference_px == pytest.approx(truth.circumference_px, rel=0.02)


def test_mask_of_an_ellipse_has_its_area_and_orientation() -> None:
    mask = Ellipse(300.0, 200.0, 80, 40, 90).mask(FRAME_SHAPE)
    assert mask.shape == FRAME_SHAPE
    assert mask.sum() == pytest.approx(math.pi * 80 * 40, rel=0.005)
    assert mask[275, 300]
    assert not mask[200, 345]
    assert not Ellipse(300, 200, 50, 0, 0).mask(FRAME_SHAPE).any()


def test_a_degenerate_mask_measures_the_same_every_time() -> None:
    line = constructed_masks()["a line"]
    assert len({circumference_mm(line, FAN, SPACING_MM) for _ in range(5)}) == 1


def test_the_inputs_are_left_alone_and_shapes_are_checked() -> None:
    mask = Ellipse(372, 300, 120, 70, 10).mask(FRAME_SHAPE)
    before = mask.copy()
    fit_ellipse(mask, FAN)
    assert np.array_equal(mask, before)
    with pytest.raises(ValueError, match="shape"):
        fit_ellipse(mask, FAN[:-1])
