"""Fitting a calibration to stacks that a network never saw, and judging it on folds left out.

The choice of the frame and the claims of an answer are two things. The choice keeps its default
unless what other folds fit is clearly better. The claims are always fitted, and judged on each fold
with what the other folds fitted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from acouslic import selection
from acouslic.calibration import Calibration
from acouslic.engine import TorchEngine
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
            ac_mm=outline.ac_mm,
            reference_mm=None if np.isnan(reference_mm) else reference_mm,
        )

    def _logits_of(self, frame: int) -> np.ndarray:
        case = self.held_out.case
        row = int(np.searchsorted(case.frame_index, frame))
        grid = torch.from_numpy(np.array(case.frames[row : row + 1]))
        return full_size(predict(TorchEngine(self.members), grid, np.ones(1, bool)), 0)


def calibrate(
    held_out: Sequence[HeldOut], members_of: Callable[[int], Sequence[AbdomenNet]]
) -> tuple[Calibration, dict[str, Any]]:
    """Fit a calibration to held-out cases, and judge it fold by fold.

    Args:
        held_out: all cases, sorted by fold; a subject's cases are in one fold.
        members_of: gives a fold's networks, which never saw its cases.

    Returns:
        The calibration to pack, and the report: plain JSON, see `_scores`, with `claims`.
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
    subjects = [one.case.facts.subject for one in held_out]
    report = _scores(answers, subjects)
    column = report["column"]
    outcomes = [by_name[column].outcome for by_name in answers]
    claims = []
    for one, by_name in zip(held_out, answers, strict=True):
        others = [outcomes[k] for k in np.flatnonzero(folds != one.fold)]
        chosen_by = fitted_by_fold[one.fold] if column == HONEST else Calibration()
        claims.append(_claims(one, by_name[column], fit_outcomes(others, chosen_by)))
    calibration = fit_outcomes(outcomes, everything if column == HONEST else Calibration())
    return calibration, report | {
        "claims": _judged_claims(np.array(claims), [by_name[column] for by_name in answers]),
        "cases": len(held_out),
        "subjects": len(set(subjects)),
        "folds": len(fitted_by_fold),
        "calibration": calibration.to_dict(),
        "by_case": {
            one.case.facts.uuid: {"fold": one.fold, **asdict(by_name[column].figures)}
            for one, by_name in zip(held_out, answers, strict=True)
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


def _scores(answers: Sequence[Mapping[str, Answer]], subjects: Sequence[str]) -> dict[str, Any]:
    """What the choice of the frame scores, and which one is taken.

    Returns:
        `scores`: means with 95 % intervals, subjects resampled, for the default, for the fit on the
        cases that it was fitted on, which is optimistic, for each fold under the fit of the others,
        and for that without each of its parts. `gain`: of the fit on other folds over the default;
        it takes the default's place only where that is above chance. `column`: the one of `scores`
        that is so taken, in which nothing was fitted to the cases that it is about.
    """
    figures_by_name = {
        name: np.array([astuple(by_name[name].figures) for by_name in answers])
        for name in answers[0]
    }
    names = [field.name for field in fields(Figures)]
    gain = _means(figures_by_name[HONEST] - figures_by_name[DEFAULT], names, subjects)
    return {
        "scores": {
            name: _means(columns, names, subjects) for name, columns in figures_by_name.items()
        },
        "gain": gain,
        "column": HONEST if is_better(gain) else DEFAULT,
    }


def is_better(gain: Mapping[str, Any]) -> bool:
    """Whether a fitted choice takes the default's place: its gain in score is above chance."""
    return bool(gain["score"]["interval"][0] > 0)


def _judged_claims(claims: np.ndarray, answers: Sequence[Answer]) -> dict[str, Any]:
    """Whether answers hold what they say; the claims (cases, 5) are those of `_claims`."""
    confidence, p_annotated, annotated, has_reference, inside = claims.T
    score = np.array([answer.figures.score for answer in answers])
    return {
        "confidence_calibration_error": calibration_error(confidence, score),
        "p_annotated_calibration_error": calibration_error(p_annotated, annotated),
        "p_annotated_roc_area": roc_area(p_annotated, annotated > 0),
        "ac_coverage": float(inside.sum() / max(has_reference.sum(), 1)),
        "n_references": int(has_reference.sum()),
    }


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
    lines.append(f"claims: {', '.join(claims)}")
    lines.append(f"taken: {report['column']}")
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
