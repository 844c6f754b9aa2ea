"""How the project's plots look: colours, lines, fonts, and how they are saved.

Every plot of evaluation, benchmark and training is drawn inside `styled()`. The pages take their
colours from here as well (`CSS_COLOURS`).
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from acouslic import files
from acouslic.challenge import Quality

INK, TEXT, QUIET, LINE = "#0f172a", "#334155", "#586880", "#e2e8f0"
PAPER, BACKGROUND = "#ffffff", "#f8fafc"
# Okabe and Ito's colours (Color Universal Design, 2008), which colour-blind readers can tell apart,
# blue first and without their yellow, too light for a line on white; then two more.
SERIES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#000000",
    "#b8a800",
    "#7b4fa3",
    "#8c564b",
)
BLUE, ORANGE, GREEN, RED = SERIES[:4]
LINE_STYLES = ("-", "--", ":")
QUALITY_COLOURS: Mapping[Quality, str] = {
    Quality.OPTIMAL: GREEN,
    Quality.SUBOPTIMAL: ORANGE,
    Quality.NONE: "#cbd5e1",
}
PREDICTED = RED
# The score's three terms: told apart by brightness too, and by none of the colours of quality.
TERM_COLOURS: Mapping[str, str] = {"ac": "#0072b2", "frame": "#56b4e9", "mask": "#cc79a7"}
# Outlines on ultrasound frames: lighter, for they lie on black.
PREDICTED_ON_BLACK, TRUE_ON_BLACK = "#ff783c", "#28d2be"
# Annotated frames behind a curve: the curve has to stay readable.
SHADE_ALPHA = 0.35
# Stands in every PNG of ours.
PNG_MARK = "acouslic plot"
# Sharp where a page shows the picture at half its size.
DPI = 160
CSS_COLOURS: Mapping[str, str] = {
    "ink": INK,
    "text": TEXT,
    "quiet": QUIET,
    "line": LINE,
    "paper": PAPER,
    "background": BACKGROUND,
    "curve": BLUE,
    "chosen": PREDICTED,
    "predicted": PREDICTED_ON_BLACK,
    "true": TRUE_ON_BLACK,
    "optimal": QUALITY_COLOURS[Quality.OPTIMAL],
    "suboptimal": QUALITY_COLOURS[Quality.SUBOPTIMAL],
    **{f"term-{term}": colour for term, colour in TERM_COLOURS.items()},
}
_SETTINGS: Mapping[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": TEXT,
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "font.size": 10.5,
    "grid.color": LINE,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    # Letters stay letters: the page's font, to be searched and copied.
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


@contextmanager
def styled(name: str = "") -> Iterator[None]:
    """Draw and save figures in the project's style while the block runs.

    Args:
        name: for SVG, keeps the identifiers inside one picture apart from those of others on a
            page, and the same from run to run.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        yield


def new_figure(width_in: float, height_in: float, *, by_hand: bool = False) -> Figure:
    """An empty figure.

    Args:
        width_in: its width in inches.
        height_in: its height in inches.
        by_hand: the caller places the axes; otherwise matplotlib does.
    """
    return Figure(figsize=(width_in, height_in), layout=None if by_hand else "constrained")


def series_style(number: int) -> dict[str, Any]:
    """Colour and line style of the k-th curve of a plot, from 0; 30 curves differ."""
    turn = number // len(SERIES)
    return {
        "color": SERIES[number % len(SERIES)],
        "linestyle": LINE_STYLES[turn % len(LINE_STYLES)],
    }


def to_svg(figure: Figure) -> str:
    """The figure as the text of an SVG element, to stand in a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    with files.new_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": PNG_MARK})


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour "#rrggbb", 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
