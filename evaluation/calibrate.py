"""Fitting a calibration to stacks whose truth is known, and what its terms are worth.

Every weight is a logistic regression's, on frames, sweeps or stacks as they come: at the data's own
shares of the qualities, which therefore have to be like the real ones. Where the data lack one of
the two outcomes, the default stays. What is said of the AC is fitted to answers that were given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from acouslic.calibration import LEAST, Calibration, Sweeps
from acouslic.challenge import SWEEPS, Quality
from acouslic.expected_score import (
    Evidence,
    expected_score,
    log_odds,
    optimal_evidence,
    posteriors,
    smooth,
    sweep_evidence,
)

# What a sweep's number adds is pulled towards its mean by so much: at a site that sweeps otherwise
# it then costs nothing, and where it holds nearly all of its gain stays (docs/decision.md).
SWEEP_SHARE = 0.75
# Inverse strength of the penalty on weights: weak, as three weights stand against many frames.
INVERSE_PENALTY = 10.0
# Share of references that the AC's interval shall hold.
INTERVAL = 0.90
# From so few answers no quantile of their errors is taken.
FEWEST_OUTCOMES = 10


@dataclass(frozen=True)
class KnownStack:
    """A stack with its truth."""

    evidence: Evidence
    """What the network says, which must never have seen the stack."""
    quality: np.ndarray
    """(T,) values of `Quality`."""
    has_reference: np.ndarray
    """(6,) bool, the sweeps with a reference AC."""


def fit(stacks: Sequence[KnownStack], default: Calibration | None = None) -> Calibration:
    """Fit the weights of frames, sweeps and stacks, one after the other.

    Args:
        stacks: at their real shares of qualities.
        default: what else the calibration says, and says where nothing can be fitted.
    """
    calibration = default or Calibration()
    calibration = _fit_frames(stacks, calibration)
    calibration = _fit_sweeps(stacks, calibration)
    return _fit_stacks(stacks, calibration)


def _fit_frames(stacks: Sequence[KnownStack], calibration: Calibration) -> Calibration:
    rows, truths = [], []
    for stack in stacks:
        odds = log_odds(stack.evidence, calibration)
        tissue, sigma = stack.evidence.tissue, calibration.smoothing_frames
        columns = [column for own in odds for column in (smooth(own, tissue, sigma), own)]
        rows.append(np.stack(columns, axis=1)[tissue])
        truths.append(stack.quality[tissue])
    evidence, truth = np.concatenate(rows), np.concatenate(truths)
    annotated = truth > Quality.NONE
    if weights := _weights(evidence[:, :2], annotated):
        constant, smoothed, own = weights
        calibration = replace(calibration, annotated=(constant, smoothed, own))
    if weights := _weights(evidence[annotated, 2:], truth[annotated] == Quality.OPTIMAL):
        constant, smoothed, own = weights
        calibration = replace(calibration, optimal=(constant, smoothed, own))
    return calibration


def _fit_sweeps(stacks: Sequence[KnownStack], calibration: Calibration) -> Calibration:
    rows = []
    for stack in stacks:
        tissue, sigma = stack.evidence.tissue, calibration.smoothing_frames
        smoothed = smooth(log_odds(stack.evidence, calibration)[0], tissue, sigma)
        annotated = posteriors(stack.evidence, calibration).annotated
        rows.append(np.hstack([sweep_evidence(smoothed, annotated, tissue), np.eye(SWEEPS)]))
    weights = _weights(np.concatenate(rows), np.concatenate([s.has_reference for s in stacks]))
    if weights is None:
        return calibration
    constant, highest, expected, *numbers = weights
    offsets = constant + np.array(numbers)
    offsets = offsets.mean() + SWEEP_SHARE * (offsets - offsets.mean())
    return replace(calibration, reference=(highest, expected), sweeps=sweep_numbers(offsets))


@dataclass(frozen=True)
class Outcome:
    """What came of one answer."""

    p_annotated: float
    """Its frame's probability to be annotated."""
    annotated: bool
    """Whether the frame is."""
    expected: float
    """Its expected score."""
    score: float
    """The challenge's score."""
    ac_mm: float
    """What it measured."""
    reference_mm: float | None
    """The reference of the frame's sweep, if there is one."""

    @property
    def ac_error(self) -> float | None:
        """|measured - reference| / reference."""
        if self.reference_mm is None:
            return None
        return abs(self.ac_mm / self.reference_mm - 1)


def fit_outcomes(outcomes: Sequence[Outcome], calibration: Calibration) -> Calibration:
    """Fit what is said of an answer to answers that were given with a calibration.

    Probability and expected score pass through a logistic curve each (Platt scaling). The scale is
    the median of reference over measured AC. The interval's half width is such that it held
    INTERVAL of the references of annotated frames; on other frames it is the larger of that and of
    what held INTERVAL of theirs, or the default's where there are too few of them.
    """
    annotated = [outcome for outcome in outcomes if outcome.annotated]
    pairs = [(o.reference_mm, o.ac_mm) for o in annotated if o.reference_mm is not None]
    if len(pairs) < FEWEST_OUTCOMES:
        return calibration
    scale = float(np.median([reference / ac for reference, ac in pairs]))
    scaled = [replace(outcome, ac_mm=scale * outcome.ac_mm) for outcome in outcomes]
    errors = {
        kind: [o.ac_error for o in scaled if o.annotated is kind and o.ac_error is not None]
        for kind in (True, False)
    }
    certain = _high_quantile(errors[True])
    never = calibration.ac_spread[1]
    if len(errors[False]) >= FEWEST_OUTCOMES:
        never = _high_quantile(errors[False])
    return replace(
        calibration,
        claim_annotated=_claim([(o.p_annotated, float(o.annotated)) for o in outcomes]),
        claim_score=_claim([(o.expected, o.score) for o in outcomes]),
        ac_scale=scale,
        ac_spread=(certain, max(certain, never)),
    )


def variants(evidence: Evidence, calibration: Calibration) -> dict[str, np.ndarray]:
    """The expected score of a stack's frames, (T,), whole and without each of its parts."""
    known = posteriors(evidence, calibration)
    flat = posteriors(evidence, calibration, sweep_prior=False)
    equal = replace(calibration, prior=calibration.trained_prior)
    parts = {
        "expected score": known,
        "without the sweep's number": flat,
        "without P(sweep has a reference)": replace(known, reference=np.zeros(SWEEPS)),
        "without P(no optimal frame)": replace(known, no_optimal=0.0),
        "without the mask's goodness": replace(known, readable=evidence.tissue.astype(float)),
        "at equal shares of the qualities": posteriors(evidence, equal),
    }
    return {name: expected_score(part, calibration) for name, part in parts.items()}


def _claim(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Constant and weight of the logistic curve from what was expected to what came, 0 to 1."""
    expected, came = np.clip(np.array(pairs).T, LEAST, 1 - LEAST)
    odds = np.tile(logit(expected), 2)[:, None]
    outcome = np.repeat([1, 0], len(pairs))
    # An outcome between 0 and 1 counts as so much of the one and the rest of the other.
    weight = np.concatenate([came, 1 - came])
    model = LogisticRegression(C=INVERSE_PENALTY).fit(odds, outcome, weight)
    return float(model.intercept_[0]), float(model.coef_[0, 0])


def _high_quantile(errors: Sequence[float]) -> float:
    """The (n + 1) INTERVAL-th smallest error: it holds a new one with that probability."""
    rank = min(len(errors), int(np.ceil((len(errors) + 1) * INTERVAL)))
    return float(np.sort(errors)[rank - 1])


def sweep_numbers(offsets: np.ndarray) -> Sweeps:
    """Six numbers, one for each sweep, as the calibration holds them."""
    first, second, third, fourth, fifth, sixth = offsets.tolist()
    return (first, second, third, fourth, fifth, sixth)


def _fit_stacks(stacks: Sequence[KnownStack], calibration: Calibration) -> Calibration:
    known = [posteriors(stack.evidence, calibration) for stack in stacks]
    evidence = np.array([[optimal_evidence(one.annotated * one.optimal)] for one in known])
    truth = np.array([(stack.quality == Quality.OPTIMAL).any() for stack in stacks])
    if weights := _weights(evidence, truth):
        constant, slope = weights
        calibration = replace(calibration, has_optimal=(constant, slope))
    return calibration


def _weights(evidence: np.ndarray, truth: np.ndarray) -> list[float] | None:
    """Constant and weights of a logistic regression; None where the truth does not vary.

    Args:
        evidence: (n, columns).
        truth: (n,) bool.
    """
    if not len(truth) or truth.all() or not truth.any():
        return None
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=500).fit(evidence, truth)
    return [float(model.intercept_[0]), *model.coef_[0].tolist()]
