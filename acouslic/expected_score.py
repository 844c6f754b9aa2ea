r"""What each frame of a stack would score, by all that is known of it before the truth.

The challenge gives a frame f of sweep s

    0.5 (1 - NAE)  +  0.25 WFSS  +  0.25 DSC_soft .

NAE is 1 where the sweep has no reference AC, and else small if the AC can be read from the mask.
WFSS is 1 on an optimal frame, and on a suboptimal one 0.6, or 1 where the stack has no optimal one.
DSC_soft falls off linearly over the 15 frames beside an annotated one. With

    A(f) = P(f is annotated)            O(f) = P(f is optimal, if annotated)
    B(s) = P(sweep s has a reference)   N = P(the stack has no optimal frame)
    R(f) = P(the AC can be read)        d, e: Dice and NAE where all goes well

the expectation of the score, its three terms taken one by one, is

    S(f) = 0.5 (1 - e) R max(B, A)  +  0.25 A (O + (1 - O)(0.6 + 0.4 N))
           +  0.25 d max over |k| < 15 of A(f + k) (1 - |k| / 15) .

An annotated frame's sweep has a reference, hence max(B, A). Arrays are (T,), in stack order; all
probabilities are 0 on black frames.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from acouslic.calibration import Calibration
from acouslic.challenge import (
    AC_SHARE,
    FRAME_SHARE,
    MASK_SHARE,
    NEAREST_FRAMES,
    SWEEPS,
    Quality,
)
from acouslic.stack import sweep_slices

# A probability below this says no more than the network's last digits.
_LEAST = 1e-7
# A sweep without tissue, and one whose frames are all but certainly not annotated.
_NO_EVIDENCE = -20.0
_FEWEST_FRAMES = 1e-3
# So many of the likeliest optimal frames tell whether there is one: a run has about nine.
_LIKELIEST = 5


@dataclass(frozen=True)
class Evidence:
    """What the network says of T frames."""

    quality: np.ndarray
    """(T, 3), its probabilities in the order of `Quality`, at the shares it was trained with."""
    goodness: np.ndarray
    """(T,), how much each mask looks like one abdomen that can be measured, 0..1."""
    tissue: np.ndarray
    """(T,) bool, the frames that show anything."""


@dataclass(frozen=True)
class LogOdds:
    """Log odds of what is to be believed, or what is added to them."""

    annotated: np.ndarray
    """(T,), of A of the module's text."""
    optimal: np.ndarray
    """(T,), of O."""
    reference: np.ndarray
    """(6,), of B."""

    def __add__(self, other: "LogOdds") -> "LogOdds":
        """Sums, one by one."""
        return LogOdds(
            self.annotated + other.annotated,
            self.optimal + other.optimal,
            self.reference + other.reference,
        )


@dataclass(frozen=True)
class Posteriors:
    """What is to be believed of a stack's frames and sweeps."""

    annotated: np.ndarray
    """(T,), A of the module's text."""
    optimal: np.ndarray
    """(T,), O: given that the frame is annotated."""
    reference: np.ndarray
    """(6,), B."""
    no_optimal: float
    """N."""
    readable: np.ndarray
    """(T,), R."""


def posteriors(
    evidence: Evidence,
    calibration: Calibration,
    *,
    sweep_prior: bool = True,
    correction: LogOdds | None = None,
) -> Posteriors:
    """Turn the network's word into probabilities at the real prevalence.

    Args:
        evidence: of one stack.
        calibration: the numbers.
        sweep_prior: whether a sweep's number counts; without it all six are alike beforehand.
        correction: what a sweep head adds to `posterior_odds`.
    """
    odds, tissue = posterior_odds(evidence, calibration, sweep_prior=sweep_prior), evidence.tissue
    if correction is not None:
        odds = odds + correction
    annotated, optimal = expit(odds.annotated) * tissue, expit(odds.optimal) * tissue
    constant, weight = calibration.has_optimal
    return Posteriors(
        annotated=annotated,
        optimal=optimal,
        reference=expit(odds.reference),
        no_optimal=float(expit(-constant - weight * optimal_evidence(annotated * optimal))),
        readable=np.power(evidence.goodness, calibration.readable) * tissue,
    )


def posterior_odds(
    evidence: Evidence, calibration: Calibration, *, sweep_prior: bool = True
) -> LogOdds:
    """The log odds of what `posteriors` gives; those of black frames mean nothing."""
    annotated_odds, optimal_odds = log_odds(evidence, calibration)
    tissue, sigma = evidence.tissue, calibration.smoothing_frames
    smoothed = smooth(annotated_odds, tissue, sigma)
    annotated = _weighted(calibration.annotated, smoothed, annotated_odds)
    smoothed_optimal = smooth(optimal_odds, tissue, sigma)
    offsets = np.array(calibration.sweeps)
    if not sweep_prior:
        offsets = np.full(SWEEPS, offsets.mean())
    said = sweep_evidence(smoothed, expit(annotated) * tissue, tissue)
    return LogOdds(
        annotated,
        _weighted(calibration.optimal, smoothed_optimal, optimal_odds),
        said @ calibration.reference + offsets,
    )


def expected_score(known: Posteriors, calibration: Calibration) -> np.ndarray:
    """S(f) of the module's text, (T,) in 0..1."""
    terms = (ac_term(known, calibration), frame_term(known), mask_term(known, calibration))
    return np.asarray(np.sum(terms, axis=0), np.float32)


def ac_term(known: Posteriors, calibration: Calibration) -> np.ndarray:
    """What the AC is expected to bring, (T,)."""
    frames = len(known.annotated) // SWEEPS
    has_reference = np.maximum(np.repeat(known.reference, frames), known.annotated)
    return np.asarray(AC_SHARE * (1 - calibration.nae) * known.readable * has_reference)


def frame_term(known: Posteriors) -> np.ndarray:
    """What the choice of the frame itself is expected to bring, (T,)."""
    least = Quality.SUBOPTIMAL.value_in_score
    suboptimal = least + (1 - least) * known.no_optimal
    worth = known.optimal + (1 - known.optimal) * suboptimal
    return np.asarray(FRAME_SHARE * known.annotated * worth)


def mask_term(known: Posteriors, calibration: Calibration) -> np.ndarray:
    """What the mask is expected to bring, (T,)."""
    near = np.zeros_like(known.annotated)
    for sweep in sweep_slices(len(near)):
        near[sweep] = _near_annotated(known.annotated[sweep])
    return np.asarray(MASK_SHARE * calibration.dice * near)


def log_odds(evidence: Evidence, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """The network's word at the real shares of the qualities, frame by frame.

    Returns:
        The log odds that a frame is annotated, and that it is optimal if it is; (T,) each, 0 on
        black frames.
    """
    shares = np.array(calibration.prior) / np.array(calibration.trained_prior)
    none, suboptimal, optimal = np.maximum(evidence.quality * shares, _LEAST).T
    annotated = np.log(suboptimal + optimal) - np.log(none)
    return annotated * evidence.tissue, (np.log(optimal) - np.log(suboptimal)) * evidence.tissue


def sweep_evidence(smoothed: np.ndarray, annotated: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """What a sweep's frames say of its having a reference, (6, 2).

    The highest smoothed log odds of a frame to be annotated, and the log of the number of annotated
    frames that is expected; all arguments are (T,).
    """
    highest = np.where(tissue, smoothed, _NO_EVIDENCE).reshape(SWEEPS, -1).max(axis=1)
    expected = annotated.reshape(SWEEPS, -1).sum(axis=1)
    return np.stack([highest, np.log(np.maximum(expected, _FEWEST_FRAMES))], axis=1)


def optimal_evidence(optimal: np.ndarray) -> float:
    """The log of the mean of the highest probabilities (T,) to be annotated and optimal."""
    return float(np.log(np.sort(optimal)[-_LIKELIEST:].mean() + _LEAST))


def smooth(values: np.ndarray, tissue: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Gaussian mean of (T,) values over the tissue frames around each frame of its sweep."""
    if sigma_frames <= 0:
        return np.asarray(values * tissue)
    result = np.zeros(len(values), np.float32)
    for sweep in sweep_slices(len(values)):
        present = tissue[sweep].astype(np.float32)
        weight = gaussian_filter1d(present, sigma_frames, mode="constant")
        total = gaussian_filter1d(values[sweep] * present, sigma_frames, mode="constant")
        result[sweep] = np.where(present > 0, total / np.maximum(weight, 1e-6), 0)
    return result


def _near_annotated(annotated: np.ndarray) -> np.ndarray:
    """Max over |k| < 15 of annotated(f + k) (1 - |k| / 15) inside one sweep."""
    near = annotated.copy()
    for distance in range(1, min(NEAREST_FRAMES, len(annotated))):
        discount = 1 - distance / NEAREST_FRAMES
        near[distance:] = np.maximum(near[distance:], annotated[:-distance] * discount)
        near[:-distance] = np.maximum(near[:-distance], annotated[distance:] * discount)
    return near


def _weighted(
    weights: tuple[float, float, float], smoothed: np.ndarray, own: np.ndarray
) -> np.ndarray:
    constant, smoothed_weight, own_weight = weights
    return np.asarray(constant + smoothed_weight * smoothed + own_weight * own)
