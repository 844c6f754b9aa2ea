"""The case viewer: one page that shows all frames of a stack, and why one of them was chosen."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acouslic import files
from acouslic.bundle import Bundle, load_bundle, without_sweep_prior
from acouslic.challenge import AC_SHARE, FRAME_SHARE, MASK_SHARE, SWEEP_DIRECTIONS, Quality
from acouslic.ellipse import Ellipse
from acouslic.engine import choose_device
from acouslic.errors import InputError
from acouslic.mask import Outline
from acouslic.stack import read_stack
from dataset.labels import Labels, read_labels
from dataset.truth import TruthCase, find_truth
from evaluation import page
from evaluation.explain import (
    Explanation,
    TrueValue,
    best_by_truth,
    explain,
    true_values,
)
from evaluation.options import ViewOptions
from evaluation.pictures import Strips, make_strips, polygons
from evaluation.score import read_score

ROOM, TEMPLATE = "evaluation", "view.html.j2"
TERM_SHARES: Mapping[str, float] = {"ac": AC_SHARE, "frame": FRAME_SHARE, "mask": MASK_SHARE}
TERM_NAMES: Mapping[str, str] = {"ac": "AC", "frame": "frame", "mask": "mask"}
# Decimals of a probability or score: a curve on the page shows three.
DIGITS = 4
# What run.json calls the rule whose choice this page can explain.
SHIPPED = "shipped"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A case to show, and all that is known of it."""

    name: str
    """The case's name."""
    stack_path: Path
    """Its stack's file."""
    truth: TruthCase | None
    """Where its truth lies; None where it has none."""
    answered_frame: int | None
    """The frame of the answer that was scored; None without one."""
    simulated: bool
    """Whether its images, or what it was scored with, are simulated."""


@dataclass(frozen=True)
class Candidate:
    """A row of the table that sets the chosen frame beside others."""

    why: str
    """Why it is of interest."""
    frame: int
    """Its index."""
    value: TrueValue | None
    """What it would have scored; None where that is not known."""


def write_views(options: ViewOptions) -> list[Path]:
    """Write a page for each case.

    Returns:
        Where the pages are.

    Raises:
        InputError: a case is not there, or the bundle is not the one that gave the answers.
        OutputError: something else is where a page should go.
    """
    result = None if options.scored is None else read_score(options.scored)
    sources = _sources(options, result)
    folder = options.output or (options.scored / page.CASES_FOLDER if options.scored else Path())
    paths = [folder / f"{source.name}.html" for source in sources]
    for path in paths:
        files.refuse_foreign_file(path, page.mark(ROOM), "a page of a case")
    bundle = _bundle(options, result)
    folder.mkdir(parents=True, exist_ok=True)
    for source, path in zip(sources, paths, strict=True):
        files.write_text(path, view(source, bundle))
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return paths


def view(source: Source, bundle: Bundle) -> str:
    """The page of a case: HTML that refers to nothing outside of itself."""
    stack = read_stack(source.stack_path)
    explanation = explain(stack, bundle)
    labels = None if source.truth is None else read_labels(source.truth.mask_path)
    values: dict[int, TrueValue] = {}
    if labels is not None and source.truth is not None:
        _refuse_other_shape(labels, stack.frames.shape, source)
        values = true_values(explanation, labels, source.truth.references_mm)
    strips = make_strips(stack.frames)
    candidates = _candidates(explanation, values if labels is not None else None)
    return page.render(
        ROOM,
        TEMPLATE,
        case=source.name,
        bundle_id=bundle.id,
        simulated=source.simulated or bundle.is_simulated,
        truth=source.truth,
        chosen=explanation.chosen,
        chosen_sweep=_sweep_of(explanation, explanation.chosen),
        direction=SWEEP_DIRECTIONS[_sweep_of(explanation, explanation.chosen) - 1],
        ac_mm=explanation.outlines[explanation.chosen].ac_mm,
        other_answer=source.answered_frame not in (None, explanation.chosen),
        answered_frame=source.answered_frame,
        reasons=reasons(explanation, candidates),
        rows=[_row(explanation, candidate) for candidate in candidates],
        term_names=TERM_NAMES,
        term_shares=TERM_SHARES,
        strips=strips.base64,
        data=_data(explanation, strips, labels, source, values),
    )


def _sources(options: ViewOptions, result: Mapping[str, Any] | None) -> list[Source]:
    names = (options.case, *options.more)
    if result is None:
        return [_unscored(Path(name)) for name in names]
    settings = result["settings"]
    truth = find_truth(Path(settings["truth"]))
    cases = {case["case"]: case for case in result["cases"]}
    sources = []
    for name in names:
        if name not in cases or name not in truth:
            raise InputError(
                expected=f"a case of {options.scored}",
                found=name,
                advice=f"name one of its {len(cases)} cases, as the report does",
            )
        path = truth[name].image_path
        if options.images is not None:
            path = options.images / f"{name}.mha"
        if path is None or not path.is_file():
            raise InputError(
                expected=f"the stack of case {name}",
                found=f"no {path or 'images beside the truth'}",
                advice="give the folder of the stacks as --images",
            )
        sources.append(
            Source(name, path, truth[name], cases[name]["frame"], bool(settings["simulated"]))
        )
    return sources


def _unscored(path: Path) -> Source:
    if not path.is_file():
        raise InputError(
            expected="a stack's file (.mha)",
            found=f"no {path}",
            advice="check the path, or add --scored for a case's name",
        )
    return Source(path.stem, path, None, None, simulated=False)


def _bundle(options: ViewOptions, result: Mapping[str, Any] | None) -> Bundle:
    """The bundle, which has to be the one whose answers were scored."""
    bundle = load_bundle(options.model, choose_device(options.device))
    if result is None:
        return bundle
    settings = result["settings"]
    if settings["bundle_id"] not in (None, bundle.id):
        raise InputError(
            expected=f"the bundle that gave the answers, {settings['bundle_id']}",
            found=bundle.id,
            advice="give that bundle as --model",
        )
    rule, has_prior = _rule(Path(settings["predictions"]))
    if rule != SHIPPED:
        raise InputError(
            expected="frames that were chosen by their expected score",
            found=f"the rule {rule}",
            advice="view a run of the shipped rule",
        )
    return bundle if has_prior else without_sweep_prior(bundle)


def _rule(predictions: Path) -> tuple[str, bool]:
    """How the frames were chosen, and whether a sweep's number counted in it.

    Answers that did not come from `run` do not say.
    """
    try:
        log = json.loads((predictions / "run.json").read_text())
        rule, _, without_prior = str(log["rule"]).partition(", ")
        return rule, bool(log.get("sweep_prior", not without_prior))
    except (OSError, ValueError, KeyError):
        return SHIPPED, True


def _refuse_other_shape(labels: Labels, shape: tuple[int, ...], source: Source) -> None:
    if labels.shape != shape:
        raise InputError(
            expected=f"truth of the stack's shape {shape} for case {source.name}",
            found=f"{labels.shape}",
            advice="give the stacks that belong to the truth",
        )


def _sweep_of(explanation: Explanation, frame: int) -> int:
    """The 1-based sweep of a frame."""
    return frame // (len(explanation.scores) // len(SWEEP_DIRECTIONS)) + 1


# ---- why this frame


def _candidates(
    explanation: Explanation, values: Mapping[int, TrueValue] | None
) -> list[Candidate]:
    """The chosen frame first, then its rivals, then the best one by the truth."""
    named = {explanation.chosen: "chosen"}
    named |= {frame: why for why, frame in explanation.alternatives}
    best = None if values is None else best_by_truth(values)
    if best is not None:
        named[best] = f"{named[best]}, best by truth" if best in named else "best by truth"
    if values is None:
        return [Candidate(why, frame, None) for frame, why in named.items()]
    return [Candidate(why, frame, values.get(frame)) for frame, why in named.items()]


def reasons(explanation: Explanation, candidates: Sequence[Candidate]) -> list[str]:
    """Why the frame was chosen and what others would have given, in sentences."""
    chosen, scores = explanation.chosen, explanation.scores
    shares = ", ".join(
        f"{explanation.terms[term][chosen]:.3f} of {share:g} for the {TERM_NAMES[term]}"
        for term, share in TERM_SHARES.items()
    )
    sentences = [f"Frame {chosen} is expected to score {scores[chosen]:.3f}: {shares}."]
    best = int(np.argmax(scores))
    if scores[best] > scores[chosen]:
        sentences.append(
            f"Frame {best} is expected to score {scores[best]:.3f}, but the AC would not be read "
            "right from its mask, so the next best took its place."
        )
    sweep = _sweep_of(explanation, chosen)
    rivals = explanation.alternatives
    elsewhere = [rival for rival in rivals[1:] if _sweep_of(explanation, rival[1]) != sweep]
    sentences += [_rival_sentence(explanation, *rival) for rival in (*rivals[:1], *elsewhere[:1])]
    return sentences + _truth_sentences(explanation, candidates)


def _rival_sentence(explanation: Explanation, why: str, frame: int) -> str:
    chosen, sweep = explanation.chosen, _sweep_of(explanation, frame)
    more = {
        TERM_NAMES[term]: float(values[frame] - values[chosen])
        for term, values in explanation.terms.items()
    }
    total = sum(more.values())
    by_term = ", ".join(f"{name} {value:+.3f}" for name, value in more.items())
    return (
        f"The {why}, frame {frame} of sweep {sweep}, is expected to score {abs(total):.3f} "
        f"{'less' if total <= 0 else 'more'}: {by_term}."
    )


def _truth_sentences(explanation: Explanation, candidates: Sequence[Candidate]) -> list[str]:
    """What the frames scored by the truth; nothing where it is not known."""
    if all(row.value is None for row in candidates):
        return []
    scored = {row.frame: 0.0 if row.value is None else row.value.score for row in candidates}
    mine = scored.pop(explanation.chosen)
    text = f"By the truth it scores {mine:.3f}."
    best = max(scored, key=lambda frame: scored[frame], default=None)
    if best is not None and scored[best] > mine:
        return [text, f"With frame {best} it would have been {scored[best]:.3f}."]
    return [text, "None of the others would have scored more."]


def _row(explanation: Explanation, candidate: Candidate) -> dict[str, Any]:
    """A candidate's line of the table."""
    frame, belief = candidate.frame, explanation.belief
    sweep, outline = _sweep_of(explanation, frame), explanation.outlines.get(frame)
    value = candidate.value
    return {
        "why": candidate.why,
        "frame": frame,
        "sweep": sweep,
        "expected": float(explanation.scores[frame]),
        "terms": {term: float(values[frame]) for term, values in explanation.terms.items()},
        "probabilities": [
            float(belief.annotated[frame]),
            float(belief.optimal[frame]),
            float(belief.reference[sweep - 1]),
            float(belief.readable[frame]),
        ],
        "ac_mm": None if outline is None else outline.ac_mm,
        "score": 0.0 if value is None else value.score,
        "values": None if value is None else value.metrics.values,
    }


# ---- what the page's script needs


def _data(
    explanation: Explanation,
    strips: Strips,
    labels: Labels | None,
    source: Source,
    values: Mapping[int, TrueValue],
) -> dict[str, Any]:
    belief = explanation.belief
    return {
        "frames": len(explanation.scores),
        "directions": SWEEP_DIRECTIONS,
        "chosen": explanation.chosen,
        "strips": {
            "width": strips.width_px,
            "height": strips.height_px,
            "frames": strips.frames_a_strip,
        },
        "scores": _rounded(explanation.scores),
        "terms": {term: _rounded(values) for term, values in explanation.terms.items()},
        "parts": {
            "annotated": _rounded(belief.annotated),
            "optimal": _rounded(belief.optimal),
            "reference": _rounded(
                np.repeat(belief.reference, len(explanation.scores) // len(belief.reference))
            ),
            "readable": _rounded(belief.readable),
        },
        "outlines": {
            frame: _outline(outline) for frame, outline in sorted(explanation.outlines.items())
        },
        "truth": None if labels is None else _truth(labels, source, values),
    }


def _truth(labels: Labels, source: Source, values: Mapping[int, TrueValue]) -> dict[str, Any]:
    scores = np.zeros(labels.n_frames)
    for frame, value in values.items():
        scores[frame] = value.score
    return {
        "quality": labels.quality().tolist(),
        "words": [quality.word for quality in Quality],
        "scores": _rounded(scores),
        "references": [] if source.truth is None else source.truth.references_mm,
        "outlines": {frame: polygons(mask != 0) for frame, mask in sorted(labels.frames.items())},
    }


def _outline(outline: Outline) -> dict[str, Any]:
    return {
        "mask": polygons(outline.mask),
        "ellipse": _ellipse(outline.ellipse),
        "ac": round(outline.ac_mm, 2),
    }


def _ellipse(ellipse: Ellipse) -> list[float]:
    return [
        round(number, 2)
        for number in (
            ellipse.centre_x_px,
            ellipse.centre_y_px,
            ellipse.semi_major_px,
            ellipse.semi_minor_px,
            ellipse.angle_deg,
        )
    ]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
