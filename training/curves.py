"""A run's curves as a picture: losses above, held-out cases below, over optimiser steps."""

from pathlib import Path

from evaluation import style
from training.history import STEP, read_history

CURVES = "curves.png"
# What a column's name begins with, and the title of the panel it is drawn in.
PANELS = {"loss": "loss", "validation": "held-out cases"}


def draw_curves(folder: Path) -> Path:
    """Draw `folder`/history.csv into `folder`/curves.png.

    Returns:
        The picture's path.
    """
    rows = read_history(folder)
    with style.styled():
        figure = style.new_figure(8, 7)
        panels = figure.subplots(len(PANELS), sharex=True)
        for axes, (group, title) in zip(panels, PANELS.items(), strict=True):
            for column in rows[0]:
                kind, _, name = column.partition("/")
                points = [(int(row[STEP]), float(row[column])) for row in rows if row[column]]
                if kind == group and points:
                    axes.plot(*zip(*points, strict=True), marker=".", label=name)
            axes.set_title(title)
            axes.grid()
            if axes.lines:
                axes.legend()
        panels[-1].set_xlabel("optimiser steps")
        style.write_png(figure, folder / CURVES)
    return folder / CURVES
