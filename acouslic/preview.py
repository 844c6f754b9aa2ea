"""A picture of the answer for people: the chosen frame with its outline, and why it was chosen.

Positions are (x, y) in pixels of the picture, from the corner of its first pixel. Where no source
is named, a size, a place or a colour was chosen by eye.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from acouslic.challenge import COLUMNS, ROWS, SWEEP_DIRECTIONS, SWEEPS
from acouslic.ellipse import Ellipse
from acouslic.errors import OutputError
from acouslic.files import new_file
from acouslic.pipeline import Measurement
from acouslic.stack import Stack, sweep_slices

Colour = tuple[int, int, int]
# Stands as text in the file: `files.refuse_foreign_file` knows a preview by it.
MARK = "acouslic preview"


class Box(NamedTuple):
    """A rectangle of the picture."""

    left: float
    """x of its left edge."""
    top: float
    """y of its upper edge."""
    width: float
    """Its extent along x."""
    height: float
    """Its extent along y."""

    @property
    def right(self) -> float:
        """X of its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Y of its lower edge."""
        return self.top + self.height


# ---- layout: the frame on the left, figures on the right, six small plots below

WIDTH, HEIGHT = 1600, 1000
_WHOLE = Box(0, 0, WIDTH, HEIGHT)
_MARGIN = 48
FRAME_SCALE = 1.25
FRAME_BOX = Box(_MARGIN, _MARGIN, COLUMNS * FRAME_SCALE, ROWS * FRAME_SCALE)
_COLUMN_LEFT = FRAME_BOX.right + 40
_COLUMN_WIDTH = WIDTH - _MARGIN - _COLUMN_LEFT
_VALUES_LEFT = _COLUMN_LEFT + 150
_VALUES_WIDTH = WIDTH - _MARGIN - _VALUES_LEFT
_ROW_HEIGHT = 46
_SIMULATED_HEIGHT = 54
_GUESS_HEIGHT = 80
_PLOT_GAP = 20
_PLOT_HEADROOM = 10
_PLOT_WIDTH = (WIDTH - 2 * _MARGIN - (SWEEPS - 1) * _PLOT_GAP) / SWEEPS
PLOTS = tuple(
    Box(_MARGIN + sweep * (_PLOT_WIDTH + _PLOT_GAP), 818, _PLOT_WIDTH, 102)
    for sweep in range(SWEEPS)
)
SCALE_BAR_CM = 5
SCALE_BAR_AT = (FRAME_BOX.left + 28, FRAME_BOX.top + 48)

# ---- colours: blue-green for the answer, amber for the warning; brightness alone tells them too

_BACKGROUND: Colour = (15, 18, 23)
_PANEL: Colour = (24, 29, 36)
_RULE: Colour = (52, 60, 71)
_HATCH: Colour = (62, 71, 84)
_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (244, 246, 248)
_QUIET: Colour = (158, 169, 183)
_CURVE: Colour = (150, 166, 186)
_UNDER_CURVE: Colour = (41, 50, 62)
ANSWER: Colour = (77, 224, 214)
_UNDER_ANSWER: Colour = (24, 66, 70)
_WARNING: Colour = (255, 190, 70)

_SIMULATED = "SIMULATED WEIGHTS - means nothing for patients"
_GUESS = "NOT MEASURED - frame, outline and circumference are a guess"
# Shapes are drawn so many times larger and averaged; text is not, as it is sharper so.
_OVERSAMPLING = 2
# OpenCV takes coordinates as integers, in 2**-6 of a pixel here.
_SHIFT = 6
# A mask is so many times finer before its border is followed, so that no stairs are seen.
_FINER = 4
# The mask is blurred by this standard deviation first. More would round the corners at the fan.
_SMOOTHING_PX = 1.5
# Where frames are so many pixels apart or more, a dot marks each of them.
_DOTS_FROM_PX = 8
# Room for the chosen frame's number and that of a sweep's end; where there is less, the end's goes.
_NUMBERS_APART = 90


def write_preview(
    path: Path, stack: Stack, measurement: Measurement, *, bundle_id: str, simulated: bool
) -> None:
    """Write the picture of a measurement as a PNG, whole or not at all.

    Args:
        path: the file; an older one is replaced.
        stack: the case.
        measurement: what was measured on it.
        bundle_id: which weights measured it.
        simulated: whether they were trained on simulated images, so that the answer means nothing.

    Raises:
        OutputError: the file cannot be written.
    """
    canvas = _Canvas()
    _draw_frame(canvas, stack, measurement)
    _draw_figures(canvas, stack, measurement, bundle_id)
    if measurement.not_measured is not None:
        _draw_guess(canvas, measurement.not_measured)
    if simulated:
        _draw_warning(canvas)
    for sweep, frames in enumerate(sweep_slices(len(stack.frames))):
        _draw_sweep(canvas, sweep, frames, stack, measurement)
    _draw_legend(canvas)
    picture = canvas.picture()
    text = PngInfo()
    text.add_text("Software", MARK)
    try:
        with new_file(path) as partial:
            picture.save(partial, format="PNG", pnginfo=text)
    except OSError as error:
        raise OutputError(
            expected=f"a preview {path} that can be written",
            found=str(error),
            advice="let the user that runs this own the folder, and leave 10 MB free",
        ) from error


class _Canvas:
    """Smooth shapes, and text above all of them."""

    def __init__(self) -> None:
        shape = (HEIGHT * _OVERSAMPLING, WIDTH * _OVERSAMPLING, 3)
        self._pixels = np.full(shape, _BACKGROUND, np.uint8)
        self._texts: list[tuple[tuple[float, float], str, dict[str, Any]]] = []

    def picture(self) -> Image.Image:
        """All that was drawn."""
        picture = Image.fromarray(self._pixels).reduce(_OVERSAMPLING)
        draw = ImageDraw.Draw(picture)
        for at, text, options in self._texts:
            draw.text(at, text, **options)
        return picture

    def rectangle(self, box: Box, colour: Colour) -> None:
        """Fill a box."""
        self._inside(box)[:] = colour

    def image(self, box: Box, grey: np.ndarray) -> None:
        """Stretch a (H, W) uint8 image over a box."""
        view = self._inside(box)
        size = (view.shape[1], view.shape[0])
        view[:] = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)[..., None]

    def line(
        self, points: np.ndarray, colour: Colour, width: float, *, within: Box = _WHOLE
    ) -> None:
        """Draw a line through (N, 2) points, cut at a box's edge."""
        cv2.polylines(
            self._inside(within),
            [_fixed(points - within[:2])],
            isClosed=False,
            color=colour,
            thickness=round(width * _OVERSAMPLING),
            lineType=cv2.LINE_AA,
            shift=_SHIFT,
        )

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        """Fill the polygon of (N, 2) points."""
        cv2.fillPoly(self._pixels, [_fixed(points)], colour, lineType=cv2.LINE_AA, shift=_SHIFT)

    def dot(self, at: np.ndarray, radius: float, colour: Colour, *, within: Box = _WHOLE) -> None:
        """Fill a circle, cut at a box's edge."""
        cv2.circle(
            self._inside(within),
            center=_fixed(at - within[:2]).tolist(),
            radius=round(radius * _OVERSAMPLING * 2**_SHIFT),
            color=colour,
            thickness=cv2.FILLED,
            lineType=cv2.LINE_AA,
            shift=_SHIFT,
        )

    def text(
        self,
        at: tuple[float, float],
        text: str,
        size: int,
        colour: Colour,
        *,
        anchor: str = "ls",
        width: float = WIDTH,
        edge: int = 0,
    ) -> float:
        """Write one line of text.

        Args:
            at: where it is put.
            text: what has no letter in the font is replaced.
            size: of the font, in pixels.
            colour: of the letters.
            anchor: which point of the text `at` is, as in Pillow.
            width: a longer text is shortened to this.
            edge: width of the black edge around each letter.

        Returns:
            How wide it became.
        """
        shown = _shortened(_drawable(text), size, width)
        options = {"fill": colour, "font": _font(size), "anchor": anchor}
        self._texts.append((at, shown, options | {"stroke_width": edge, "stroke_fill": _BLACK}))
        return _font(size).getlength(shown)

    def _inside(self, box: Box) -> np.ndarray:
        left, right = round(box.left * _OVERSAMPLING), round(box.right * _OVERSAMPLING)
        top, bottom = round(box.top * _OVERSAMPLING), round(box.bottom * _OVERSAMPLING)
        return self._pixels[top:bottom, left:right]


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points as OpenCV wants them: it counts from the centre of the first pixel, not its corner."""
    return np.asarray(np.rint((points * _OVERSAMPLING - 0.5) * 2**_SHIFT), np.int32)


# ---- the frame


def _draw_frame(canvas: _Canvas, stack: Stack, measurement: Measurement) -> None:
    canvas.image(FRAME_BOX, stack.frames[measurement.frame])
    ellipse = measurement.ellipse
    for line in (_on_ellipse(ellipse), *_axes(ellipse)):
        _draw_on_frame(canvas, _dashes(_on_picture(line)), _WHITE, 1.5)
    _draw_on_frame(canvas, map(_on_picture, _borders(measurement.mask)), ANSWER, 2.5)
    for line in _axes(ellipse):
        for end in _on_picture(line[[0, -1]]):
            canvas.dot(end, 5.5, _BLACK, within=FRAME_BOX)
            canvas.dot(end, 4, _WHITE, within=FRAME_BOX)
    _draw_scale_bar(canvas, stack.geometry.spacing_mm[0])
    _draw_key(canvas)


def _draw_on_frame(
    canvas: _Canvas, lines: Iterable[np.ndarray], colour: Colour, width: float
) -> None:
    """Draw lines with a black edge, so that they are seen on bright tissue too."""
    drawn = list(lines)
    for shade, thickness in ((_BLACK, width + 2), (colour, width)):
        for points in drawn:
            canvas.line(points, shade, thickness, within=FRAME_BOX)


def _on_picture(points: np.ndarray) -> np.ndarray:
    """Where (N, 2) points of a frame, from the centre of its first pixel, lie on the picture."""
    return (points + 0.5) * FRAME_SCALE + (FRAME_BOX.left, FRAME_BOX.top)


def _borders(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The closed borders of a mask, without its pixels' stairs: (N, 2) in pixels of the frame."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigmaX=_SMOOTHING_PX)
    fine = cv2.resize(soft, None, fx=_FINER, fy=_FINER, interpolation=cv2.INTER_LINEAR)
    # Half of the brightest and not just a half: a mask of a few pixels has a border too.
    inside = (fine > fine.max() / 2).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        points = contour[:, 0]
        yield (np.vstack([points, points[:1]]) + 0.5) / _FINER - 0.5


def _on_ellipse(ellipse: Ellipse) -> np.ndarray:
    """The ellipse, (N, 2): points about a pixel apart."""
    turn = np.linspace(0, 2 * np.pi, round(ellipse.circumference_px) + 2)[:, None]
    along, across = _semi_axes(ellipse)
    return np.asarray(_centre(ellipse) + np.cos(turn) * along + np.sin(turn) * across)


def _axes(ellipse: Ellipse) -> list[np.ndarray]:
    """Both axes, (N, 2) each: points about a pixel apart."""
    count = round(2 * ellipse.semi_major_px) + 2
    steps = np.linspace(-1, 1, count)[:, None]
    return [_centre(ellipse) + steps * semi_axis for semi_axis in _semi_axes(ellipse)]


def _centre(ellipse: Ellipse) -> np.ndarray:
    return np.array([ellipse.centre_x_px, ellipse.centre_y_px])


def _semi_axes(ellipse: Ellipse) -> tuple[np.ndarray, np.ndarray]:
    """The major and the minor one, as vectors from the centre."""
    angle = np.radians(ellipse.angle_deg)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    return ellipse.semi_major_px * along, ellipse.semi_minor_px * across


def _dashes(points: np.ndarray) -> Iterator[np.ndarray]:
    """The pieces of a dashed line through points that lie about a pixel apart."""
    dash, gap = 8, 5
    last = max(0, len(points) - 1 - dash)
    # The last dash ends where the line does.
    for start in np.linspace(0, last, 1 + round(last / (dash + gap))):
        yield points[round(start) : round(start) + dash + 1]


def _draw_scale_bar(canvas: _Canvas, spacing_mm: float) -> None:
    left, y = SCALE_BAR_AT
    cm = 10 / spacing_mm * FRAME_SCALE
    ticks = left + cm * np.arange(SCALE_BAR_CM + 1)
    heights = [12, *[6] * (SCALE_BAR_CM - 1), 12]
    lines = [_segment((x, y - height), (x, y)) for x, height in zip(ticks, heights, strict=True)]
    _draw_on_frame(canvas, [*lines, _segment((left, y), (ticks[-1], y))], _WHITE, 2)
    canvas.text((left, y + 26), f"{SCALE_BAR_CM} cm", 18, _WHITE, edge=2)


def _draw_key(canvas: _Canvas) -> None:
    """What the lines are, in the frame's upper right corner, which the fan leaves black."""
    left, y = FRAME_BOX.right - 176, FRAME_BOX.top + 38
    _draw_on_frame(canvas, [_segment((left, y), (left + 32, y))], ANSWER, 2.5)
    canvas.text((left + 44, y + 6), "outline", 18, _WHITE, edge=2)
    dashed = np.linspace((left, y + 28), (left + 32, y + 28), 33)
    _draw_on_frame(canvas, _dashes(dashed), _WHITE, 1.5)
    canvas.text((left + 44, y + 34), "fitted ellipse", 18, _WHITE, edge=2)


def _segment(start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    return np.array([start, end])


# ---- the figures


def _draw_figures(canvas: _Canvas, stack: Stack, measurement: Measurement, bundle_id: str) -> None:
    left, top, width = _COLUMN_LEFT, FRAME_BOX.top, _COLUMN_WIDTH
    canvas.text((left, top + 14), "Case", 18, _QUIET)
    canvas.text((left, top + 46), stack.name, 24, _WHITE, width=width)
    canvas.rectangle(Box(left, top + 70, width, 1), _RULE)
    is_guess = measurement.not_measured is not None
    heading = "Abdominal circumference" + (", a guess" if is_guess else "")
    canvas.text((left, top + 112), heading, 18, _WARNING if is_guess else _QUIET)
    colour = _WARNING if is_guess else _WHITE
    _draw_circumference(canvas, (left, top + 222), measurement.ac_mm, colour)
    low, high = measurement.ac_interval_mm
    if not is_guess:
        canvas.text((left, top + 266), f"90 % interval {low:.0f} to {high:.0f} mm", 20, _QUIET)
    canvas.rectangle(Box(left, top + 296, width, 1), _RULE)
    _draw_table(canvas, top + 342, stack, measurement, bundle_id)


def _draw_circumference(
    canvas: _Canvas, at: tuple[float, float], ac_mm: float, colour: Colour
) -> None:
    number, size = f"{ac_mm:.1f}", 124
    # A large digit begins well right of where it is put.
    left = at[0] - (_font(size).getmask(number).getbbox() or (0,))[0]
    number_width = canvas.text((left, at[1]), number, size, colour)
    canvas.text((left + number_width + 14, at[1]), "mm", 44, _QUIET)


def _draw_table(
    canvas: _Canvas, top: float, stack: Stack, measurement: Measurement, bundle_id: str
) -> None:
    """One row a figure: what it is, its value, and what belongs to it in quieter letters."""
    axes = measurement.ellipse.semi_major_px, measurement.ellipse.semi_minor_px
    axes_mm = [f"{2 * axis * stack.geometry.spacing_mm[0]:.1f}" for axis in axes]
    sweep = measurement.sweep
    rows = (
        ("Confidence", f"{measurement.confidence:.2f}", ""),
        ("Annotated", f"{measurement.p_annotated:.2f}", "probability, of this frame"),
        ("Frame", f"{measurement.frame}", f"of 0 to {len(stack.frames) - 1}"),
        ("Sweep", f"{sweep}", SWEEP_DIRECTIONS[sweep - 1]),
        ("Axes", " by ".join(axes_mm), "mm"),
        ("Bundle", bundle_id, ""),
    )
    for row, (label, value, note) in enumerate(rows):
        y = top + row * _ROW_HEIGHT
        canvas.text((_COLUMN_LEFT, y), label, 20, _QUIET)
        value_width = canvas.text((_VALUES_LEFT, y), value, 22, _WHITE, width=_VALUES_WIDTH)
        canvas.text((_VALUES_LEFT + value_width + 10, y), note, 20, _QUIET)
    gauge = Box(_VALUES_LEFT + 64, top - 12, _VALUES_WIDTH - 64, 8)
    canvas.rectangle(gauge, _RULE)
    canvas.rectangle(gauge._replace(width=gauge.width * measurement.confidence), ANSWER)


def _draw_guess(canvas: _Canvas, reason: str) -> None:
    """Say across the frame's lower edge that nothing was measured, and why."""
    top = FRAME_BOX.bottom - _GUESS_HEIGHT
    canvas.rectangle(FRAME_BOX._replace(top=top, height=_GUESS_HEIGHT), _WARNING)
    left, width = FRAME_BOX.left + 20, FRAME_BOX.width - 40
    canvas.text((left, top + 34), _GUESS, 22, _BLACK, width=width)
    canvas.text((left, top + 62), reason, 18, _BLACK, width=width)


def _draw_warning(canvas: _Canvas) -> None:
    box = Box(_COLUMN_LEFT, FRAME_BOX.bottom - _SIMULATED_HEIGHT, _COLUMN_WIDTH, _SIMULATED_HEIGHT)
    canvas.rectangle(box, _WARNING)
    centre = (box.left + box.width / 2, box.top + box.height / 2)
    canvas.text(centre, _SIMULATED, 21, _BLACK, anchor="mm", width=box.width)


# ---- the sweeps


def _draw_sweep(
    canvas: _Canvas, sweep: int, frames: slice, stack: Stack, measurement: Measurement
) -> None:
    box = PLOTS[sweep]
    chosen = sweep == measurement.sweep - 1
    points = _on_plot(box, measurement.frame_scores[frames])
    slot = box.width / len(points)
    _draw_hatching(canvas, box)
    for start, stop in _runs(stack.tissue[frames]):
        shown = box._replace(left=box.left + start * slot, width=(stop - start) * slot)
        canvas.rectangle(shown, _PANEL)
        _draw_curve(canvas, box, points[start:stop], chosen=chosen)
    canvas.rectangle(Box(box.left, box.bottom, box.width, 1), _RULE)
    name = f"sweep {sweep + 1} {SWEEP_DIRECTIONS[sweep]}"
    canvas.text((box.left, box.top - 16), name, 18, _WHITE if chosen else _QUIET)
    marked = points[measurement.frame - frames.start] if chosen else np.full(2, np.inf)
    for frame in (0, len(points) - 1):
        if abs(points[frame, 0] - marked[0]) > _NUMBERS_APART:
            _draw_number(canvas, box, points[frame, 0], str(frames.start + frame), _QUIET)
    if chosen:
        _draw_choice(canvas, box, marked)
        _draw_number(canvas, box, marked[0], f"frame {measurement.frame}", ANSWER)


def _draw_number(canvas: _Canvas, box: Box, x: float, text: str, colour: Colour) -> None:
    """Write a frame's number below its place on a plot, not beyond the plot's edges."""
    half = _font(16).getlength(text) / 2
    middle = float(np.clip(x, box.left + half, box.right - half))
    canvas.text((middle, box.bottom + 21), text, 16, colour, anchor="ms")


def _on_plot(box: Box, scores: np.ndarray) -> np.ndarray:
    """Where (N,) scores lie on a plot, (N, 2): each in the middle of its share of the width."""
    x = box.left + (np.arange(len(scores)) + 0.5) / len(scores) * box.width
    y = box.bottom - np.clip(scores, 0, 1) * (box.height - _PLOT_HEADROOM)
    return np.stack([x, y], axis=1)


def _runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """The start and stop of each run of True in (N,) bool."""
    steps = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0, append=0))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))


def _draw_hatching(canvas: _Canvas, box: Box) -> None:
    canvas.rectangle(box, _PANEL)
    for x in np.arange(box.left - box.height, box.right, 9):
        stroke = _segment((x, box.bottom), (x + box.height, box.top))
        canvas.line(stroke, _HATCH, 1, within=box)


def _draw_curve(canvas: _Canvas, box: Box, points: np.ndarray, *, chosen: bool) -> None:
    """Draw the scores of frames that follow each other, (N, 2) points of the plot."""
    feet = np.array([[points[-1, 0], box.bottom], [points[0, 0], box.bottom]])
    canvas.polygon(np.vstack([points, feet]), _UNDER_ANSWER if chosen else _UNDER_CURVE)
    colour = _WHITE if chosen else _CURVE
    canvas.line(points, colour, 2 if chosen else 1.5, within=box)
    if len(points) == 1 or points[1, 0] - points[0, 0] >= _DOTS_FROM_PX:
        for point in points:
            canvas.dot(point, 3, colour)


def _draw_choice(canvas: _Canvas, box: Box, point: np.ndarray) -> None:
    x = point[0]
    canvas.line(_segment((x, box.top), (x, box.bottom)), ANSWER, 2)
    canvas.polygon(np.array([[x - 7, box.top - 10], [x + 7, box.top - 10], [x, box.top]]), ANSWER)
    canvas.dot(point, 6, _BACKGROUND)
    canvas.dot(point, 4.5, ANSWER)


def _draw_legend(canvas: _Canvas) -> None:
    for score, (_, y) in enumerate(_on_plot(PLOTS[0], np.array([0, 1]))):
        canvas.text((PLOTS[0].left - 10, y), str(score), 16, _QUIET, anchor="rm")
    y = HEIGHT - 30
    canvas.text((_MARGIN, y), "Score of every frame, 0 to 1", 16, _QUIET)
    swatch = Box(WIDTH - _MARGIN - 210, y - 13, 24, 15)
    _draw_hatching(canvas, swatch)
    canvas.text((WIDTH - _MARGIN, y), "black frames (no image)", 16, _QUIET, anchor="rs")


# ---- text


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which previews need")
    return font


def _drawable(text: str) -> str:
    """The text in what the font has, which is ASCII: accents go, all else becomes '?'."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in letters)


def _shortened(text: str, size: int, width: float) -> str:
    """The text, with dots in place of its middle where it is wider than `width`."""
    font = _font(size)
    # No letter is narrower than a pixel, so more of them need not be tried.
    if len(text) <= width and font.getlength(text) <= width:
        return text
    for kept in range(min(len(text) - 1, round(width)), 1, -1):
        short = f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"
        if font.getlength(short) <= width:
            return short
    return ""
