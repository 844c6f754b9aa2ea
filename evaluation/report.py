"""One self-contained HTML page about a scored run: figures, plots, and every case, worst first."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from acouslic import files
from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SIMULATED
from acouslic.errors import InputError
from acouslic.metaimage import read_frames, read_header
from dataset.labels import Labels, read_labels
from dataset.processes import in_processes
from dataset.truth import TruthCase, find_truth
from evaluation import page, plots
from evaluation.agreement import agreement, measured_cases
from evaluation.compare import LOWER_IS_BETTER, ZERO_IS_BEST
from evaluation.costs import costs, provenance
from evaluation.intervals import LEVEL_PERCENT, few_subjects
from evaluation.options import ReportOptions
from evaluation.oracles import mean_losses
from evaluation.pictures import polygons, webp
from evaluation.predictions import (
    SCORES_FILE,
    PredictionError,
    PredictionFiles,
    find_predictions,
    read_prediction,
)
from evaluation.reliability import reliability
from evaluation.score import CASES_FILE, METRICS_FILE, PROVENANCE_FILES, read_score
from evaluation.subgroups import read_groups, subgroups

REPORT_FILE = "report.html"
TEMPLATE = "report.html.j2"
ROOM = "evaluation"
# 300 px wide on the page, so half as many again for sharp screens.
PICTURE_WIDTH_PX = 440
# The first of these that keeps a picture below MOST_PICTURE_BYTES; a phantom's has 6 kB at 60.
QUALITIES = (60, 45, 30, 15, 5)
# Of the 12 MB that a page of 300 cases may have, two such pictures each take 7.2; lines and text of
# a case take up to 14 kB.
MOST_PICTURE_BYTES = 9_000
# Where there is no stack: the fan is seen, and both outlines on it.
EMPTY_FAN_GREY = 40
HEADLINES: Mapping[str, str] = {
    "score": "Score",
    "nae_circumference": "Relative error of the AC (NAE)",
    "wfss": "Frame selection (WFSS)",
    "DiceCoefficientSoft": "Soft Dice",
}
DETAILS: Mapping[str, str] = {
    "DiceCoefficient": "Dice on the chosen frame",
    "DiceCoefficientNearestFrame": "Dice, nearest annotated frame",
    "HausdorffDistance": "Hausdorff distance × frames, signed (px)",  # noqa: RUF001
    "JaccardCoefficient": "Jaccard",
    "MeanOverlap": "Mean overlap",
    "UnionOverlap": "Union overlap",
    "VolumeSimilarity": "Volume similarity",
    "FalseNegativeError": "False negative error",
    "FalsePositiveError": "False positive error",
}


@dataclass(frozen=True)
class Picture:
    """A frame with outlines."""

    uri: str
    """The frame as a data URI."""
    predicted: str
    """The predicted outline, as the path of an SVG element in pixels of the frame; may be empty."""
    expected: str
    """The true one, likewise."""
    caption: str
    """What it shows."""


@dataclass(frozen=True)
class CaseView:
    """What the page shows of one case."""

    case: Mapping[str, Any]
    """Its entry of `cases` in metrics.json."""
    pictures: tuple[Picture, ...]
    """The chosen frame, and a better one where another should have been chosen."""
    curves: str
    """The scores along the six sweeps, as SVG."""
    ac_error_mm: float | None
    """Size of the AC's error; None without a measured or a reference AC."""


@dataclass(frozen=True)
class _Job:
    """What a process needs to draw one case."""

    case: Mapping[str, Any]
    truth: TruthCase
    predictions: Path
    answer: PredictionFiles | None
    image_path: Path | None


def write_report(options: ReportOptions) -> Path:
    """Write the page about a scored run.

    Frames come from the truth's data set, or from `options.images`; without them the outlines are
    drawn on the empty fan.

    Returns:
        Where the page is.

    Raises:
        InputError: `options.scored` is no output of `score`, or what it scored is gone.
        OutputError: something else is where the page should go.
    """
    path = options.output or options.scored / REPORT_FILE
    files.refuse_foreign_file(path, page.mark(ROOM), "a report")
    result = read_score(options.scored)
    told = {} if options.groups is None else read_groups(options.groups)
    jobs = _jobs(result, options.images)
    views = sorted(
        in_processes(view_case, jobs, options.workers, "drawn"),
        key=lambda view: (view.case["score"], view.case["case"]),
    )
    links = _links(options.scored, path, [case["case"] for case in result["cases"]])
    downloads = {
        name: _data_uri("application/json" if name == METRICS_FILE else "text/csv", file)
        for name in (METRICS_FILE, CASES_FILE)
        if (file := options.scored / name).is_file()
    }
    files.write_text(path, render(result, views, told=told, links=links, downloads=downloads))
    return path


def _links(scored: Path, page_path: Path, names: Sequence[str]) -> dict[str, str]:
    """Addresses of the cases' pages, from the report's place, where `view` has written them."""
    paths = {name: scored / page.CASES_FOLDER / f"{name}.html" for name in names}
    return {
        name: quote(os.path.relpath(path, page_path.parent))
        for name, path in paths.items()
        if path.is_file()
    }


def _data_uri(kind: str, path: Path) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _jobs(result: Mapping[str, Any], images: Path | None) -> list[_Job]:
    """What to draw: every scored case with its truth."""
    settings = result["settings"]
    truth = find_truth(Path(settings["truth"]))
    gone = [case["case"] for case in result["cases"] if case["case"] not in truth]
    if gone:
        raise InputError(
            expected=f"truth of case {gone[0]} in {settings['truth']}",
            found="none any more",
            advice="score again",
        )
    predictions = Path(settings["predictions"])
    answers = find_predictions(predictions)
    jobs = []
    for case in result["cases"]:
        name = case["case"]
        image_path = _image_path(truth[name], images)
        jobs.append(_Job(case, truth[name], predictions, answers.get(name), image_path))
    return jobs


def render(
    result: Mapping[str, Any],
    views: Sequence[CaseView],
    *,
    told: Mapping[str, Mapping[str, str]],
    links: Mapping[str, str],
    downloads: Mapping[str, str],
) -> str:
    """Fill in the page.

    Args:
        result: the content of metrics.json.
        views: what to show of each case, in their order on the page.
        told: further groups of each case, see `read_groups`.
        links: addresses of the cases' own pages, by case.
        downloads: files as data URIs, by name.

    Returns:
        HTML that needs nothing outside of itself.
    """
    cases, settings = result["cases"], result["settings"]
    score, groups = result["score"]["mean"], subgroups(cases, told)
    notes = _notes(settings)
    has_losses = all("losses" in case for case in cases)
    lost = mean_losses(cases) if has_losses else []
    return page.render(
        ROOM,
        TEMPLATE,
        result=result,
        settings=settings,
        views=views,
        headlines=HEADLINES,
        details=DETAILS,
        best_at_0=LOWER_IS_BETTER | ZERO_IS_BEST,
        level_percent=LEVEL_PERCENT,
        few=few_subjects(settings["n_subjects"]),
        facts=_facts(cases),
        agreements={
            unit: agreed
            for unit in ("mm", "%")
            if (agreed := agreement(cases, in_percent=unit == "%")) is not None
        },
        losses=lost,
        losses_plot=plots.losses_by_stage(lost, score) if lost else "",
        groups=groups,
        groups_plot=plots.score_by_subgroup(groups, score) if groups else "",
        reliability=result.get("reliability") or reliability(cases),
        costs=costs(notes.get("run.json", {})),
        provenance=provenance(settings, notes),
        links=links,
        downloads=downloads,
        frame_size=(FRAME_SHAPE[1], FRAME_SHAPE[0]),
        plots=[
            plots.bland_altman(cases, in_percent=False),
            plots.bland_altman(cases, in_percent=True),
            plots.error_by_size(cases),
            plots.wfss_by_sweep(cases),
            plots.wfss_by_case(cases),
        ],
        reliability_plots=[plots.reliability_diagram(cases), plots.risk_by_coverage(cases)],
    )


def _notes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What lies beside answers and truth and tells of them, by name; nothing where it is gone."""
    notes = {}
    for folder in (settings["predictions"], settings["truth"]):
        for name in (*PROVENANCE_FILES, SIMULATED):
            try:
                notes[name] = json.loads(Path(folder, name).read_text())
            except (OSError, ValueError):
                continue
    return {name: note for name, note in notes.items() if isinstance(note, dict)}


def view_case(job: _Job) -> CaseView:
    """Draw one case."""
    case, labels = job.case, read_labels(job.truth.mask_path)
    measured, reference = case["ac_mm"], case["reference_mm"]
    return CaseView(
        case=case,
        pictures=tuple(_pictures(job, labels)),
        curves=plots.sweep_curves(case, _frame_scores(job)),
        ac_error_mm=abs(measured - reference) if measured and reference else None,
    )


def _facts(cases: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the table of means does not say, as pairs of a figure and its meaning."""
    errors = [abs(case["ac_mm"] - case["reference_mm"]) for case in measured_cases(cases)]
    facts = [
        (f"{sum(case['wfss'] == 0 for case in cases)}", "chose a frame without annotation"),
        (f"{sum(case['reference_mm'] is None for case in cases)}", "chose a sweep without AC"),
    ]
    if errors:
        facts.append((f"{np.median(errors):.1f} mm", "median error of the AC, where there is one"))
    says = reliability(cases)
    if says["ac_coverage"] is not None:
        covered = f"{100 * says['ac_coverage']:.0f} %"
        facts.append((covered, "of references lie inside the AC's 90 % interval"))
    return facts


def _pictures(job: _Job, labels: Labels) -> list[Picture]:
    """The chosen frame, and beside it the best annotated one where another should have been."""
    case, frame, pictures = job.case, job.case["frame"], []
    predicted = _predicted_mask(job, labels)
    if frame is not None and 0 <= frame < labels.n_frames:
        expected = labels.frame(frame)
        what = case["quality"] if expected.any() else "not annotated"
        caption = f"chosen: frame {frame}, sweep {case['sweep']}, {what}"
        pictures.append(_picture(job, frame, predicted, expected, caption))
    best = _best_frame(case["runs"])
    if case["wfss"] < 1 and best is not None:
        wanted = labels.frame(best)
        caption = f"better: frame {best}, sweep {labels.sweep_of(best)}"
        pictures.append(_picture(job, best, np.zeros_like(wanted), wanted, caption))
    return pictures


def _best_frame(runs: Sequence[tuple[int, int, str]]) -> int | None:
    """The middle of the longest optimal run, else of the longest suboptimal one."""
    if not runs:
        return None
    first, last, _ = max(runs, key=lambda run: (run[2] == "optimal", run[1] - run[0]))
    return (first + last) // 2


def _picture(
    job: _Job, frame: int, predicted: np.ndarray, expected: np.ndarray, caption: str
) -> Picture:
    """A frame, made small, with both outlines; masks are (H, W)."""
    height, width = predicted.shape
    grey = _read_frame(job.image_path, frame, (height, width))
    size = (PICTURE_WIDTH_PX, round(height * PICTURE_WIDTH_PX / width))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    files_by_quality = (webp(small, quality) for quality in QUALITIES)
    data = next((d for d in files_by_quality if len(d) <= MOST_PICTURE_BYTES), None)
    if data is None:
        data = webp(small, QUALITIES[-1])
    uri = "data:image/webp;base64," + base64.b64encode(data).decode()
    return Picture(uri, _path(predicted != 0), _path(expected != 0), caption)


def _path(mask: np.ndarray) -> str:
    """A mask's borders as an SVG path; corners are centres of pixels."""
    lines = (np.reshape(line, (-1, 2)) for line in polygons(mask))
    return "".join(
        "M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in line) + "Z" for line in lines
    )


def _read_frame(path: Path | None, frame: int, shape: tuple[int, int]) -> np.ndarray:
    """One frame of a stack, (H, W) uint8; the empty fan where there is no stack."""
    if path is None:
        return np.where(CHALLENGE_FAN.mask(shape), EMPTY_FAN_GREY, 0).astype(np.uint8)
    header = read_header(path)
    if header.shape[1:] != shape or frame >= header.shape[0]:
        raise InputError(
            expected=f"frame {frame} of {shape[1]} x {shape[0]} pixels in {path}",
            found=f"shape {header.shape}",
            advice="give the stacks that belong to the truth",
        )
    return next(islice(read_frames(path, header), frame, None))


def _predicted_mask(job: _Job, labels: Labels) -> np.ndarray:
    try:
        if job.answer is not None:
            return read_prediction(job.answer, labels.shape).mask
    except PredictionError:
        pass  # It was scored as the worst, as the case's warnings say.
    return np.zeros(labels.frame_shape, np.uint8)


def _frame_scores(job: _Job) -> list[float] | None:
    """What `run` left beside the answer; other predictions have no such file."""
    path = job.predictions / str(job.case["case"]) / SCORES_FILE
    if not path.is_file():
        return None
    value = files.read_json(path)
    scores = value.get("frame_scores") if isinstance(value, dict) else None
    if not isinstance(scores, list) or not all(isinstance(score, float | int) for score in scores):
        return None
    return scores if len(scores) == job.case["n_frames"] else None


def _image_path(truth: TruthCase, images: Path | None) -> Path | None:
    if images is None:
        return truth.image_path
    path = images / f"{truth.case}.mha"
    return path if path.is_file() else None
