"""Fitting a calibration to stacks that a network never saw, and judging it on folds left out.

Each fold is answered with a calibration that the other folds fitted; so are the claims that its
answers make. What is packed is then fitted to all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from acouslic import selection
from acouslic.calibration import Calibration
from acouslic.expected_score import Evidence, expected_score, posteriors
from acouslic.mask import Outline
from acouslic.network import AbdomenNet
from acouslic.segment import full_size, predict
from acouslic.selection import SelectionConfig
from dataset.cache import CachedCase
from evaluation.calibrate import KnownStack, Outcome, fit, fit_outcomes, variants
from evaluation.intervals import mean_intervals
from evaluation.reliability import calibration_error, roc_area
from training.cards import HONEST
from training.whole_stack import Figures, choose, figures, judge_outline

DEFAULT, FITTED = "default", "fitted"


@dataclass(frozen=True)
class HeldOut:
    """A case and what a network that never saw it says of it."""

    case: CachedCase
    """The case."""
    fold: int
    """The part of the data that is left out together with it."""
    evidence: Evidence
    """Of all its frames."""

    @property
    def known(self) -> KnownStack:
        """The evidence with the truth."""
        has_reference = ~np.isnan(np.array(self.case.facts.ac_mm, float))
        return KnownStack(self.evidence, self.case.stack_quality(), has_reference)


@dataclass(frozen=True)
class Answer:
    """What came of one case with one calibration."""

    figures: Figures
    """The challenge's."""
    frame: int
    """The chosen frame."""
    outcome: Outcome
    """What the calibration is fitted to."""


class Answers:
    """The answers of a case under any scores; the network sees a frame again when it is chosen."""

    def __init__(self, held_out: HeldOut, members: Sequence[AbdomenNet]) -> None:
        """Make none yet.

        Args:
            held_out: the case.
            members: the networks, one or an ensemble, that never saw it.
        """
        self.held_out, self.members = held_out, members
        case, config = held_out.case, SelectionConfig()
        self._outlines = selection.Outlines(self._logits_of, case.facts.spacing_mm[0], config)
        self._judged: dict[int, Figures] = {}

    def answer(self, scores: np.ndarray, calibration: Calibration) -> Answer:
        """The answer that these scores (T,) choose; the calibration says what it claims."""
        case = self.held_out.case
        frame, outline = choose(case, scores, self._outlines)
        judged = self._figures(frame, outline)
        return Answer(judged, frame, self._outcome(frame, outline, judged, calibration))

    def _figures(self, frame: int, outline: Outline) -> Figures:
        if frame not in self._judged:
            self._judged[frame] = figures(judge_outline(self.held_out.case, frame, outline))
        return self._judged[frame]

    def _outcome(
        self, frame: int, outline: Outline, judged: Figures, calibration: Calibration
    ) -> Outcome:
        facts, belief = self.held_out.case.facts, posteriors(self.held_out.evidence, calibration)
        reference_mm = facts.ac_mm[frame // (facts.n_frames // len(facts.ac_mm))]
        return Outcome(
            p_annotated=float(belief.annotated[frame]),
            expected=float(expected_score(belief, calibration)[frame]),
            score=judged.score,
            annotated=bool(self.held_out.case.stack_quality()[frame]),
            dice=judged.dice_soft,
            ac_mm=outline.ac_mm,
            reference_mm=None if np.isnan(reference_mm) else reference_mm,
        )

    def _logits_of(self, frame: int) -> np.ndarray:
        case = self.held_out.case
        row = int(np.searchsorted(case.frame_index, frame))
        grid = torch.from_numpy(np.array(case.frames[row : row + 1]))
        return full_size(predict(self.members, grid, np.ones(1, bool)), 0)


def calibrate(
    held_out: Sequence[HeldOut], members_of: Callable[[int], Sequence[AbdomenNet]]
) -> tuple[Calibration, dict[str, Any]]:
    """Fit a calibration to held-out cases, and judge it fold by fold.

    Args:
        held_out: all cases, sorted by fold; a subject's cases are in one fold.
        members_of: gives a fold's networks, which never saw its cases.

    Returns:
        The calibration to pack, and the report: plain JSON, see `_report`.
    """
    stacks = [one.known for one in held_out]
    folds = np.array([one.fold for one in held_out])
    fitted_by_fold = {
        fold: fit([stacks[k] for k in np.flatnonzero(folds != fold)])
        for fold in sorted(set(folds.tolist()))
    }
    everything = fit(stacks)
    answers = [
        _answers(one, members_of(one.fold), fitted_by_fold[one.fold], everything)
        for one in held_out
    ]
    outcomes = [by_name[HONEST].outcome for by_name in answers]
    for fold, calibration in fitted_by_fold.items():
        others = [outcomes[k] for k in np.flatnonzero(folds != fold)]
        fitted_by_fold[fold] = fit_outcomes(others, calibration)
    everything = fit_outcomes(outcomes, everything)
    claims = np.array(
        [
            _claims(one, by_name[HONEST], fitted_by_fold[one.fold])
            for one, by_name in zip(held_out, answers, strict=True)
        ]
    )
    subjects = [one.case.facts.subject for one in held_out]
    report = _report(answers, claims, subjects)
    taken = everything
    if report["taken"] == DEFAULT:
        taken = fit_outcomes([by_name[DEFAULT].outcome for by_name in answers], Calibration())
    folds_of = {one.case.facts.uuid: one.fold for one in held_out}
    by_case = zip(folds_of.items(), answers, strict=True)
    return taken, report | {
        "cases": len(held_out),
        "subjects": len(set(subjects)),
        "folds": len(fitted_by_fold),
        "calibration": taken.to_dict(),
        "by_case": {
            uuid: {"fold": fold, **asdict(by_name[HONEST].figures)}
            for (uuid, fold), by_name in by_case
        },
    }


def _answers(
    one: HeldOut, members: Sequence[AbdomenNet], honest: Calibration, everything: Calibration
) -> dict[str, Answer]:
    """A case's answers: by default, by the fits, by the honest fit without each of its parts."""
    answers = Answers(one, members)
    default = Calibration()
    scores = {
        DEFAULT: (expected_score(posteriors(one.evidence, default), default), default),
        FITTED: (expected_score(posteriors(one.evidence, everything), everything), everything),
    }
    for name, values in variants(one.evidence, honest).items():
        scores[HONEST if name == "expected score" else name] = (values, honest)
    return {name: answers.answer(*by_score) for name, by_score in scores.items()}


def _claims(one: HeldOut, answer: Answer, calibration: Calibration) -> tuple[float, ...]:
    """Confidence and p_annotated; whether annotated, with a reference, with that inside."""
    belief = posteriors(one.evidence, calibration)
    confidence = calibration.confidence(expected_score(belief, calibration)[answer.frame])
    outcome = answer.outcome
    p_annotated = calibration.p_annotated(outcome.p_annotated)
    ac_mm = calibration.ac_scale * outcome.ac_mm
    low, high = calibration.ac_interval_mm(ac_mm, p_annotated)
    reference_mm = outcome.reference_mm
    inside = reference_mm is not None and low <= reference_mm <= high
    flags = (outcome.annotated, reference_mm is not None, inside)
    return (confidence, p_annotated, *map(float, flags))


def _report(
    answers: Sequence[Mapping[str, Answer]], claims: np.ndarray, subjects: Sequence[str]
) -> dict[str, Any]:
    """What the calibration chose and gained.

    Returns:
        `scores`: means with 95 % intervals, subjects resampled, for the default, for the fit on the
        cases that it was fitted on, which is optimistic, for each fold under the fit of the others,
        and for that without each of its parts. `gain`: of the fit on other folds over the default.
        `claims`: whether answers under that fit hold what they say. `taken`: which one to pack.
    """
    figures_by_name = {
        name: np.array([astuple(by_name[name].figures) for by_name in answers])
        for name in answers[0]
    }
    default, honest = figures_by_name[DEFAULT][:, 0], figures_by_name[HONEST][:, 0]
    said_by_default = np.array([by_name[DEFAULT].outcome.p_annotated for by_name in answers])
    annotated_by_default = np.array([by_name[DEFAULT].outcome.annotated for by_name in answers])
    confidence, p_annotated, annotated, has_reference, inside = claims.T
    brier = (said_by_default - annotated_by_default) ** 2 - (p_annotated - annotated) ** 2
    gain = _means(np.stack([honest - default, brier], axis=1), ("score", "brier"), subjects)
    names = [field.name for field in fields(Figures)]
    return {
        "scores": {
            name: _means(columns, names, subjects) for name, columns in figures_by_name.items()
        },
        "gain": gain,
        "taken": FITTED if is_better(gain) else DEFAULT,
        "claims": {
            "confidence_calibration_error": calibration_error(confidence, honest),
            "p_annotated_calibration_error": calibration_error(p_annotated, annotated),
            "p_annotated_roc_area": roc_area(p_annotated, annotated > 0),
            "ac_coverage": float(inside.sum() / max(has_reference.sum(), 1)),
            "n_references": int(has_reference.sum()),
        },
    }


def is_better(gain: Mapping[str, Any]) -> bool:
    """Whether a fit takes the default's place.

    It does where what it gains in score, or in the Brier score of `p_annotated`, is above chance,
    and what it loses in the other is not.
    """
    lows = [gain[name]["interval"][0] for name in ("score", "brier")]
    highs = [gain[name]["interval"][1] for name in ("score", "brier")]
    return bool(max(lows) > 0 and min(highs) >= 0)


def _means(
    columns: np.ndarray, names: Sequence[str], subjects: Sequence[str]
) -> dict[str, dict[str, Any]]:
    intervals = mean_intervals(columns, subjects)
    if intervals is None:
        raise ValueError("folds grouped by subject have at least two subjects")
    return {
        name: {"mean": float(columns[:, k].mean()), "interval": intervals[k].tolist()}
        for k, name in enumerate(names)
    }


def describe(report: Mapping[str, Any]) -> str:
    """The report as a few lines."""
    lines = [f"{report['cases']} cases of {report['subjects']} subjects, {report['folds']} folds"]
    for name, by_figure in report["scores"].items():
        texts = [
            f"{figure} {value['mean']:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}]"
            for figure, value in by_figure.items()
        ]
        lines.append(f"{name}: {', '.join(texts)}")
    claims = [
        f"{name.replace('_', ' ')} {'-' if value is None else f'{value:.3g}'}"
        for name, value in report["claims"].items()
    ]
    lines.append(f"claims, {HONEST}: {', '.join(claims)}")
    lines.append(f"calibration: {report['taken']}")
    return "\n".join(lines)


def in_parts(cases: Sequence[CachedCase], parts: int) -> list[tuple[CachedCase, int]]:
    """Cases with the part of the data that each belongs to, sorted by it; subjects stay whole."""
    subjects = sorted({case.facts.subject for case in cases})
    part = {subject: k % parts for k, subject in enumerate(subjects)}
    return sorted(
        ((case, part[case.facts.subject]) for case in cases),
        key=lambda pair: (pair[1], pair[0].facts.uuid),
    )


def with_calibration(calibration: Calibration) -> SelectionConfig:
    """The selection that a bundle gets."""
    return replace(SelectionConfig(), calibration=calibration)
