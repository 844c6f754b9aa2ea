"""The benchmark's pictures: F1 with intervals, precision-recall, scores along sweeps, embeddings.

All are drawn from the trials' predictions on the test frames; the last three show trial 0 alone.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import precision_recall_curve

from acouslic.challenge import Quality
from acouslic.stack import sweep_slices
from benchmark.frames import FrameTable
from benchmark.marks import STAND_IN
from benchmark.summary import Trial, read_trials, trial_folder
from benchmark.table import title
from benchmark.trial import EMBEDDINGS
from evaluation import style

SHOWN_SWEEPS = 3
# Panels of embeddings in a row.
COLUMNS = 4
# Letters of a system's title in a line.
TITLE_WIDTH = 20
SMALL_PT, TINY_PT = 9, 8
PLOTS: Mapping[str, str] = {
    "f1.png": "F1 of every system, with trials and interval",
    "precision_recall.png": "Precision and recall",
    "sweep_scores.png": "Scores along three sweeps",
    "embeddings.png": "Features of test frames",
}


def draw_plots(
    output: Path, summaries: dict[str, Any], test: FrameTable, caption: str
) -> Mapping[str, str]:
    """Draw all plots of the systems that have a finished trial.

    Args:
        output: the benchmark's folder, where the plots go.
        summaries: `systems` of results.json.
        test: the test frames.
        caption: a line below each plot.

    Returns:
        The plots' file names with their titles.
    """
    first = {name: read_trials(output, name)[0] for name in summaries}
    titles = {name: fill(title(summary), TITLE_WIDTH) for name, summary in summaries.items()}
    with style.styled():
        figures = (
            _f1(summaries, titles),
            _precision_recall(first, titles, test),
            _sweep_scores(first, titles, test),
            _embeddings(output, titles),
        )
        for name, figure in zip(PLOTS, figures, strict=True):
            figure.supxlabel(caption, fontsize=TINY_PT, color=style.QUIET)
            style.write_png(figure, output / name)
    return PLOTS


def _f1(summaries: dict[str, Any], titles: dict[str, str]) -> Figure:
    """Mean F1 with its interval, each trial, and the published figure of what is no stand-in."""
    figure = style.new_figure(8, 1.6 + 0.42 * len(summaries))
    axes = figure.subplots()
    for row, summary in enumerate(summaries.values()):
        trials = [trial["f1"] for trial in summary["trials"]]
        # A label once: the legend has one entry a kind.
        if summary["interval"]["f1"] is not None:
            axes.plot(
                summary["interval"]["f1"], [row, row], color=style.BLUE, lw=2.5,
                label="95 % over subjects" * (row == 0),
            )  # fmt: skip
        axes.plot(
            trials, [row] * len(trials), "|", color=style.TEXT, ms=9, label="trial" * (row == 0)
        )
        axes.plot(summary["mean"]["f1"], row, "o", color=style.BLUE, label="mean" * (row == 0))
    papers = [
        (summary["published"]["f1"], row)
        for row, summary in enumerate(summaries.values())
        if summary["published"] is not None and STAND_IN not in summary["marks"]
    ]
    if papers:
        axes.plot(*np.array(papers).T, "D", mfc="none", color=style.RED, label="paper, real data")
    axes.set_yticks(range(len(titles)), list(titles.values()))
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("F1, annotated or not")
    axes.grid(axis="x")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _precision_recall(first: dict[str, Trial], titles: dict[str, str], test: FrameTable) -> Figure:
    figure = style.new_figure(8.5, 5.5)
    axes = figure.subplots()
    labels = test.quality > 0
    for number, (name, trial) in enumerate(first.items()):
        precision, recall, _ = precision_recall_curve(labels, trial.score)
        axes.step(recall, precision, where="post", label=titles[name], **style.series_style(number))
    axes.axhline(labels.mean(), color=style.QUIET, lw=1, ls=(0, (2, 3)))
    axes.annotate(
        "share of annotated frames", (0.99, labels.mean()), (0, 3), textcoords="offset points",
        ha="right", va="bottom", color=style.QUIET, fontsize=SMALL_PT,
    )  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid()
    figure.legend(loc="outside right upper")
    return figure


def _sweep_scores(first: dict[str, Trial], titles: dict[str, str], test: FrameTable) -> Figure:
    """Each system's scores along the test sweeps with most annotated frames, one row a system."""
    sweeps = _shown_sweeps(test)
    height_in = 1.2 + 0.95 * len(first)
    # Placed by hand: matplotlib's own layout takes a minute for this many axes.
    figure = style.new_figure(1.4 + 3.8 * len(sweeps), height_in, by_hand=True)
    figure.subplots_adjust(
        left=1.3 / figure.get_figwidth(),
        right=0.985,
        top=1 - 0.35 / height_in,
        bottom=0.75 / height_in,
    )
    grid = figure.subplots(len(first), len(sweeps), sharex="col", sharey=True, squeeze=False)
    for row, (name, trial) in enumerate(first.items()):
        for axes, rows in zip(grid[row], sweeps, strict=True):
            _draw_sweep(axes, trial, test, rows)
        grid[row, 0].set_ylabel(titles[name], rotation=0, ha="right", va="center", fontsize=TINY_PT)
    for axes, rows in zip(grid[0], sweeps, strict=True):
        case = test.cache.cases[int(test.case[rows[0]])].facts.uuid
        axes.set_title(f"case {case[:8]}", fontsize=SMALL_PT)
    for axes in grid[-1]:
        axes.set_xlabel("frame of the stack; orange suboptimal, green optimal", fontsize=TINY_PT)
    return figure


def _shown_sweeps(test: FrameTable) -> list[np.ndarray]:
    """Rows of the sweeps that have most annotated frames, of different cases."""
    best: list[tuple[int, np.ndarray]] = []
    for number, case in enumerate(test.cache.cases):
        rows = np.flatnonzero(test.case == number)
        sweeps = [
            rows[(test.number[rows] >= sweep.start) & (test.number[rows] < sweep.stop)]
            for sweep in sweep_slices(case.facts.n_frames)
        ]
        counted = [
            (int(np.count_nonzero(test.quality[sweep])), sweep) for sweep in sweeps if len(sweep)
        ]
        if counted:
            best.append(max(counted, key=lambda pair: pair[0]))
    best.sort(key=lambda pair: -pair[0])
    return [rows for _, rows in best[:SHOWN_SWEEPS]]


def _draw_sweep(axes: Axes, trial: Trial, test: FrameTable, rows: np.ndarray) -> None:
    """A system's score of each frame that shows tissue, over the annotated frames."""
    for quality in (Quality.SUBOPTIMAL, Quality.OPTIMAL):
        axes.fill_between(
            test.number[rows], 0, 1, where=test.quality[rows] == quality, step="mid",
            color=style.QUALITY_COLOURS[quality], alpha=style.SHADE_ALPHA, lw=0,
        )  # fmt: skip
    tissue = rows[test.row[rows] >= 0]
    axes.plot(test.number[tissue], trial.quality[tissue], color=style.BLUE, lw=1.3)
    axes.set_ylim(-0.03, 1.03)


def _embeddings(output: Path, titles: dict[str, str]) -> Figure:
    """Test frames on the two first principal components of each system's features."""
    rows = -(-len(titles) // COLUMNS)
    columns = min(COLUMNS, len(titles))
    figure = style.new_figure(3.1 * columns, 3.0 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, named) in zip(grid, titles.items(), strict=False):
        path = trial_folder(output, name, 0) / EMBEDDINGS
        if path.is_file():
            with np.load(path) as arrays:
                _scatter(axes, arrays["embeddings"], arrays["quality"], named)
    handles = [
        grid[0].plot([], [], "o", ms=5, color=style.QUALITY_COLOURS[quality], label=quality.word)[0]
        for quality in Quality
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _scatter(axes: Axes, embeddings: np.ndarray, quality: np.ndarray, named: str) -> None:
    if len(embeddings) < 2:
        return
    points = PCA(2).fit_transform(embeddings)
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for kind in Quality:
        of_kind = points[quality == kind]
        colour = style.QUALITY_COLOURS[kind]
        axes.scatter(of_kind[:, 0], of_kind[:, 1], s=7, color=colour, alpha=0.7, lw=0)
    axes.set_title(named, fontsize=SMALL_PT)
