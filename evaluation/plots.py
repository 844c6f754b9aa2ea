"""The report's plots, each as the text of an SVG element that goes into the page."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acouslic.challenge import SWEEPS

Case = Mapping[str, Any]

# Limits of agreement between two observers measuring the AC by hand, as the literature has them.
INTER_OBSERVER_PERCENT = 8.8
NORMAL_95 = 1.96
PREDICTED, TRUE, QUIET = "#c2410c", "#0f766e", "#64748b"
QUALITY_COLOURS = {"optimal": "#34d399", "suboptimal": "#fcd34d", "none": "#cbd5e1"}
QUALITY_NAMES = {
    "optimal": "optimal frame",
    "suboptimal": "suboptimal frame",
    "none": "not annotated",
}
WFSS_COLOURS = {1.0: "#34d399", 0.6: "#fcd34d", 0.0: "#f87171"}
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": "#334155",
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "font.size": 10.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": "#0f172a",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


def measured_cases(cases: Sequence[Case]) -> list[Case]:
    """Those with both a measured and a reference AC."""
    return [case for case in cases if case["ac_mm"] and case["reference_mm"]]


def agreement(cases: Sequence[Case], *, in_percent: bool) -> tuple[float, float, float]:
    """Bias and limits of agreement (bias -+ 1.96 SD) of measured minus reference AC.

    In mm, or in percent of the mean of both (Bland & Altman, Lancet 1986, 307-310). NaN where
    there are no two cases.
    """
    _, differences = _pairs(cases, in_percent=in_percent)
    if len(differences) < 2:
        return (float("nan"),) * 3
    bias, spread = float(differences.mean()), NORMAL_95 * float(differences.std(ddof=1))
    return bias, bias - spread, bias + spread


def bland_altman(cases: Sequence[Case], *, in_percent: bool) -> str:
    """Difference of measured and reference AC against their mean, with limits of agreement."""
    with _styled("agreement-percent" if in_percent else "agreement-mm"):
        means, differences = _pairs(cases, in_percent=in_percent)
        bias, lowest, highest = agreement(cases, in_percent=in_percent)
        unit = "%" if in_percent else "mm"
        figure, axes = _new()
        axes.scatter(means, differences, s=18, color=PREDICTED, alpha=0.7, linewidths=0)
        for value, style in ((bias, "-"), (lowest, "--"), (highest, "--")):
            if np.isfinite(value):
                axes.axhline(value, color="#334155", linestyle=style, linewidth=1)
                label = f"{value:+.1f} {unit}"
                axes.annotate(
                    label,
                    (1, value),
                    (3, 0),
                    ("axes fraction", "data"),
                    "offset points",
                    va="center",
                )
        if in_percent:
            axes.axhspan(
                -INTER_OBSERVER_PERCENT,
                INTER_OBSERVER_PERCENT,
                color=TRUE,
                alpha=0.12,
                linewidth=0,
                label=f"two observers, literature: ±{INTER_OBSERVER_PERCENT} %",
            )
            axes.legend(loc="upper left", fontsize=9.5)
            axes.margins(y=0.15)
        axes.set_xlabel("mean of measured and reference AC (mm)")
        axes.set_ylabel(f"measured − reference ({unit})")  # noqa: RUF001
        axes.set_title(f"Agreement in {unit}")
        return _svg(figure)


def error_by_size(cases: Sequence[Case]) -> str:
    """Absolute error of the AC against the reference, coloured by the chosen frame's quality."""
    with _styled("error-by-size"):
        figure, axes = _new()
        for quality, colour in QUALITY_COLOURS.items():
            chosen = [case for case in measured_cases(cases) if case["quality"] == quality]
            references = np.array([case["reference_mm"] for case in chosen])
            errors = np.abs(np.array([case["ac_mm"] for case in chosen]) - references)
            axes.scatter(
                references, errors, s=22, color=colour, edgecolors=QUIET, linewidths=0.5,
                label=f"{QUALITY_NAMES[quality]} ({len(chosen)})",
            )  # fmt: skip
        axes.set_xlabel("reference AC (mm)")
        axes.set_ylabel("absolute error (mm)")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9.5)
        axes.set_title("Error against size")
        return _svg(figure)


def wfss_by_sweep(cases: Sequence[Case]) -> str:
    """Mean WFSS of the cases that chose a frame of each sweep."""
    with _styled("wfss-by-sweep"):
        figure, axes = _new()
        for sweep in range(1, SWEEPS + 1):
            values = [case["wfss"] for case in cases if case["sweep"] == sweep]
            mean = float(np.mean(values)) if values else 0.0
            axes.bar(sweep, mean, width=0.7, color="#93c5fd")
            axes.annotate(
                f"n = {len(values)}", (sweep, mean), (0, 3), "data", "offset points", ha="center"
            )
        axes.set_ylim(0, 1.12)
        axes.set_xticks(range(1, SWEEPS + 1))
        axes.set_xlabel("sweep of the chosen frame (1–3 transverse, 4–6 sagittal)")  # noqa: RUF001
        axes.set_ylabel("mean WFSS")
        axes.set_title("Frame selection by sweep")
        return _svg(figure)


def wfss_by_case(cases: Sequence[Case]) -> str:
    """Score of every case, best first, coloured by its WFSS."""
    with _styled("wfss-by-case"):
        figure, axes = _new()
        ordered = sorted(cases, key=lambda case: -float(case["score"]))
        for value, colour in WFSS_COLOURS.items():
            places = [k for k, case in enumerate(ordered, 1) if case["wfss"] == value]
            heights = [ordered[k - 1]["score"] for k in places]
            axes.bar(
                places, heights, width=0.85, color=colour, label=f"WFSS {value:g} ({len(places)})"
            )
        axes.set_ylim(0, 1.25)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        axes.set_xlabel("cases, best first")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("score of the case")
        axes.legend(ncols=3, loc="upper center", fontsize=9.5, columnspacing=1, handlelength=1)
        axes.set_title("Frame selection by case")
        return _svg(figure)


def sweep_curves(case: Case, scores: Sequence[float] | None) -> str:
    """The six sweeps' frame scores, annotated runs shaded, the chosen frame marked."""
    with _styled(str(case["case"])):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        half = case["n_frames"] // 2
        rows = figure.subplots(2, 1, sharey=True)
        for row, axes in enumerate(rows):
            _draw_sweeps(axes, case, scores, range(row * half, (row + 1) * half))
        rows[1].set_xlabel("frame")
        return _svg(figure)


def _draw_sweeps(axes: Axes, case: Case, scores: Sequence[float] | None, frames: range) -> None:
    length = case["n_frames"] // SWEEPS
    for first, last, quality in case["runs"]:
        if frames.start <= first < frames.stop:
            colour = QUALITY_COLOURS[quality]
            axes.axvspan(first - 0.5, last + 0.5, color=colour, alpha=0.6, linewidth=0)
    if scores is not None:
        for start in range(frames.start, frames.stop, length):
            part = np.arange(start, min(start + length, frames.stop))
            axes.plot(part, np.asarray(scores)[part], color="#1d4ed8", linewidth=1)
    if case["frame"] is not None and case["frame"] in frames:
        axes.axvline(case["frame"], color=PREDICTED, linewidth=1.6)
    for sweep, start in enumerate(range(frames.start, frames.stop, length)):
        number = frames.start // length + sweep + 1
        axes.annotate(f"sweep {number}", (start, 1), (2, 1), ("data", "axes fraction"),
                      "offset points", color=QUIET)  # fmt: skip
    axes.set_xlim(frames.start - 0.5, frames.stop - 0.5)
    axes.set_xticks(range(frames.start, frames.stop, max(length // 2, 1)))
    axes.grid(axis="x", color="#e2e8f0")
    highest = 1.0 if scores is None else max(1.0, max(scores))
    axes.set_ylim(min(0.0, *(scores or [0.0])), 1.05 * highest)
    axes.set_ylabel("score")


def _pairs(cases: Sequence[Case], *, in_percent: bool) -> tuple[np.ndarray, np.ndarray]:
    measured = measured_cases(cases)
    found = np.array([case["ac_mm"] for case in measured], dtype=float)
    reference = np.array([case["reference_mm"] for case in measured], dtype=float)
    means, differences = (found + reference) / 2, found - reference
    return means, 100 * differences / means if in_percent else differences


@contextmanager
def _styled(name: str) -> Iterator[None]:
    """The page's look; `name` keeps the identifiers inside one SVG apart from those of others."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        yield


def _new() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.5), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]
