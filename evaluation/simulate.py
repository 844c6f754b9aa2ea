"""What a rule for choosing the frame is worth, before anything is trained.

The label sequences are real; what a network would say of each frame is simulated. Evidence is a
signal that fades with the distance from an annotated frame, in noise that is correlated along the
sweep; sweeps without annotation may hold look-alikes. Half of the cases fit the detector's own
probabilities and the calibration, the other half judges, both ways. It says what a rule is worth;
it says nothing about any network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.signal import lfilter
from sklearn.linear_model import LogisticRegression

from acouslic.calibration import Calibration
from acouslic.challenge import (
    AC_SHARE,
    FRAME_SHARE,
    MASK_SHARE,
    NEAREST_FRAMES,
    QUALITY_VALUES,
    SWEEPS,
    Quality,
)
from acouslic.errors import InputError
from acouslic.expected_score import Evidence, expected_score, posteriors, smooth
from acouslic.stack import sweep_slices
from dataset.sequences import LabelSequence, read_sequences
from evaluation.calibrate import KnownStack, fit, sweep_numbers, variants
from evaluation.intervals import mean_intervals
from evaluation.options import SimulateOptions

# A sweep of the training set has about 110 frames that are not black (79 % of 140).
TISSUE_FRAMES = (110.0, 14.0)
FEWEST_TISSUE_FRAMES = 60
# Correlation of neighbouring frames' evidence, and its part that is not correlated; by eye.
CORRELATION, OWN_NOISE = 0.9, 0.6
# A look-alike's centre and width in frames, and its strength as a share of an abdomen's; by eye.
LOOK_ALIKE_CENTRE, LOOK_ALIKE_WIDTH, LOOK_ALIKE_STRENGTH = (20, 95), (3, 10), (0.3, 1.0)
# Noise of a mask's own evidence, and what a stack's images add to how optimal all of it looks.
MASK_NOISE, STACK_NOISE = 0.5, 0.7
FAR = 99.0
# Half of the cases fit a few weights; with fewer there may be no optimal frame among them.
FEWEST_CASES = 20
OLD_RULE = "version 0.1"


@dataclass(frozen=True)
class Detector:
    """How well a simulated network tells frames apart, in units of its noise."""

    annotated: float
    """How far annotated frames stand out."""
    optimal: float
    """How far optimal frames stand out from suboptimal ones."""
    fade_frames: float
    """Frames over which the evidence fades beside an annotated run."""
    sweep_noise: float
    """Noise that a sweep's frames share."""
    look_alikes: float
    """Share of sweeps without annotation that hold something like an abdomen."""


# The rule of version 0.1 scores about .62, .80 and .88 with these. On the public set third parties
# pick the right sweep in 87 to 93 %, and reach a WFSS of .76 to .774: between weak and middle.
DETECTORS: Mapping[str, Detector] = {
    "weak": Detector(2.5, 1.2, 8.0, 0.5, 0.4),
    "middle": Detector(3.75, 1.7, 8.0, 0.4, 0.3),
    "strong": Detector(4.6, 2.0, 8.0, 0.3, 0.2),
}


@dataclass(frozen=True)
class _Signals:
    """Of one stack: evidence for the frame, for optimal, and the mask's own, (T,); its tissue."""

    frame: np.ndarray
    optimal: np.ndarray
    mask: np.ndarray
    tissue: np.ndarray


def compare_rules(options: SimulateOptions) -> str:
    """All rules with all detectors, as Markdown.

    Raises:
        InputError: there are no label sequences, or too few with annotated frames.
    """
    sequences = [one for one in read_sequences(options.labels) if one.quality.any()]
    if len(sequences) < FEWEST_CASES:
        raise InputError(
            expected=f"at least {FEWEST_CASES} cases with annotated frames in {options.labels}",
            found=f"{len(sequences)}",
            advice="give the label sequences of a whole data set",
        )
    subjects = [sequence.subject for sequence in sequences]
    tables = []
    for name in options.detectors:
        seeds = range(options.seed, options.seed + options.repeats)
        runs = [simulate(sequences, DETECTORS[name], seed) for seed in seeds]
        means = {rule: np.mean([run[rule] for run in runs], axis=0) for rule in runs[0]}
        table = gains(means, subjects, against=OLD_RULE)
        tables.append(f"{len(sequences)} cases, {name} detector\n\n{table}")
    return "\n\n".join(tables)


def simulate(
    sequences: Sequence[LabelSequence], detector: Detector, seed: int
) -> dict[str, np.ndarray]:
    """Score every rule on every case.

    Args:
        sequences: the cases, some of them with optimal frames.
        detector: the simulated network.
        seed: of its noise, and of the halves.

    Returns:
        The cases' scores, (cases,), by rule.
    """
    rng = np.random.default_rng(seed)
    signals = [_signals(sequence, detector, rng) for sequence in sequences]
    order = rng.permutation(len(sequences))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    scores: dict[str, np.ndarray] = {}
    for fitted_on, judged_on in (halves, halves[::-1]):
        stacks = _known_stacks(sequences, signals, fitted_on)
        calibration = fit([stacks[k] for k in fitted_on])
        wrong = _permuted(calibration, rng)
        for k in judged_on:
            for rule, frame_scores in _rules(stacks[k].evidence, calibration, wrong).items():
                column = scores.setdefault(rule, np.zeros(len(sequences)))
                column[k] = _score(sequences[k], int(np.argmax(frame_scores)))
    return scores


def gains(scores: Mapping[str, np.ndarray], subjects: Sequence[str], against: str) -> str:
    """A Markdown table: each rule's score, and its gain over another with its 95 % interval."""
    lines = [f"| rule | score | gain over {against} |", "|---|---|---|"]
    for rule, values in scores.items():
        difference = values - scores[against]
        ends = mean_intervals(difference[:, None], subjects)
        interval = "" if ends is None else f" ({ends[0, 0]:+.3f} to {ends[0, 1]:+.3f})"
        lines.append(f"| {rule} | {values.mean():.3f} | {difference.mean():+.3f}{interval} |")
    return "\n".join(lines)


def _rules(
    evidence: Evidence, calibration: Calibration, wrong: Calibration
) -> dict[str, np.ndarray]:
    """Every rule's scores of a stack's frames, (T,)."""
    tissue = evidence.tissue
    goodness = np.sqrt(np.maximum(evidence.goodness, 1e-3))
    balanced = smooth(evidence.quality @ np.array(QUALITY_VALUES), tissue, 3.0) * goodness
    shares = evidence.quality * np.array(calibration.prior)
    real = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    return {
        OLD_RULE: balanced,
        "mean probability of the mask": evidence.goodness,
        "version 0.1 at the real prevalence": smooth(real @ np.array(QUALITY_VALUES), tissue, 3.0)
        * goodness,
        **variants(evidence, calibration),
        "with the sweeps' numbers permuted": expected_score(posteriors(evidence, wrong), wrong),
    }


def _permuted(calibration: Calibration, rng: np.random.Generator) -> Calibration:
    return replace(calibration, sweeps=sweep_numbers(rng.permutation(calibration.sweeps)))


def _signals(sequence: LabelSequence, detector: Detector, rng: np.random.Generator) -> _Signals:
    count = len(sequence.quality)
    frame, optimal = np.zeros(count), np.zeros(count)
    tissue = np.zeros(count, bool)
    stack_noise = STACK_NOISE * rng.normal()
    for sweep in sweep_slices(count):
        quality = sequence.quality[sweep]
        annotated = quality > Quality.NONE
        length = int(rng.normal(*TISSUE_FRAMES))
        last = int(np.flatnonzero(annotated).max()) + 1 if annotated.any() else FEWEST_TISSUE_FRAMES
        tissue[sweep.start : sweep.start + min(max(length, last), len(quality))] = True
        signal = detector.annotated * np.exp(-_distance(annotated) / detector.fade_frames)
        shown = annotated
        if not annotated.any() and rng.random() < detector.look_alikes:
            signal = detector.annotated * _look_alike(len(quality), rng)
            shown = signal > 0
        frame[sweep] = signal + _noise(len(quality), rng) + detector.sweep_noise * rng.normal()
        optimal[sweep] = detector.optimal * ((quality == Quality.OPTIMAL) - 0.5) * shown
        optimal[sweep] += _noise(len(quality), rng) + stack_noise
    return _Signals(frame, optimal, frame + MASK_NOISE * rng.normal(size=count), tissue)


def _noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance that is correlated along the sweep, and some that is not."""
    gain = np.sqrt(1 - CORRELATION**2)
    along = lfilter([gain], [1, -CORRELATION], rng.normal(size=count))
    return np.asarray(along + OWN_NOISE * rng.normal(size=count))


def _look_alike(count: int, rng: np.random.Generator) -> np.ndarray:
    centre, width = rng.uniform(*LOOK_ALIKE_CENTRE), rng.uniform(*LOOK_ALIKE_WIDTH)
    shape = np.exp(-(((np.arange(count) - centre) / width) ** 2))
    return np.asarray(rng.uniform(*LOOK_ALIKE_STRENGTH) * shape)


def _distance(annotated: np.ndarray) -> np.ndarray:
    """Frames to the nearest annotated one of the sweep; FAR where it has none."""
    if not annotated.any():
        return np.full(len(annotated), FAR)
    return np.asarray(distance_transform_edt(~annotated))


def _known_stacks(
    sequences: Sequence[LabelSequence], signals: Sequence[_Signals], fitted_on: np.ndarray
) -> list[KnownStack]:
    """What the detector says of all stacks, its probabilities fitted on some: at equal shares."""
    tissue = np.concatenate([signals[k].tissue for k in fitted_on])
    truth = np.concatenate([sequences[k].quality for k in fitted_on])[tissue]
    shares = np.bincount(truth, minlength=len(Quality)) / len(truth)
    frames = np.concatenate([_columns(signals[k]) for k in fitted_on])[tissue]
    masks = np.concatenate([signals[k].mask for k in fitted_on])[tissue, None]
    quality = LogisticRegression(max_iter=400).fit(frames, truth, 1 / shares[truth])
    annotated = truth > Quality.NONE
    weight = np.where(annotated, 1 / annotated.mean(), 1 / (1 - annotated.mean()))
    mask = LogisticRegression().fit(np.hstack([masks, masks**2]), annotated, weight)
    stacks = []
    for sequence, signal in zip(sequences, signals, strict=True):
        own = signal.mask[:, None]
        evidence = Evidence(
            quality.predict_proba(_columns(signal)) * signal.tissue[:, None],
            mask.predict_proba(np.hstack([own, own**2]))[:, 1] * signal.tissue,
            signal.tissue,
        )
        stacks.append(KnownStack(evidence, sequence.quality, _has_reference(sequence)))
    return stacks


def _columns(signal: _Signals) -> np.ndarray:
    f, o = signal.frame, signal.optimal
    return np.stack([f, o, f**2, o**2, f * o], axis=1)


def _has_reference(sequence: LabelSequence) -> np.ndarray:
    """(6,) bool. The public table of runs lacks lone last frames, so labels count beside the AC."""
    annotated = (sequence.quality > Quality.NONE).reshape(SWEEPS, -1).any(axis=1)
    return np.asarray(annotated | ~np.isnan(sequence.ac_mm))


def _score(sequence: LabelSequence, frame: int) -> float:
    """The challenge's score of a frame whose mask and AC are as good as they usually are."""
    usual = Calibration()
    sweep = frame // (len(sequence.quality) // SWEEPS)
    quality = Quality(sequence.quality[frame])
    value = quality.value_in_score
    if quality == Quality.SUBOPTIMAL and not (sequence.quality == Quality.OPTIMAL).any():
        value = Quality.OPTIMAL.value_in_score
    annotated = sequence.quality.reshape(SWEEPS, -1)[sweep] > Quality.NONE
    distance = _distance(annotated)[frame % len(annotated)]
    ac = (1 - usual.nae) * _has_reference(sequence)[sweep]
    dice = usual.dice * max(0.0, 1 - distance / NEAREST_FRAMES)
    return float(AC_SHARE * ac + FRAME_SHARE * value + MASK_SHARE * dice)
