"""Scoring a folder of predictions against the truth: metrics.json and cases.csv.

metrics.json has the official keys with mean and std, and beside them `ci95`, `cases`, `warnings`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acouslic import files
from acouslic.challenge import CHALLENGE_FAN, SIMULATED, SPACING_MM
from acouslic.errors import InputError
from dataset.backends import Needs
from dataset.labels import Labels, read_labels
from dataset.results import results
from dataset.truth import TruthCase, find_truth, read_fan_mask, read_subjects
from evaluation import metrics
from evaluation.intervals import LEVEL_PERCENT, RESAMPLES, mean_intervals
from evaluation.options import ScoreOptions
from evaluation.oracles import losses, nothing_answered
from evaluation.predictions import (
    CLAIMS,
    Prediction,
    PredictionError,
    PredictionFiles,
    find_predictions,
    read_prediction,
)
from evaluation.reliability import reliability

METRICS_FILE, CASES_FILE = "metrics.json", "cases.csv"
# What `settings` says of the bootstrap; by this our metrics.json differs from the official one.
RESAMPLED = "subjects"
METRICS_MARK = f'"over": "{RESAMPLED}"'
# Written by `run` beside the predictions, and by the phantom beside its data.
PROVENANCE_FILES = ("run.json", "provenance.json")
SCORE_TERMS = ("nae_circumference", "wfss", "DiceCoefficientSoft")
SCORED_KEYS = (*metrics.AVERAGED_KEYS, "score")
# A worker holds one volume of labels as frames, and the libraries.
NEEDS = Needs(gpu=False, memory_mib=1024)
CASE_COLUMNS = (
    "case",
    "subject_id",
    "status",
    "frame",
    "sweep",
    "quality",
    "ac_mm",
    "reference_mm",
    *SCORED_KEYS,
    "NearestAnnotatedFrame",
    *CLAIMS,
    "warnings",
)


@dataclass(frozen=True)
class Job:
    """What a process needs to score one case."""

    truth: TruthCase
    """Where the case's truth lies."""
    prediction: PredictionFiles | None
    """Where its answer lies; None where it is missing."""
    fov_mask: Path | None
    """Image file of the field of view; None takes the project's own fan."""


def score(options: ScoreOptions) -> dict[str, Any]:
    """Score all cases.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: truth or predictions cannot be found, or a prediction has no truth.
        PredictionError: predictions are missing or broken, and they are not allowed to be.
    """
    truth = _only(options.cases, find_truth(options.truth), options.truth)
    truth = _with_subjects(truth, options.subjects)
    answers = find_predictions(options.predictions)
    if options.cases is not None:
        answers = {case: answer for case, answer in answers.items() if case in truth}
    _refuse_surplus(answers.keys() - truth.keys())
    if not options.allow_missing:
        _refuse_missing(truth.keys() - answers.keys())
    jobs = {case: Job(truth[case], answers.get(case), options.fov_mask) for case in sorted(truth)}
    scored = results(
        score_case, jobs, options.where, output=options.output, needs=NEEDS, label="scored"
    )
    cases = sorted(scored, key=lambda case: str(case["case"]))
    if not options.allow_missing:
        _refuse_broken([case for case in cases if case["status"] != "scored"])
    return {
        **_totals(cases, options.seed),
        "reliability": reliability(cases),
        "cases": cases,
        "warnings": [
            {"case": case["case"], "warning": text} for case in cases for text in case["warnings"]
        ],
        "settings": _describe(options, cases),
    }


def refuse_strangers(output: Path) -> None:
    """Make sure that a score may be written into a folder.

    Raises:
        OutputError: a metrics.json or cases.csv is there that is not ours.
    """
    files.refuse_foreign_file(output / METRICS_FILE, METRICS_MARK, "a score")
    files.refuse_foreign_file(output / CASES_FILE, ",".join(CASE_COLUMNS), "a score")


def write_score(result: Mapping[str, Any], output: Path) -> None:
    """Write metrics.json and cases.csv into a folder.

    Raises:
        OutputError: a file of such a name is there that is not ours.
    """
    refuse_strangers(output)
    files.write_json(output / METRICS_FILE, result)
    cases = [case | {"warnings": "; ".join(case["warnings"])} for case in result["cases"]]
    rows = [[case[column] for column in CASE_COLUMNS] for case in cases]
    files.write_table(output / CASES_FILE, [CASE_COLUMNS, *rows])


def read_score(folder: Path) -> dict[str, Any]:
    """Read what `write_score` wrote.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: there is no such file, or another one.
    """
    path = folder / METRICS_FILE
    try:
        result: dict[str, Any] = files.read_json(path)
        if not {"cases", "settings", *SCORED_KEYS} <= result.keys():
            raise ValueError("it has no cases or not all metrics")
    except (InputError, ValueError, AttributeError) as error:
        raise InputError(
            expected=f"{METRICS_FILE} of `python -m evaluation score` in {folder}",
            found=str(error),
            advice="score the predictions first and give its --output folder",
        ) from error
    return result


def table(result: Mapping[str, Any]) -> str:
    """The means with their intervals, as text for people."""
    lines = [f"{'':28}{'mean':>12}{'std':>12}   {LEVEL_PERCENT:g} % interval"]
    for key in SCORED_KEYS:
        entry = result[key]
        ends = entry["ci95"]
        interval = "-" if ends is None else f"{ends[0]:.4f} .. {ends[1]:.4f}"
        lines.append(f"{key:28}{entry['mean']:12.4f}{entry['std']:12.4f}   {interval}")
    lines += [f"{key:28}{_figure(value):>12}" for key, value in result["reliability"].items()]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}".removesuffix(".0000")


def score_case(job: Job) -> dict[str, Any]:
    """Score one case; a missing or broken prediction gets the worst values.

    Returns:
        The case's entry of `cases` in metrics.json.

    Raises:
        InputError: the case's truth is broken.
    """
    case: dict[str, Any] = {"case": job.truth.case, "subject_id": job.truth.subject_id}
    labels = read_labels(job.truth.mask_path)
    case |= {"n_frames": labels.n_frames, "runs": annotated_runs(labels)}
    case |= {"references_mm": list(job.truth.references_mm)}
    nothing = {"losses": nothing_answered(labels, job.truth.references_mm)}
    if job.prediction is None:
        return case | _worst("missing", f"no prediction for case {job.truth.case}") | nothing
    try:
        prediction = read_prediction(job.prediction, labels.shape)
    except PredictionError as error:
        return case | _worst("broken", str(error)) | nothing
    fan_mask = _fan_mask(job.fov_mask, labels.frame_shape)
    try:
        measured = metrics.case_metrics(
            labels,
            job.truth.references_mm,
            prediction.mask,
            prediction.frame,
            fan_mask=fan_mask,
            spacing_mm=SPACING_MM,
        )
    except ValueError as error:
        raise InputError(
            expected=f"truth of case {job.truth.case} and a field of view that fit each other",
            found=str(error),
            advice="check the truth's files and --fov-mask",
        ) from error
    lost = losses(
        labels,
        job.truth.references_mm,
        prediction.frame,
        measured,
        fan_mask=fan_mask,
        spacing_mm=SPACING_MM,
    )
    return case | _scored(labels, prediction, measured) | {"losses": lost}


def _scored(
    labels: Labels, prediction: Prediction, measured: metrics.CaseMetrics
) -> dict[str, Any]:
    undefined = ["undefined, reported as 0: " + ", ".join(measured.undefined)]
    return {
        "status": "scored",
        "frame": prediction.frame,
        "sweep": measured.sweep,
        "quality": labels.quality_of(prediction.frame).word,
        "ac_mm": measured.ac_mm,
        "reference_mm": measured.reference_mm,
        **measured.values,
        "score": metrics.score(*(measured.values[key] for key in SCORE_TERMS)),
        "NearestAnnotatedFrame": measured.nearest_frame,
        **prediction.claims,
        "warnings": [*prediction.warnings, *(undefined if measured.undefined else ())],
    }


def annotated_runs(labels: Labels) -> list[tuple[int, int, str]]:
    """Runs of equally good annotated frames as (first, last, quality), both ends included."""
    runs: list[tuple[int, int, str]] = []
    for frame in sorted(labels.frames):
        name = labels.quality_of(frame).word
        same_sweep = labels.sweep_of(frame) == labels.sweep_of(frame - 1)
        if runs and runs[-1][1:] == (frame - 1, name) and same_sweep:
            runs[-1] = (runs[-1][0], frame, name)
        else:
            runs.append((frame, frame, name))
    return runs


def _fan_mask(path: Path | None, shape: tuple[int, int]) -> np.ndarray:
    return CHALLENGE_FAN.mask(shape) if path is None else read_fan_mask(path)


def _worst(status: str, message: str) -> dict[str, Any]:
    return {
        "status": status,
        "frame": None,
        "sweep": None,
        "quality": "none",
        "ac_mm": None,
        "reference_mm": None,
        **metrics.WORST_VALUES,
        "score": 0.0,
        "NearestAnnotatedFrame": None,
        **dict.fromkeys(CLAIMS),
        "warnings": [f"{message}: scored as the worst"],
    }


def _totals(cases: Sequence[Mapping[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    values = np.array([[case[key] for key in SCORED_KEYS] for case in cases])
    ends = mean_intervals(values, [str(case["subject_id"]) for case in cases], seed=seed)
    intervals = [None] * len(SCORED_KEYS) if ends is None else ends.tolist()
    totals = metrics.aggregate(cases)
    return {
        key: {**totals[key], "ci95": interval}
        for key, interval in zip(SCORED_KEYS, intervals, strict=True)
    }


def _describe(options: ScoreOptions, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    notes = [
        note
        for folder in (options.predictions, options.truth)
        for name in PROVENANCE_FILES
        if (note := _read_note(folder / name))
    ]
    return {
        "predictions": str(options.predictions.resolve()),
        "truth": str(options.truth.resolve()),
        "fov_mask": None if options.fov_mask is None else str(options.fov_mask.resolve()),
        "spacing_mm": SPACING_MM,
        "allow_missing": options.allow_missing,
        "n_cases": len(cases),
        "n_subjects": len({case["subject_id"] for case in cases}),
        "bootstrap": {"over": RESAMPLED, "resamples": RESAMPLES, "seed": options.seed},
        "bundle_id": next((note["bundle_id"] for note in notes if "bundle_id" in note), None),
        "simulated": (options.truth / SIMULATED).is_file()
        or any(note.get("simulated") is True for note in notes),
    }


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = files.read_json(path)
    except InputError:
        return {}
    return note if isinstance(note, dict) else {}


def _only(
    names: tuple[str, ...] | None, truth: dict[str, TruthCase], folder: Path
) -> dict[str, TruthCase]:
    if names is None:
        return truth
    unknown = [name for name in names if name not in truth]
    if unknown:
        raise InputError(
            expected=f"truth of case {unknown[0]} in {folder}",
            found="none",
            advice="name cases as their files are named, without .mha",
        )
    return {name: truth[name] for name in names}


def _with_subjects(truth: dict[str, TruthCase], path: Path | None) -> dict[str, TruthCase]:
    if path is None:
        return truth
    subjects = read_subjects(path)
    nameless = [case for case in truth if case not in subjects]
    if nameless:
        raise InputError(
            expected=f"the subject of case {nameless[0]} in {path}",
            found="no such line",
            advice="list every case",
        )
    return {
        name: TruthCase(name, subjects[name], case.mask_path, case.references_mm, case.image_path)
        for name, case in truth.items()
    }


def _refuse_surplus(surplus: set[str]) -> None:
    if surplus:
        raise InputError(
            expected="a prediction for every case with truth and for no other",
            found=f"{len(surplus)} without truth: {', '.join(sorted(surplus)[:5])}",
            advice="remove them, or give the truth that they belong to",
        )


def _refuse_missing(missing: set[str]) -> None:
    if missing:
        raise PredictionError(
            expected="a prediction for every case with truth",
            found=f"none for {len(missing)}: {', '.join(sorted(missing)[:5])}",
            advice="run these cases, or score them as the worst with --allow-missing",
        )


def _refuse_broken(broken: Sequence[Mapping[str, Any]]) -> None:
    if broken:
        raise PredictionError(
            expected="a whole prediction for every case",
            found=f"{len(broken)} broken: {', '.join(case['case'] for case in broken[:5])}",
            advice=f"the first: {broken[0]['warnings'][0]}",
        )
