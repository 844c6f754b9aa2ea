"""The report's plots: each function returns the text of an SVG element for the page.

A case is an entry of `cases` in metrics.json.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from acouslic.challenge import SWEEPS, Quality
from evaluation import style
from evaluation.agreement import agreement, measured_cases, pairs
from evaluation.oracles import Loss
from evaluation.reliability import bins, risk_coverage
from evaluation.subgroups import Subgroup

if TYPE_CHECKING:
    from evaluation.leaderboard import Leaderboard

Case = Mapping[str, Any]

# 95 % limits of agreement between two people who measure one AC by hand, as the challenge's report
# gives them from the literature (Sappia et al., Med. Image Anal. 2025, 103640).
INTER_OBSERVER_PERCENT = 8.8
# Beside the colours, for readers who do not tell those apart.
QUALITY_MARKERS: Mapping[Quality, str] = {
    Quality.OPTIMAL: "o",
    Quality.SUBOPTIMAL: "s",
    Quality.NONE: "X",
}
QUALITY_NAMES: Mapping[Quality, str] = {
    Quality.OPTIMAL: "optimal frame",
    Quality.SUBOPTIMAL: "suboptimal frame",
    Quality.NONE: "not annotated",
}
WFSS_HATCHES = ("", "//", "xx")
WFSS_COLOURS: Mapping[float, str] = {
    Quality.OPTIMAL.value_in_score: style.QUALITY_COLOURS[Quality.OPTIMAL],
    Quality.SUBOPTIMAL.value_in_score: style.QUALITY_COLOURS[Quality.SUBOPTIMAL],
    Quality.NONE.value_in_score: style.RED,
}
# So that letters are about as large as the page's text where three stand in a row, or one on a
# telephone.
PLOT_SIZE_IN = (4.8, 3.4)
# Light to dark, so that ranks are told apart without their colours.
RANK_COLOURS = mpl.colormaps["Blues"]
# A narrower bar has no room for its rank.
LEAST_NAMED_SHARE = 0.06
# Of one sweep in the plot of a case; the page scales it, so only their ratio matters.
PANEL_WIDTH, PANEL_HEIGHT, PANEL_GAP = 140, 84, 8


def bland_altman(cases: Sequence[Case], *, in_percent: bool) -> str:
    """Difference of measured and reference AC against their mean, with limits of agreement."""
    unit = "%" if in_percent else "mm"
    with style.styled("agreement-percent" if in_percent else "agreement-mm"):
        means, differences = pairs(cases, in_percent=in_percent)
        figure, axes = _new_plot(f"Agreement in {unit}")
        if in_percent:
            _shade_inter_observer(axes)
        axes.scatter(means, differences, s=22, color=style.BLUE, alpha=0.75, linewidths=0)
        agreed = agreement(cases, in_percent=in_percent)
        if agreed is not None:
            for value, ends, line in (
                (agreed.bias, agreed.bias_ci95, "-"),
                (agreed.low, agreed.low_ci95, "--"),
                (agreed.high, agreed.high_ci95, "--"),
            ):
                if ends is not None:
                    axes.axhspan(*ends, color=style.QUIET, alpha=0.12, linewidth=0)
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
                references, errors, s=30, color=colour, marker=QUALITY_MARKERS[quality],
                edgecolors=style.TEXT, linewidths=0.5, label=label,
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
            axes.plot(x, y, color=colour, linewidth=1, linestyle=style.LINE_STYLES[number])
            axes.scatter(
                x, y, s=14 + 4 * count, color=colour, marker="os"[number], alpha=0.75, label=label
            )
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
        for (value, colour), hatch in zip(WFSS_COLOURS.items(), WFSS_HATCHES, strict=True):
            places = [k for k, case in enumerate(ordered, 1) if case["wfss"] == value]
            heights = [ordered[k - 1]["score"] for k in places]
            axes.bar(
                places, heights, width=0.85, color=colour, hatch=hatch, edgecolor=style.PAPER,
                linewidth=0,
            )  # fmt: skip
            # Named apart from the bars: where there are none, the name has its colour all the same.
            label = f"WFSS {value:g} ({len(places)})"
            names.append(
                Patch(
                    facecolor=colour, hatch=hatch, edgecolor=style.PAPER, linewidth=0, label=label
                )
            )
        axes.set_ylim(0, 1.25)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        axes.set_xlabel("cases, best first")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("score of the case")
        axes.legend(handles=names, ncols=3, loc="upper center", columnspacing=1, handlelength=1)
        return style.to_svg(figure)


def losses_by_stage(losses: Sequence[Loss], score: float) -> str:
    """From the mean score to the best that could be had: what each oracle gains, step by step."""
    with style.styled("losses"):
        lost = [loss for loss in losses if loss.mean or loss.stage != "answer"]
        names = ["as answered", *(loss.stage for loss in lost)]
        figure, axes = _rows("From the score to a perfect one", names)
        at = score
        _name_end(axes, 0, at, f"{score:.3f}")
        for row, loss in enumerate(lost, 1):
            axes.plot([at, at], [row - 1, row], color=style.QUIET, linewidth=0.8, zorder=0.9)
            axes.barh(row, loss.mean, left=at, height=0.6, color=style.RED)
            at += loss.mean
            _name_end(axes, row, at, f"{loss.mean:+.3f}")
        axes.plot([score, at], [0, len(lost)], "o", color=style.BLUE, markersize=6)
        # Room for the first and the last number, on an axis that need not begin at 0: what counts
        # is the bars' length.
        room = max(0.28 * (at - score), 0.002)
        axes.set_xlim(score - room / 2, at + room)
        axes.set_xlabel("mean score")
        axes.grid(axis="x")
        return style.to_svg(figure)


def score_by_subgroup(subgroups: Sequence[Subgroup], score: float) -> str:
    """Mean score of every subgroup with its interval; the line is all cases' mean."""
    with style.styled("subgroups"):
        names = [f"{group.name} ({group.n_cases})" for group in subgroups]
        figure, axes = _rows("Score by subgroup", names)
        axes.axvline(score, color=style.QUIET, linewidth=1, linestyle="--")
        for row, group in enumerate(subgroups):
            if group.ci95 is not None:
                axes.plot(group.ci95, [row, row], color=style.BLUE, linewidth=2.5)
            axes.plot(group.means["score"], row, "o", color=style.BLUE, markersize=6)
        axes.set_xlabel("mean score and its 95 % interval")
        axes.grid(axis="x")
        return style.to_svg(figure)


def scores_of_runs(board: "Leaderboard") -> str:
    """Mean score of every run with its interval."""
    with style.styled("runs"):
        figure, axes = _rows("Score", [run.name for run in board.standings])
        for row, run in enumerate(board.standings):
            if run.ci95 is not None:
                axes.plot(run.ci95, [row, row], color=style.BLUE, linewidth=2.5)
            axes.plot(run.score, row, "o", color=style.BLUE, markersize=6)
        axes.set_xlabel("mean score and its 95 % interval")
        axes.grid(axis="x")
        return style.to_svg(figure)


def ranks_of_runs(board: "Leaderboard") -> str:
    """How often each run has each rank, over resamples of the subjects."""
    with style.styled("ranks"):
        figure, axes = _rows("Rank over resamples", [run.name for run in board.standings])
        shades = [RANK_COLOURS(1 - k / len(board.standings)) for k in range(len(board.standings))]
        for row, run in enumerate(board.standings):
            left = 0.0
            for rank, share in enumerate(run.ranks or (), 1):
                axes.barh(row, share, left=left, height=0.62, color=shades[rank - 1])
                if share >= LEAST_NAMED_SHARE:
                    dark = sum(shades[rank - 1][:3]) < 1.5
                    axes.annotate(
                        f"{rank}.", (left + share / 2, row), ha="center", va="center",
                        color=style.PAPER if dark else style.INK,
                    )  # fmt: skip
                left += share
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of resamples with rank 1, 2, …")
        return style.to_svg(figure)


def _rows(title: str, names: Sequence[str]) -> tuple[Figure, Axes]:
    """A plot with a named row for each of several things, the first on top."""
    figure = style.new_figure(PLOT_SIZE_IN[0], 1.3 + 0.36 * len(names))
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return figure, axes


def sweep_curves(case: Case, scores: Sequence[float] | None) -> str:
    """The six sweeps' frame scores, annotated runs shaded, the chosen frame marked.

    It is written by hand and not by matplotlib, which takes ten times the room: a page has one for
    every case.

    Args:
        case: with its `runs`, `frame` and `n_frames`.
        scores: one a frame of the stack; None draws the runs and the chosen frame alone.
    """
    length = case["n_frames"] // SWEEPS
    panels = []
    for sweep in range(SWEEPS):
        column, row = sweep % 3, sweep // 3
        left, top = column * (PANEL_WIDTH + PANEL_GAP), row * (PANEL_HEIGHT + PANEL_GAP)
        inside = _panel(case, scores, range(sweep * length, (sweep + 1) * length))
        panels.append(f'<g transform="translate({left} {top})">{inside}</g>')
    width = 3 * PANEL_WIDTH + 2 * PANEL_GAP
    height = 2 * PANEL_HEIGHT + PANEL_GAP
    name = "scores along the six sweeps" if scores else "annotated frames of the six sweeps"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f"{''.join(panels)}</svg>"
    )


def _panel(case: Case, scores: Sequence[float] | None, frames: range) -> str:
    """One sweep's scores, as SVG in a box of PANEL_WIDTH x PANEL_HEIGHT."""
    step = PANEL_WIDTH / len(frames)
    box = f'<rect width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" class="panel"/>'
    runs = [
        f'<rect x="{(first - frames.start) * step:.1f}" width="{(last - first + 1) * step:.1f}" '
        f'height="{PANEL_HEIGHT}" class="run {quality}"/>'
        for first, last, quality in case["runs"]
        if first in frames
    ]
    drawn = "" if scores is None else _curve([scores[frame] for frame in frames], step)
    chosen = ""
    if case["frame"] is not None and case["frame"] in frames:
        x = f"{(case['frame'] - frames.start + 0.5) * step:.1f}"
        chosen = f'<path d="M{x} 0V{PANEL_HEIGHT}" class="chosen"/>'
        chosen += f'<path d="M{x} 8l-5 -8h10z" class="head"/>'
    number = frames.start // len(frames) + 1
    return f'{box}{"".join(runs)}{drawn}{chosen}<text x="4" y="13">{number}</text>'


def _curve(scores: Sequence[float], step: float) -> str:
    """A line through the scores; points on a level stretch are left out."""
    y = [round(PANEL_HEIGHT * (1 - min(max(score, 0.0), 1.0)), 1) for score in scores]
    kept = [k for k in range(len(y)) if k in (0, len(y) - 1) or not y[k - 1] == y[k] == y[k + 1]]
    points = "L".join(f"{(k + 0.5) * step:.1f} {y[k]:g}" for k in kept)
    return f'<path d="M{points}" class="scores"/>'


def _name_end(axes: Axes, row: float, end: float, text: str) -> None:
    axes.annotate(text, (end, row), (7, 0), textcoords="offset points", va="center")


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


def _new_plot(title: str) -> tuple[Figure, Axes]:
    figure = style.new_figure(*PLOT_SIZE_IN)
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes
