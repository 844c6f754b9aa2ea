"""A run's curves as a picture: losses above, held-out cases below, over optimiser steps."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from acouslic import files
from training.runs import read_history

CURVES = "curves.png"
PANELS = {"loss": "loss", "validation": "held-out cases"}


def draw_curves(folder: Path) -> Path:
    """Draw `folder`/history.csv into `folder`/curves.png and return its path."""
    rows = read_history(folder)
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PANELS), sharex=True)
    for axis, (group, title) in zip(axes, PANELS.items(), strict=True):
        for column in rows[0]:
            kind, _, name = column.partition("/")
            points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
            if kind == group and points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[-1].set_xlabel("optimiser steps")
    with files.new_file(folder / CURVES) as partial:
        figure.savefig(partial, dpi=110)
    return folder / CURVES
