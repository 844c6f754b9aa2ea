import numpy as np
import pytest

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.ellipse import Ellipse, circumference_mm
from acouslic.mask import fallback_circle, goodness, largest_component, outline, visible_ellipse

FAN = CHALLENGE_FAN.mask()
PLAUSIBLE_MM = (120.0, 380.0)
INSIDE = Ellipse(370.0, 300.0, 140.0, 120.0, 30.0)
CUT_LEFT = Ellipse(230.0, 300.0, 140.0, 120.0, 30.0)
CUT_ON_BOTH_SIDES = Ellipse(372.0, 160.0, 190.0, 120.0, 0.0)
TOUCHING_TWICE = Ellipse(260.0, 247.0, 116.0, 108.0, 16.0)
CUT_THRICE = Ellipse(333.0, 113.0, 140.5, 106.1, 90.2)


def test_largest_component_drops_the_rest() -> None:
    mask = INSIDE.mask(FRAME_SHAPE)
    with_more = mask.copy()
    with_more[100:110, 300:310] = True
    assert np.array_equal(largest_component(with_more), mask)
    assert not largest_component(np.zeros(FRAME_SHAPE, bool)).any()


@pytest.mark.parametrize("truth", [INSIDE, CUT_LEFT, CUT_ON_BOTH_SIDES])
def test_ellipse_is_found_however_often_the_fan_cuts_it(truth: Ellipse) -> None:
    found = visible_ellipse(truth.mask(FRAME_SHAPE) & FAN, FAN, margin_px=4)
    assert found is not None
    assert found.circumference_px == pytest.approx(truth.circumference_px, rel=0.01)


def test_goodness_falls_with_each_defect() -> None:
    def of(mask: np.ndarray) -> float:
        return goodness(mask & FAN, FAN, SPACING_MM, PLAUSIBLE_MM)

    whole = INSIDE.mask(FRAME_SHAPE)
    assert of(whole) > 0.97
    two = whole | Ellipse(500.0, 450.0, 40.0, 30.0, 0.0).mask(FRAME_SHAPE)
    ragged = whole & ~Ellipse(420.0, 330.0, 80.0, 70.0, 0.0).mask(FRAME_SHAPE)
    for defect in (two, ragged, CUT_LEFT.mask(FRAME_SHAPE)):
        assert 0 < of(defect) < 0.98 * of(whole)
    assert of(Ellipse(370.0, 300.0, 40.0, 30.0, 0.0).mask(FRAME_SHAPE)) == 0.0
    assert of(np.zeros(FRAME_SHAPE, bool)) == 0.0


def test_outline_is_the_filled_ellipse_of_a_ragged_mask() -> None:
    ragged = INSIDE.mask(FRAME_SHAPE)
    ragged[290:310, 500:503] ^= True
    ragged[300, 240:420] = False
    found = outline(ragged, FAN, SPACING_MM)
    assert found is not None
    assert found.ac_mm == pytest.approx(INSIDE.circumference_px * SPACING_MM, rel=0.01)
    assert (found.mask ^ INSIDE.mask(FRAME_SHAPE)).sum() < 0.01 * found.mask.sum()


def test_outline_keeps_the_component_where_no_ellipse_fits() -> None:
    cross = np.zeros(FRAME_SHAPE, bool)
    cross[200:400, 340:390] = cross[280:330, 260:470] = True
    found = outline(cross, FAN, SPACING_MM)
    assert found is not None
    assert np.array_equal(found.mask, cross)


def test_outline_is_clipped_by_the_fan_and_still_measured() -> None:
    found = outline(CUT_LEFT.mask(FRAME_SHAPE), FAN, SPACING_MM)
    assert found is not None
    assert not (found.mask & ~FAN).any()
    assert found.ac_mm == pytest.approx(CUT_LEFT.circumference_px * SPACING_MM, rel=0.01)
    assert found.misread < 0.01


def test_a_shape_that_the_evaluator_cannot_read_retreats_from_the_fans_edge() -> None:
    mask = TOUCHING_TWICE.mask(FRAME_SHAPE)
    assert circumference_mm(mask, FAN, SPACING_MM) is None
    found = outline(mask, FAN, SPACING_MM)
    assert found is not None
    assert found.misread < 0.03
    assert found.ac_mm == pytest.approx(TOUCHING_TWICE.circumference_px * SPACING_MM, rel=0.03)
    assert (found.mask & mask).sum() > 0.98 * mask.sum()


def test_a_shape_that_stays_misread_is_known_as_such() -> None:
    found = outline(CUT_THRICE.mask(FRAME_SHAPE), FAN, SPACING_MM)
    assert found is not None
    assert found.misread > 0.03


@pytest.mark.parametrize("mask", [np.zeros(FRAME_SHAPE, bool), ~FAN, FAN & False])
def test_nothing_has_no_outline(mask: np.ndarray) -> None:
    assert outline(mask, FAN, SPACING_MM) is None


def test_fallback_circle_has_the_circumference_asked_for_wherever_the_weights_are() -> None:
    for row, column in ((300, 370), (20, 370), (550, 20)):
        weights = np.zeros(FRAME_SHAPE)
        weights[row, column] = 1.0
        circle = fallback_circle(weights, FAN, SPACING_MM, 236.0)
        assert circle.ac_mm == pytest.approx(236.0, rel=0.01)
        assert not (circle.mask & ~FAN).any()
