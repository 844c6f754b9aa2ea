"""The expected score against what it says it is: an average of the challenge's own score."""

from dataclasses import replace

import numpy as np
import pytest

from acouslic.calibration import Calibration
from acouslic.challenge import NEAREST_FRAMES, SWEEPS
from acouslic.expected_score import (
    Evidence,
    Posteriors,
    ac_term,
    expected_score,
    frame_term,
    log_odds,
    mask_term,
    posteriors,
    smooth,
)

T = 120
PER_SWEEP = T // SWEEPS
PLAIN = Calibration(nae=0.0, dice=1.0)
AS_IT_IS = Calibration(
    prior=(1 / 3, 1 / 3, 1 / 3), annotated=(0.0, 0.0, 1.0), optimal=(0.0, 0.0, 1.0)
)


def evidence(quality: dict[int, tuple[float, float, float]]) -> Evidence:
    """Frames that are certainly none, but for those given; every second sweep ends in black."""
    probabilities = np.tile([0.998, 0.001, 0.001], (T, 1))
    for frame, values in quality.items():
        probabilities[frame] = values
    tissue = np.ones(T, bool)
    tissue[PER_SWEEP - 4 : PER_SWEEP] = False
    probabilities[~tissue] = 0
    return Evidence(probabilities, np.ones(T), tissue)


def known(
    annotated: dict[int, float], optimal: float = 0.0, *, no_optimal: float = 0.0
) -> Posteriors:
    values = np.zeros(T)
    for frame, probability in annotated.items():
        values[frame] = probability
    return Posteriors(values, np.full(T, optimal), np.zeros(SWEEPS), no_optimal, np.ones(T))


def test_certainty_gives_the_challenges_score() -> None:
    for optimal, no_optimal, wfss in ((1.0, 0.0, 1.0), (0.0, 0.0, 0.6), (0.0, 1.0, 1.0)):
        scores = expected_score(known({45: 1.0}, optimal, no_optimal=no_optimal), PLAIN)
        assert scores[45] == pytest.approx(0.5 + 0.25 * wfss + 0.25)
    assert scores[44] == pytest.approx(0.25 * (1 - 1 / NEAREST_FRAMES))
    assert scores[60] == 0  # another sweep, one frame after the last of this one is 59
    assert scores[45 - NEAREST_FRAMES] == 0


def test_each_term_is_the_mean_over_draws() -> None:
    """Frame by frame, over what may be true: whether annotated, whether optimal, whether any is."""
    rng = np.random.default_rng(0)
    annotated, optimal, none_optimal, draws = 0.3, 0.4, 0.25, 200_000
    is_annotated = rng.random(draws) < annotated
    is_optimal = is_annotated & (rng.random(draws) < optimal)
    none = rng.random(draws) < none_optimal
    wfss = np.where(is_optimal, 1.0, np.where(is_annotated, np.where(none, 1.0, 0.6), 0.0))
    belief = known({45: annotated}, optimal, no_optimal=none_optimal)
    assert frame_term(belief)[45] == pytest.approx(0.25 * wfss.mean(), abs=1e-3)
    assert mask_term(belief, PLAIN)[45] == pytest.approx(0.25 * is_annotated.mean(), abs=1e-3)
    has_reference = is_annotated | (rng.random(draws) < 0.5)
    belief = replace(belief, reference=np.full(SWEEPS, has_reference.mean()))
    assert ac_term(belief, PLAIN)[45] == pytest.approx(0.5 * has_reference.mean(), abs=1e-3)


def test_an_unreadable_mask_costs_the_ac_alone() -> None:
    belief = known({45: 1.0, 65: 1.0}, 1.0)
    readable = np.ones(T)
    readable[45] = 0.0
    scores = expected_score(replace(belief, readable=readable), PLAIN)
    assert scores[65] - scores[45] == pytest.approx(0.5)


def test_the_real_prevalence_turns_the_choice_of_two_frames_round() -> None:
    """Among equal shares A looks better; among the real ones B, which is surely annotated."""
    pair = evidence({45: (0.05, 0.15, 0.80), 85: (0.01, 0.89, 0.10)})
    own_only = Calibration(annotated=(0.0, 0.0, 1.0), optimal=(0.0, 0.0, 1.0))
    balanced = frame_term(posteriors(pair, replace(own_only, prior=own_only.trained_prior)))
    real = frame_term(posteriors(pair, own_only))
    assert balanced[45] > balanced[85]
    assert real[85] > real[45]


def test_the_prior_is_bayes_rule() -> None:
    frame = evidence({45: (0.2, 0.5, 0.3)})
    shares = np.array(Calibration().prior) * (0.2, 0.5, 0.3)
    annotated, optimal = log_odds(frame, Calibration())
    assert annotated[45] == pytest.approx(np.log(shares[1:].sum() / shares[0]))
    assert optimal[45] == pytest.approx(np.log(shares[2] / shares[1]))
    belief = posteriors(frame, AS_IT_IS)
    assert belief.annotated[45] == pytest.approx(0.8)
    assert belief.optimal[45] == pytest.approx(0.375)


def test_black_frames_have_no_score_of_their_own() -> None:
    belief = posteriors(evidence({}), Calibration())
    black = slice(PER_SWEEP - 4, PER_SWEEP)
    assert not belief.annotated[black].any()
    assert not belief.readable[black].any()
    assert not np.isnan(expected_score(belief, Calibration())).any()


def test_sweeps_are_alike_beforehand_without_their_prior() -> None:
    silent = replace(evidence({}), tissue=np.ones(T, bool))
    silent.quality[:] = (0.998, 0.001, 0.001)
    with_prior = posteriors(silent, Calibration()).reference
    without = posteriors(silent, Calibration(), sweep_prior=False).reference
    assert np.ptp(without) == pytest.approx(0)
    assert with_prior[0] > without[0] > with_prior[5]


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


def test_a_calibration_is_read_back_and_another_form_is_refused() -> None:
    values = Calibration(nae=0.07).to_dict()
    assert Calibration.from_dict(values) == Calibration(nae=0.07)
    for wrong in (values | {"version": 2}, values | {"extra": 1}, {"version": 1}):
        with pytest.raises(ValueError, match="another version"):
            Calibration.from_dict(wrong)
