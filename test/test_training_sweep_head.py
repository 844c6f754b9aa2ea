"""Training of the sweep head on simulated evidence: it learns what neighbours tell, if they do."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from acouslic.calibration import Calibration
from acouslic.challenge import SWEEPS, Quality
from acouslic.expected_score import Evidence
from dataset.cache import CachedCase
from evaluation.calibrate import KnownStack, Outcome
from training import calibration as room
from training.calibration import DEFAULT, SWEEP_HEAD, WITH_HEAD, Answer, Choice, HeldOut, calibrate
from training.options import SweepHeadRecipe
from training.sweep_head import log_losses, train
from training.whole_stack import Figures

PER_SWEEP, STACKS, RUN, LEAD = 30, 24, 5, 8
T = SWEEPS * PER_SWEEP
SHORT = SweepHeadRecipe(epochs=25, batch_size=4, rate=1e-2)


def stack(number: int, *, is_told: bool) -> KnownStack:
    """Each second sweep has a run; if told, what looks like one lies LEAD frames before it.

    Else every frame is as likely to be in a run, so that nothing can be learnt: runs go on at the
    sweep's start where it ends.
    """
    rng = np.random.default_rng(number)
    quality, looks = np.zeros(T, np.uint8), np.zeros(T)
    has_reference = rng.random(SWEEPS) < 0.5
    for sweep in np.flatnonzero(has_reference):
        first = rng.integers(LEAD, PER_SWEEP - RUN) if is_told else rng.integers(PER_SWEEP)
        run = sweep * PER_SWEEP + (first + np.arange(RUN)) % PER_SWEEP
        quality[run] = Quality.OPTIMAL if rng.random() < 0.5 else Quality.SUBOPTIMAL
        looks[run - LEAD] = 6 * is_told
    odds = looks + rng.normal(size=T)
    annotated = 1 / (1 + np.exp(-odds))
    probabilities = np.stack([1 - annotated, annotated / 2, annotated / 2], axis=1)
    evidence = Evidence(probabilities.astype(np.float32), np.ones(T), np.ones(T, bool))
    return KnownStack(evidence, quality, has_reference)


def stacks(*, is_told: bool) -> list[KnownStack]:
    return [stack(number, is_told=is_told) for number in range(STACKS)]


def test_what_neighbours_tell_is_learnt_and_lowers_the_loss_on_other_stacks() -> None:
    told, calibration = stacks(is_told=True), Calibration()
    head = train(told[: STACKS // 2], calibration, SHORT)
    without = log_losses(told[STACKS // 2 :], calibration, None)
    loss = log_losses(told[STACKS // 2 :], calibration, head)
    assert loss.mean() < 0.4 * without.mean()
    choice = Choice(calibration, head)
    chosen = [int(np.argmax(choice.scores(one.evidence))) for one in told[STACKS // 2 :]]
    found = [one.quality[frame] > 0 for one, frame in zip(told[STACKS // 2 :], chosen, strict=True)]
    assert np.mean(found) > 0.8


def test_the_same_recipe_gives_the_same_head_and_leaves_other_draws_alone() -> None:
    told, recipe = stacks(is_told=True)[:8], SweepHeadRecipe(epochs=2)
    first, second = (train(told, Calibration(), recipe) for _ in range(2))
    other = train(told, Calibration(), SweepHeadRecipe(epochs=2, seed=1))
    corrections = [head.correction(told[0].evidence).annotated for head in (first, second, other)]
    assert np.array_equal(corrections[0], corrections[1]) and corrections[0].any()
    assert not np.array_equal(corrections[0], corrections[2])


def test_stacks_of_different_lengths_are_trained_on_together() -> None:
    whole = stack(0, is_told=True)
    kept = np.tile(np.arange(PER_SWEEP) < PER_SWEEP - 4, SWEEPS)
    said = whole.evidence
    shorter = KnownStack(
        Evidence(said.quality[kept], said.goodness[kept], said.tissue[kept]),
        whole.quality[kept],
        whole.has_reference,
    )
    alone = [log_losses([one], Calibration(), None)[0] for one in (whole, shorter)]
    np.testing.assert_allclose(log_losses([whole, shorter], Calibration(), None), alone, rtol=1e-5)


class PaperAnswers:
    """Answers of a case whose masks are all alike, so that the chosen frame alone counts."""

    def __init__(self, held_out: HeldOut, _members: object) -> None:
        self.held_out = held_out

    def answer(self, scores: np.ndarray, choice: Choice) -> Answer:
        known = self.held_out.known
        frame = int(np.argmax(scores))
        annotated, has_reference = known.quality[frame] > 0, known.has_reference[frame // PER_SWEEP]
        score = 0.5 * has_reference + 0.5 * annotated
        outcome = Outcome(
            p_annotated=float(choice.belief(self.held_out.evidence).annotated[frame]),
            annotated=bool(annotated),
            expected=float(scores[frame]),
            score=float(score),
            ac_mm=200.0,
            reference_mm=200.0 if has_reference else None,
        )
        return Answer(Figures(score, float(annotated), float(annotated), 0.0), frame, outcome)


def held_out(known: list[KnownStack]) -> list[HeldOut]:
    """The stacks as cases of as many subjects, in two folds."""
    cases: list[Any] = [
        SimpleNamespace(
            facts=SimpleNamespace(
                uuid=f"case-{k}",
                subject=f"s{k}",
                ac_mm=tuple(np.where(one.has_reference, 200.0, np.nan)),
            ),
            stack_quality=lambda quality=one.quality: quality,
        )
        for k, one in enumerate(known)
    ]
    pairs = zip(cases, known, strict=True)
    half = len(known) // 2
    return [
        HeldOut(cast(CachedCase, case), int(k >= half), one.evidence)
        for k, (case, one) in enumerate(pairs)
    ]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_head_is_taken_only_where_it_is_clearly_better_on_folds_left_out(
    is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "Answers", PaperAnswers)
    cases = held_out(stacks(is_told=is_told))
    without = calibrate(cases, lambda _fold: []).report
    calibration, report, head = calibrate(cases, lambda _fold: [], SHORT)
    told = report[SWEEP_HEAD]
    low, high = told["gain"]["score"]["interval"]
    assert low <= told["gain"]["score"]["mean"] <= high
    upon, scores = told["upon"], report["scores"]
    gain = scores[WITH_HEAD]["score"]["mean"] - scores[upon]["score"]["mean"]
    assert told["gain"]["score"]["mean"] == pytest.approx(gain)
    assert upon == without["column"] and told["recipe"]["epochs"] == SHORT.epochs
    assert (head is not None) == (report["column"] == WITH_HEAD) == (low > 0) == is_told
    if head is None:
        for key, value in without.items():
            assert key == "scores" or report[key] == value
        return
    assert told["log_loss"]["gain"]["interval"][0] > 0
    chosen = np.mean([case["score"] for case in report["by_case"].values()])
    assert chosen == pytest.approx(scores[WITH_HEAD]["score"]["mean"])
    # What ships is trained on all; the calibration keeps what the head was trained upon.
    expected = train(stacks(is_told=True), Calibration() if upon == DEFAULT else calibration, SHORT)
    found, wanted = (one.correction(cases[0].evidence).annotated for one in (head, expected))
    assert np.array_equal(found, wanted)
