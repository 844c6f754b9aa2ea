"""The benchmark's pictures: F1 with intervals, precision-recall, scores along sweeps, embeddings.

Each is drawn from the predictions of the trials, the last three of trial 0 alone.
"""

from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import precision_recall_curve

from acouslic import files
from acouslic.challenge import Quality
from acouslic.stack import sweep_slices
from benchmark.frames import FrameTable
from benchmark.summary import Trial, read_trials, trial_folder
from benchmark.trial import EMBEDDINGS

DPI = 110
SHOWN_SWEEPS = 3
COLUMNS = 4
TITLE_WIDTH = 18
QUALITY_COLOURS = ("#9aa5b1", "#e08e0b", "#1a7f37")
# Okabe and Ito's colours, which colour-blind readers tell apart, then two more; lines by turns.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#b8a800",
    "#7b4fa3", "#8c564b",
)  # fmt: skip
LINES = ("-", "--", ":")


def draw_plots(
    output: Path, summaries: dict[str, Any], test: FrameTable, caption: str
) -> list[str]:
    """Draw what there is data for; returns the files' names."""
    first = {name: read_trials(output, name)[0] for name in summaries}
    titles = {name: fill(each["title"], TITLE_WIDTH) for name, each in summaries.items()}
    figures = {
        "f1.png": _f1(summaries, titles),
        "precision_recall.png": _precision_recall(first, titles, test),
        "sweep_scores.png": _sweep_scores(first, titles, test),
        "embeddings.png": _embeddings(output, titles),
    }
    for name, figure in figures.items():
        figure.supxlabel(caption, fontsize=8, color="#54606e")
        with files.new_file(output / name) as partial:
            figure.savefig(partial, dpi=DPI)
    return list(figures)


def _figure(width: float, height: float, *, by_hand: bool = False) -> Figure:
    figure = Figure(figsize=(width, height), layout=None if by_hand else "constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(number: int) -> dict[str, Any]:
    turn = number // len(COLOURS)
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[turn % len(LINES)]}


def _f1(summaries: dict[str, Any], titles: dict[str, str]) -> Figure:
    """Mean F1 with its interval, each trial, and the published figure."""
    figure = _figure(8, 1.6 + 0.42 * len(summaries))
    axes = figure.subplots()
    for row, summary in enumerate(summaries.values()):
        mean, ends = summary["mean"]["f1"], summary["interval"]["f1"]
        trials = [trial["f1"] for trial in summary["trials"]]
        first = row == 0
        axes.plot(ends, [row, row], color="#0072b2", lw=2, label="95 % over subjects" * first)
        axes.plot(trials, [row] * len(trials), "|", color="#54606e", ms=9, label="trial" * first)
        axes.plot(mean, row, "o", color="#0072b2", label="mean" * first)
        if summary["published"] is not None:
            axes.plot(
                summary["published"]["f1"], row, "D", mfc="none", color="#d55e00",
                label="paper, real data" * first,
            )  # fmt: skip
    axes.set_yticks(range(len(titles)), list(titles.values()))
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("F1, annotated or not")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _precision_recall(first: dict[str, Trial], titles: dict[str, str], test: FrameTable) -> Figure:
    figure = _figure(8.5, 5.5)
    axes = figure.subplots()
    labels = test.quality > 0
    for number, (name, trial) in enumerate(first.items()):
        precision, recall, _ = precision_recall_curve(labels, trial.score)
        axes.step(recall, precision, where="post", label=titles[name], **_style(number))
    axes.axhline(labels.mean(), color="#9aa5b1", lw=1)
    axes.annotate("prevalence", (0.01, labels.mean()), va="bottom", color="#54606e", fontsize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _sweep_scores(first: dict[str, Trial], titles: dict[str, str], test: FrameTable) -> Figure:
    """What each system says along the test sweeps with most annotated frames, one row a system."""
    sweeps = _shown_sweeps(test)
    height = 1.2 + 0.95 * len(first)
    # Laid out by hand: matplotlib's own layout takes a minute for this many axes.
    figure = _figure(1.4 + 3.8 * len(sweeps), height, by_hand=True)
    figure.subplots_adjust(
        left=1.3 / figure.get_figwidth(), right=0.985, top=1 - 0.35 / height, bottom=0.75 / height
    )
    grid = figure.subplots(len(first), len(sweeps), sharex="col", sharey=True, squeeze=False)
    for row, (name, trial) in enumerate(first.items()):
        for column, rows in enumerate(sweeps):
            axes = grid[row, column]
            _shade(axes, test, rows)
            seen = rows[test.row[rows] >= 0]
            axes.plot(test.number[seen], trial.quality[seen], color="#0072b2", lw=1.3)
            axes.set_ylim(-0.03, 1.03)
            if row == 0:
                case = test.cache.cases[int(test.case[rows[0]])].facts.uuid
                axes.set_title(f"case {case[:8]}", fontsize=9)
        grid[row, 0].set_ylabel(titles[name], rotation=0, ha="right", va="center", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("frame of the stack; orange suboptimal, green optimal", fontsize=8)
    return figure


def _shown_sweeps(test: FrameTable) -> list[np.ndarray]:
    """Rows of the sweeps that have most annotated frames, of different cases."""
    best: list[tuple[int, np.ndarray]] = []
    for number, case in enumerate(test.cache.cases):
        rows = np.flatnonzero(test.case == number)
        parts = [
            rows[(test.number[rows] >= sweep.start) & (test.number[rows] < sweep.stop)]
            for sweep in sweep_slices(case.facts.n_frames)
        ]
        counted = [(int(np.count_nonzero(test.quality[part])), part) for part in parts if len(part)]
        if counted:
            best.append(max(counted, key=lambda each: each[0]))
    best.sort(key=lambda each: -each[0])
    return [part for _, part in best[:SHOWN_SWEEPS]]


def _shade(axes: Axes, test: FrameTable, rows: np.ndarray) -> None:
    for quality in (1, 2):
        mine = test.quality[rows] == quality
        colour = QUALITY_COLOURS[quality]
        axes.fill_between(
            test.number[rows], 0, 1, where=mine, step="mid", color=colour, alpha=0.3, lw=0
        )


def _embeddings(output: Path, titles: dict[str, str]) -> Figure:
    """Test frames on the two first principal components of each system's features."""
    rows = -(-len(titles) // COLUMNS)
    figure = _figure(3.1 * min(COLUMNS, len(titles)), 3.0 * rows + 0.6)
    grid = figure.subplots(rows, min(COLUMNS, len(titles)), squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, title) in zip(grid, titles.items(), strict=False):
        path = trial_folder(output, name, 0) / EMBEDDINGS
        if path.is_file():
            with np.load(path) as arrays:
                _scatter(axes, arrays["embeddings"], arrays["quality"], title)
    handles = [
        grid[0].plot([], [], "o", ms=5, color=colour, label=quality.word)[0]
        for quality, colour in zip(Quality, QUALITY_COLOURS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _scatter(axes: Axes, embeddings: np.ndarray, quality: np.ndarray, title: str) -> None:
    if len(embeddings) < 2:
        return
    points = PCA(2).fit_transform(embeddings)
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for each, colour in enumerate(QUALITY_COLOURS):
        mine = quality == each
        axes.scatter(points[mine, 0], points[mine, 1], s=6, color=colour, alpha=0.6, lw=0)
    axes.set_title(title, fontsize=9)
