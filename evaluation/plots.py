"""The report's plots: each function returns the text of an SVG element for the page.

A case is an entry of `cases` in metrics.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from acouslic.challenge import SWEEPS, Quality
from evaluation import style
from evaluation.reliability import bins, risk_coverage

Case = Mapping[str, Any]

# 95 % limits of agreement between two people who measure one AC by hand, as the challenge's report
# gives them from the literature (Sappia et al., Med. Image Anal. 2025, 103640).
INTER_OBSERVER_PERCENT = 8.8
# 95 % of a normal distribution lie within so many standard deviations.
NORMAL_95 = 1.96
QUALITY_NAMES: Mapping[Quality, str] = {
    Quality.OPTIMAL: "optimal frame",
    Quality.SUBOPTIMAL: "suboptimal frame",
    Quality.NONE: "not annotated",
}
WFSS_COLOURS: Mapping[float, str] = {
    Quality.OPTIMAL.value_in_score: style.QUALITY_COLOURS[Quality.OPTIMAL],
    Quality.SUBOPTIMAL.value_in_score: style.QUALITY_COLOURS[Quality.SUBOPTIMAL],
    Quality.NONE.value_in_score: style.RED,
}
# So that letters are about as large as the page's text where three stand in a row, or one on a
# telephone.
PLOT_SIZE_IN = (4.8, 3.4)
CURVES_SIZE_IN = (6.2, 3.0)


def measured_cases(cases: Sequence[Case]) -> list[Case]:
    """Those with both a measured and a reference AC."""
    return [case for case in cases if case["ac_mm"] and case["reference_mm"]]


def agreement(cases: Sequence[Case], *, in_percent: bool) -> tuple[float, float, float]:
    """Bias and limits of agreement (bias -+ 1.96 SD) of measured minus reference AC.

    Args:
        cases: all cases; those without a measured or a reference AC are left out.
        in_percent: in percent of the mean of both (Bland & Altman, Lancet 1986, 307-310), not mm.

    Returns:
        Bias, lower and upper limit; NaN where there are no two cases.
    """
    _, differences = _pairs(cases, in_percent=in_percent)
    if len(differences) < 2:
        return (float("nan"),) * 3
    bias, spread = float(differences.mean()), NORMAL_95 * float(differences.std(ddof=1))
    return bias, bias - spread, bias + spread


def bland_altman(cases: Sequence[Case], *, in_percent: bool) -> str:
    """Difference of measured and reference AC against their mean, with limits of agreement."""
    unit = "%" if in_percent else "mm"
    with style.styled("agreement-percent" if in_percent else "agreement-mm"):
        means, differences = _pairs(cases, in_percent=in_percent)
        figure, axes = _new_plot(f"Agreement in {unit}")
        if in_percent:
            _shade_inter_observer(axes)
        axes.scatter(means, differences, s=22, color=style.BLUE, alpha=0.75, linewidths=0)
        bias, lowest, highest = agreement(cases, in_percent=in_percent)
        for value, line in ((bias, "-"), (lowest, "--"), (highest, "--")):
            if np.isfinite(value):
                _mark_height(axes, value, line, f"{value:+.1f} {unit}")
        axes.set_xlabel("mean of measured and reference AC (mm)")
        axes.set_ylabel(f"measured − reference ({unit})")  # noqa: RUF001
        return style.to_svg(figure)


def error_by_size(cases: Sequence[Case]) -> str:
    """Absolute error of the AC against the reference, coloured by the chosen frame's quality."""
    with style.styled("error-by-size"):
        figure, axes = _new_plot("Error against size")
        for quality, colour in style.QUALITY_COLOURS.items():
            of_quality = [c for c in measured_cases(cases) if c["quality"] == quality.word]
            references = np.array([case["reference_mm"] for case in of_quality])
            errors = np.abs(np.array([case["ac_mm"] for case in of_quality]) - references)
            label = f"{QUALITY_NAMES[quality]} ({len(of_quality)})"
            axes.scatter(
                references, errors, s=26, color=colour, edgecolors=style.TEXT, linewidths=0.5,
                label=label,
            )  # fmt: skip
        axes.set_xlabel("reference AC (mm)")
        axes.set_ylabel("absolute error (mm)")
        axes.set_ylim(bottom=0)
        axes.margins(y=0.1)
        axes.legend()
        return style.to_svg(figure)


def wfss_by_sweep(cases: Sequence[Case]) -> str:
    """Mean WFSS of the cases that chose a frame of each sweep."""
    with style.styled("wfss-by-sweep"):
        figure, axes = _new_plot("Frame selection by sweep")
        for sweep in range(1, SWEEPS + 1):
            values = [case["wfss"] for case in cases if case["sweep"] == sweep]
            mean = float(np.mean(values)) if values else 0.0
            axes.bar(sweep, mean, width=0.7, color=style.BLUE, alpha=0.8)
            axes.annotate(
                f"n = {len(values)}", (sweep, mean), (0, 3), "data", "offset points", ha="center",
                color=style.QUIET,
            )  # fmt: skip
        axes.set_ylim(0, 1.12)
        axes.set_xticks(range(1, SWEEPS + 1))
        axes.set_xlabel("sweep of the chosen frame (1–3 transverse, 4–6 sagittal)")  # noqa: RUF001
        axes.set_ylabel("mean WFSS")
        return style.to_svg(figure)


def reliability_diagram(cases: Sequence[Case]) -> str:
    """What answers claim against what came of it: confidence and score, p_annotated and truth."""
    with style.styled("reliability"):
        figure, axes = _new_plot("Do answers hold what they say?")
        axes.plot([0, 1], [0, 1], color=style.QUIET, linewidth=1, linestyle="--")
        claiming = [case for case in cases if case.get("confidence") is not None]
        for number, (claim, came, label) in enumerate(
            (
                ("confidence", [case["score"] for case in claiming], "confidence, score"),
                (
                    "p_annotated",
                    [float(case["quality"] != "none") for case in claiming],
                    "p_annotated, annotated",
                ),
            )
        ):
            claimed, outcome = np.array([case[claim] for case in claiming], float), np.array(came)
            inside = bins(claimed) if claiming else []
            points = [(claimed[k].mean(), outcome[k].mean(), k.sum()) for k in inside]
            x, y, count = np.array(points).T if points else np.zeros((3, 0))
            colour = style.SERIES[number]
            axes.plot(x, y, color=colour, linewidth=1)
            axes.scatter(x, y, s=14 + 4 * count, color=colour, alpha=0.75, label=label)
        axes.set_xlabel("claimed (mean of the cases of a bin)")
        axes.set_ylabel("came")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="upper left")
        return style.to_svg(figure)


def risk_by_coverage(cases: Sequence[Case]) -> str:
    """Mean loss of the surest cases against how many of them are kept."""
    with style.styled("risk-coverage"):
        figure, axes = _new_plot("Loss if unsure cases are left out")
        coverage, risk = risk_coverage(cases)
        axes.plot(coverage, risk, color=style.BLUE)
        axes.set_xlabel("share of cases kept, the surest first")
        axes.set_ylabel("mean of 1 − score")  # noqa: RUF001
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        return style.to_svg(figure)


def wfss_by_case(cases: Sequence[Case]) -> str:
    """Score of every case, best first, coloured by its WFSS."""
    with style.styled("wfss-by-case"):
        figure, axes = _new_plot("Frame selection by case")
        ordered = sorted(cases, key=lambda case: -float(case["score"]))
        names = []
        for value, colour in WFSS_COLOURS.items():
            places = [k for k, case in enumerate(ordered, 1) if case["wfss"] == value]
            heights = [ordered[k - 1]["score"] for k in places]
            axes.bar(places, heights, width=0.85, color=colour)
            # Named apart from the bars: where there are none, the name has its colour all the same.
            names.append(Patch(color=colour, label=f"WFSS {value:g} ({len(places)})"))
        axes.set_ylim(0, 1.25)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        axes.set_xlabel("cases, best first")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("score of the case")
        axes.legend(handles=names, ncols=3, loc="upper center", columnspacing=1, handlelength=1)
        return style.to_svg(figure)


def sweep_curves(case: Case, scores: Sequence[float] | None) -> str:
    """The six sweeps' frame scores, annotated runs shaded, the chosen frame marked.

    Args:
        case: with its `runs`, `frame` and `n_frames`.
        scores: one a frame of the stack; None draws the runs and the chosen frame alone.
    """
    with style.styled(str(case["case"])):
        figure = style.new_figure(*CURVES_SIZE_IN)
        half = case["n_frames"] // 2
        rows = figure.subplots(2, 1, sharey=True)
        for row, axes in enumerate(rows):
            frames = range(row * half, (row + 1) * half)
            _shade_runs(axes, case, frames)
            if scores is not None:
                _draw_scores(axes, scores, frames, case["n_frames"] // SWEEPS)
            if case["frame"] is not None and case["frame"] in frames:
                axes.axvline(case["frame"], color=style.PREDICTED, linewidth=1.8)
            _label_sweeps(axes, frames, case["n_frames"] // SWEEPS)
            axes.set_ylim(*_score_range(scores))
            axes.set_ylabel("score")
        rows[1].set_xlabel("frame")
        return style.to_svg(figure)


def _shade_inter_observer(axes: Axes) -> None:
    axes.axhspan(
        -INTER_OBSERVER_PERCENT,
        INTER_OBSERVER_PERCENT,
        color=style.GREEN,
        alpha=0.12,
        linewidth=0,
        label=f"two observers, literature: ±{INTER_OBSERVER_PERCENT} %",
    )
    axes.legend(loc="upper left")
    axes.margins(y=0.2)


def _mark_height(axes: Axes, value: float, line: str, label: str) -> None:
    axes.axhline(value, color=style.TEXT, linestyle=line, linewidth=1)
    axes.annotate(
        label, (1, value), (3, 0), ("axes fraction", "data"), "offset points", va="center"
    )


def _shade_runs(axes: Axes, case: Case, frames: range) -> None:
    for first, last, quality in case["runs"]:
        if first in frames:
            colour = style.QUALITY_COLOURS[Quality[quality.upper()]]
            axes.axvspan(
                first - 0.5, last + 0.5, color=colour, alpha=style.SHADE_ALPHA, linewidth=0
            )


def _draw_scores(axes: Axes, scores: Sequence[float], frames: range, length: int) -> None:
    """A curve for each sweep: sweeps are not joined."""
    for start in range(frames.start, frames.stop, length):
        sweep = np.arange(start, min(start + length, frames.stop))
        axes.plot(sweep, np.asarray(scores)[sweep], color=style.BLUE, linewidth=1.2)


def _label_sweeps(axes: Axes, frames: range, length: int) -> None:
    for start in range(frames.start, frames.stop, length):
        axes.annotate(
            f"sweep {start // length + 1}", (start, 1), (2, 1), ("data", "axes fraction"),
            "offset points", color=style.QUIET,
        )  # fmt: skip
    axes.set_xlim(frames.start - 0.5, frames.stop - 0.5)
    axes.set_xticks(range(frames.start, frames.stop, max(length // 2, 1)))
    axes.grid(axis="x")


def _score_range(scores: Sequence[float] | None) -> tuple[float, float]:
    """From 0 to 1, or further where a score lies outside."""
    if scores is None:
        return 0.0, 1.05
    return min(0.0, *scores), 1.05 * max(1.0, *scores)


def _pairs(cases: Sequence[Case], *, in_percent: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means and differences of measured and reference AC, (cases,) each."""
    both = measured_cases(cases)
    measured_mm = np.array([case["ac_mm"] for case in both], dtype=float)
    reference_mm = np.array([case["reference_mm"] for case in both], dtype=float)
    means, differences = (measured_mm + reference_mm) / 2, measured_mm - reference_mm
    return means, 100 * differences / means if in_percent else differences


def _new_plot(title: str) -> tuple[Figure, Axes]:
    figure = style.new_figure(*PLOT_SIZE_IN)
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes
