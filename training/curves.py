"""A run's curves as a picture: losses above, whole-stack figures below, over optimiser steps."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.runs import read_history

CURVES = "curves.png"
PANELS = (
    ("loss", ("loss/total", "loss/dice", "loss/bce", "loss/quality")),
    (
        "held-out stacks",
        ("validation/score", "validation/wfss", "validation/dice_soft", "validation/nae"),
    ),
)


def draw_curves(folder: Path) -> Path:
    """Draw `folder`/history.csv into `folder`/curves.png and return its path."""
    rows = read_history(folder)
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PANELS), sharex=True)
    for axis, (title, columns) in zip(axes, PANELS, strict=True):
        for column in columns:
            points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
            axis.plot(*zip(*points, strict=True), marker=".", label=column.split("/")[1])
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[-1].set_xlabel("optimiser steps")
    figure.savefig(folder / CURVES, dpi=110)
    return folder / CURVES
