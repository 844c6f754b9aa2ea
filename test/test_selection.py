import numpy as np
import pytest

from acouslic.calibration import Calibration
from acouslic.expected_score import Evidence, expected_score, posteriors
from acouslic.selection import ranked

CALIBRATION = Calibration(smoothing_frames=2.0)


def scores(annotated: np.ndarray, goodness: np.ndarray | float = 1.0) -> np.ndarray:
    """Of frames whose probability to be annotated, at equal shares, is given; all show tissue."""
    quality = np.stack([1 - annotated, annotated / 2, annotated / 2], axis=1)
    masks = np.broadcast_to(goodness, annotated.shape)
    evidence = Evidence(quality, masks, np.ones(len(annotated), bool))
    return expected_score(posteriors(evidence, CALIBRATION), CALIBRATION)


def test_a_run_beats_a_single_higher_frame() -> None:
    annotated = np.full(120, 0.01)
    annotated[5] = 0.999
    annotated[44:52] = 0.99
    assert 45 <= ranked(scores(annotated), np.ones(120, bool))[0] <= 50


def test_a_bad_mask_costs_its_frame_the_choice() -> None:
    annotated, goodness = np.full(120, 0.01), np.ones(120)
    annotated[3:8], annotated[13:18] = 0.9995, 0.999
    tissue = np.ones(120, bool)
    assert 3 <= ranked(scores(annotated), tissue)[0] < 8
    goodness[3:8] = 0.3
    assert 13 <= ranked(scores(annotated, goodness), tissue)[0] < 18


def test_without_any_mask_quality_still_ranks() -> None:
    annotated = np.linspace(0.01, 0.99, 60)
    assert ranked(scores(annotated, 0.0), np.ones(60, bool))[0] in (58, 59)


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_ranking_leaves_black_frames_out_and_takes_the_earlier_of_equals(dtype: type) -> None:
    tissue = np.array([False, True, True, True, False, True])
    values: np.ndarray = np.array([9, 1, 2, 2, 9, 0], dtype)
    assert ranked(values, tissue).tolist() == [2, 3, 1, 5]
