import numpy as np
import pytest

from acouslic.selection import SelectionConfig, frame_scores, ranked, smooth

PLAIN = SelectionConfig(smoothing_frames=2.0, mask_weight=0.0)


def test_smoothing_stays_inside_its_sweep() -> None:
    values = np.zeros(60)
    values[9] = 1.0  # the last frame of the first sweep
    smoothed = smooth(values, np.ones(60, bool), 2.0)
    assert (smoothed[3:10] > 0).all()
    assert (smoothed[10:] == 0).all()


def test_smoothing_takes_nothing_from_black_frames_and_gives_them_nothing() -> None:
    tissue = np.ones(60, bool)
    tissue[6:10] = False
    smoothed = smooth(np.ones(60), tissue, 3.0)
    assert smoothed[tissue] == pytest.approx(1.0)
    assert (smoothed[~tissue] == 0).all()


def test_a_run_beats_a_single_higher_frame() -> None:
    quality = np.zeros(120)
    quality[5] = 1.0
    quality[44:52] = 0.8
    scores = frame_scores(quality, np.ones(120), np.ones(120, bool), PLAIN)
    assert 46 <= ranked(scores, np.ones(120, bool))[0] <= 49


def test_a_bad_mask_costs_its_frame_the_choice() -> None:
    quality, goodness = np.zeros(60), np.ones(60)
    quality[3:8], quality[23:28] = 1.0, 0.9
    goodness[3:8] = 0.3
    tissue = np.ones(60, bool)
    heavy = SelectionConfig(smoothing_frames=1.0, mask_weight=1.0)
    assert ranked(frame_scores(quality, goodness, tissue, PLAIN), tissue)[0] == 5
    assert ranked(frame_scores(quality, goodness, tissue, heavy), tissue)[0] == 25


def test_without_any_mask_quality_still_ranks() -> None:
    quality = np.linspace(0, 1, 60)
    tissue = np.ones(60, bool)
    config = SelectionConfig(smoothing_frames=0.0)
    assert ranked(frame_scores(quality, np.zeros(60), tissue, config), tissue)[0] == 59


def test_ranking_leaves_black_frames_out_and_takes_the_earlier_of_equals() -> None:
    tissue = np.array([False, True, True, True, False, True])
    assert ranked(np.array([9, 1, 2, 2, 9, 0]), tissue).tolist() == [2, 3, 1, 5]
