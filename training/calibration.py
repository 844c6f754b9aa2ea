"""Fitting a calibration to stacks that a network never saw, and judging it on folds left out.

The choice of the frame and the claims of an answer are two things. The choice keeps its default
unless what other folds fit is clearly better, and a sweep head is added only where it is clearly
better still. The claims of a new bundle are always fitted, and judged on each fold with what the
other folds fitted; those that a bundle has give way only to clearly better ones.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from acouslic import selection
from acouslic.calibration import Calibration
from acouslic.engine import TorchEngine
from acouslic.expected_score import Evidence, Posteriors, expected_score, posteriors
from acouslic.mask import Outline
from acouslic.network import AbdomenNet
from acouslic.segment import full_size, predict
from acouslic.selection import SelectionConfig
from acouslic.sweep_head import SweepHead
from dataset.cache import CachedCase
from evaluation.calibrate import KnownStack, Outcome, fit, fit_outcomes, variants
from evaluation.intervals import mean_intervals
from evaluation.reliability import calibration_error, roc_area
from training.cards import HONEST
from training.options import SweepHeadRecipe
from training.sweep_head import log_losses, train
from training.whole_stack import Figures, choose, figures, judge_outline

DEFAULT, FITTED, WITH_HEAD = "default", "fitted", "with a sweep head"
# What a calibration says of an answer's score, and of its frame: the first columns of `_claims`.
CLAIMS = ("claim_score", "claim_annotated")
# The key of the report under which it tells of the head.
SWEEP_HEAD = "sweep_head"


@dataclass(frozen=True)
class Choice:
    """What the frames of a stack are scored by."""

    calibration: Calibration
    """The numbers behind it."""
    head: SweepHead | None = None
    """What corrects the calibration's log odds."""

    def belief(self, evidence: Evidence) -> Posteriors:
        """What is to be believed of a stack."""
        correction = None if self.head is None else self.head.correction(evidence)
        return posteriors(evidence, self.calibration, correction=correction)

    def scores(self, evidence: Evidence) -> np.ndarray:
        """The expected scores of a stack's frames, (T,)."""
        return expected_score(self.belief(evidence), self.calibration)


class Calibrated(NamedTuple):
    """What a bundle gets, and how good it is."""

    calibration: Calibration
    """The calibration to pack."""
    report: dict[str, Any]
    """Plain JSON, see `_scores`, with `claims`; where a head was tried, see `_with_head`."""
    head: SweepHead | None
    """The sweep head to pack; None where none was asked for, or none is clearly better."""


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

    def answer(self, scores: np.ndarray, choice: Choice) -> Answer:
        """The answer that these scores (T,) choose; `choice` says what it claims."""
        case = self.held_out.case
        frame, outline = choose(case, scores, self._outlines)
        judged = self._figures(frame, outline)
        return Answer(judged, frame, self._outcome(frame, outline, judged, choice))

    def _figures(self, frame: int, outline: Outline) -> Figures:
        if frame not in self._judged:
            self._judged[frame] = figures(judge_outline(self.held_out.case, frame, outline))
        return self._judged[frame]

    def _outcome(self, frame: int, outline: Outline, judged: Figures, choice: Choice) -> Outcome:
        facts, belief = self.held_out.case.facts, choice.belief(self.held_out.evidence)
        reference_mm = facts.ac_mm[frame // (facts.n_frames // len(facts.ac_mm))]
        return Outcome(
            p_annotated=float(belief.annotated[frame]),
            expected=float(expected_score(belief, choice.calibration)[frame]),
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
    held_out: Sequence[HeldOut],
    members_of: Callable[[int], Sequence[AbdomenNet]],
    recipe: SweepHeadRecipe | None = None,
    present: Calibration | None = None,
) -> Calibrated:
    """Fit a calibration to held-out cases, and judge it fold by fold.

    Args:
        held_out: all cases, sorted by fold; a subject's cases are in one fold.
        members_of: gives a fold's networks, which never saw its cases.
        recipe: how a sweep head is trained; None tries none.
        present: the calibration that the bundle has, which is the default then; None: it has none.
    """
    choices = _fitted(held_out)
    default = Choice(present or Calibration())
    answers = [
        _answers(one, members_of(one.fold), choices.by_fold[one.fold], choices.of_all, default)
        for one in held_out
    ]
    report = _scores(answers, [one.case.facts.subject for one in held_out])
    if report["column"] == DEFAULT:
        choices = _Choices(default, dict.fromkeys(choices.by_fold, default))
    if recipe is not None:
        headed = _headed(held_out, choices, recipe)
        for one, by_name in zip(held_out, answers, strict=True):
            choice = headed[one.fold]
            scores = choice.scores(one.evidence)
            by_name[WITH_HEAD] = Answers(one, members_of(one.fold)).answer(scores, choice)
        report = _with_head(report, held_out, answers, headed)
        report[SWEEP_HEAD]["recipe"] = asdict(recipe)
        if report["column"] == WITH_HEAD:
            stacks, calibration = [one.known for one in held_out], choices.of_all.calibration
            choices = _Choices(Choice(calibration, train(stacks, calibration, recipe)), headed)
    taken = [by_name[report["column"]] for by_name in answers]
    # What is said of answers that are chosen otherwise is another thing.
    claimed = default if present is not None and report["column"] == DEFAULT else None
    return _claimed(held_out, taken, choices, report, claimed)


@dataclass(frozen=True)
class _Choices:
    """One way to choose, fitted to all cases and to all but a fold's."""

    of_all: Choice
    by_fold: Mapping[int, Choice]


def _fitted(held_out: Sequence[HeldOut]) -> _Choices:
    """What the calibration's fit gives."""
    stacks = [one.known for one in held_out]
    by_fold = {fold: Choice(fit(others)) for fold, others in _others(held_out).items()}
    return _Choices(Choice(fit(stacks)), by_fold)


def _headed(
    held_out: Sequence[HeldOut], choices: _Choices, recipe: SweepHeadRecipe
) -> dict[int, Choice]:
    """A sweep head upon each fold's choice, trained on the other folds."""
    headed = {}
    for fold, others in tqdm(
        _others(held_out).items(), unit="fold", disable=not sys.stderr.isatty()
    ):
        choice = choices.by_fold[fold]
        headed[fold] = replace(choice, head=train(others, choice.calibration, recipe))
    return headed


def _others(held_out: Sequence[HeldOut]) -> dict[int, list[KnownStack]]:
    """The stacks outside of each fold, by the fold."""
    folds = sorted({one.fold for one in held_out})
    known = [(one.fold, one.known) for one in held_out]
    return {fold: [stack for other, stack in known if other != fold] for fold in folds}


def _claimed(
    held_out: Sequence[HeldOut],
    answers: Sequence[Answer],
    choices: _Choices,
    report: dict[str, Any],
    present: Choice | None,
) -> Calibrated:
    """The calibration with what answers may claim, and the report with whether they hold it.

    The claims of `present` stay where those that other folds fit are not clearly better.
    """
    outcomes = [answer.outcome for answer in answers]
    subjects = [one.case.facts.subject for one in held_out]
    claims = []
    for one, answer in zip(held_out, answers, strict=True):
        others = [o for other, o in zip(held_out, outcomes, strict=True) if other.fold != one.fold]
        choice = choices.by_fold[one.fold]
        choice = replace(choice, calibration=fit_outcomes(others, choice.calibration))
        claims.append(_claims(one, answer, choice))
    judged = np.array(claims)
    calibration = fit_outcomes(outcomes, choices.of_all.calibration)
    kept: list[str] = []
    if present is not None:
        before = np.array(
            [_claims(one, answer, present) for one, answer in zip(held_out, answers, strict=True)]
        )
        came = np.array([(answer.figures.score, answer.outcome.annotated) for answer in answers])
        for k, name in enumerate(CLAIMS):
            if not is_nearer(judged[:, k], before[:, k], came[:, k], subjects):
                kept.append(name)
                judged[:, k] = before[:, k]
        weights = {name: getattr(present.calibration, name) for name in kept}
        calibration = replace(calibration, **weights)
    more = {
        "claims": _judged_claims(judged, answers),
        "kept_claims": kept,
        "cases": len(held_out),
        "subjects": len(set(subjects)),
        "folds": len(choices.by_fold),
        "calibration": calibration.to_dict(),
        "by_case": {
            one.case.facts.uuid: {"fold": one.fold, **asdict(answer.figures)}
            for one, answer in zip(held_out, answers, strict=True)
        },
    }
    return Calibrated(calibration, report | more, choices.of_all.head)


def _answers(
    one: HeldOut,
    members: Sequence[AbdomenNet],
    honest: Choice,
    everything: Choice,
    default: Choice,
) -> dict[str, Answer]:
    """A case's answers: by default, by the fits, by the honest fit without each of its parts."""
    answers = Answers(one, members)
    scores = {
        DEFAULT: (default.scores(one.evidence), default),
        FITTED: (everything.scores(one.evidence), everything),
    }
    for name, values in variants(one.evidence, honest.calibration).items():
        scores[HONEST if name == "expected score" else name] = (values, honest)
    return {name: answers.answer(*by_score) for name, by_score in scores.items()}


def _claims(one: HeldOut, answer: Answer, choice: Choice) -> tuple[float, ...]:
    """Confidence and p_annotated; whether annotated, with a reference, with that inside."""
    calibration = choice.calibration
    confidence = calibration.confidence(choice.scores(one.evidence)[answer.frame])
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


def _with_head(
    report: Mapping[str, Any],
    held_out: Sequence[HeldOut],
    answers: Sequence[Mapping[str, Answer]],
    headed: Mapping[int, Choice],
) -> dict[str, Any]:
    """The report with what sweep heads bring, each on the fold that it never saw.

    Returns:
        The same, with `scores` of answers with a head, and `sweep_head`: upon which column they
        stand, their `gain` in score over it, and in the log loss of a stack (`log_loss`). `column`
        is theirs only where the gain in score is above chance.
    """
    upon = report["column"]
    subjects = [one.case.facts.subject for one in held_out]
    names = [field.name for field in fields(Figures)]
    before, after = (
        np.array([astuple(by_name[name].figures) for by_name in answers])
        for name in (upon, WITH_HEAD)
    )
    losses = np.array([_loss_pair(one, headed[one.fold]) for one in held_out])
    losses = np.column_stack([losses, losses[:, 0] - losses[:, 1]])
    told = {
        "upon": upon,
        "gain": _means(after - before, names, subjects),
        "log_loss": _means(losses, ["without", "with", "gain"], subjects),
    }
    return {
        **report,
        "scores": {**report["scores"], WITH_HEAD: _means(after, names, subjects)},
        "column": WITH_HEAD if is_better(told["gain"]) else upon,
        SWEEP_HEAD: told,
    }


def _loss_pair(one: HeldOut, choice: Choice) -> tuple[float, float]:
    """The log loss of a held-out stack without the head and with it."""
    without, loss = (
        float(log_losses([one.known], choice.calibration, head)[0]) for head in (None, choice.head)
    )
    return without, loss


def is_better(gain: Mapping[str, Any]) -> bool:
    """Whether a choice takes another one's place: its gain in score is above chance."""
    return bool(gain["score"]["interval"][0] > 0)


def is_nearer(
    after: np.ndarray, before: np.ndarray, came: np.ndarray, subjects: Sequence[str]
) -> bool:
    """Whether a claim takes another one's place: its mean squared error is less, above chance.

    The noise of few cases is large: that of 40 cases moves their mean score by 0.06, and so a claim
    that is fitted to them.

    Args:
        after: what it says of cases that it was not fitted to, (N,).
        before: what the other one says, (N,).
        came: what came of them, (N,), 0 to 1.
        subjects: whose cases they are, which are resampled.
    """
    gain = (before - came) ** 2 - (after - came) ** 2
    intervals = mean_intervals(gain[:, None], subjects)
    return intervals is not None and bool(intervals[0, 0] > 0)


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
    if kept := report["kept_claims"]:
        lines.append(f"as before, as a fit was not clearly better: {', '.join(kept)}")
    if told := report.get(SWEEP_HEAD):
        low, high = told["gain"]["score"]["interval"]
        losses = {name: value["mean"] for name, value in told["log_loss"].items()}
        lines.append(
            f"sweep head: score {told['gain']['score']['mean']:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"over {told['upon']}; log loss of a stack {losses['without']:.3f}, with it "
            f"{losses['with']:.3f}"
        )
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
