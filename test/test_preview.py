"""The picture for people: what it shows lies where it should, whatever the stack and its name."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM, TYPICAL_AC_MM
from acouslic.ellipse import Ellipse
from acouslic.errors import OutputError
from acouslic.mask import fallback_circle
from acouslic.metaimage import Geometry
from acouslic.pipeline import Measurement
from acouslic.preview import (
    ANSWER,
    FRAME_BOX,
    FRAME_SCALE,
    HEIGHT,
    PLOTS,
    SCALE_BAR_AT,
    WIDTH,
    Box,
    write_preview,
)
from acouslic.stack import Stack

FAN = CHALLENGE_FAN.mask()
INSIDE = Ellipse(370.0, 300.0, 140.0, 120.0, 30.0)
CUT = Ellipse(231.0, 166.0, 87.0, 81.0, 69.0)
# So small that its axes hide nothing of an outline.
POINT = Ellipse(740.0, 300.0, 0.5, 0.5, 0.0)
CIRCLE = fallback_circle(np.ones(FRAME_SHAPE), FAN, SPACING_MM, TYPICAL_AC_MM)


def a_stack(n_frames: int = 12, name: str = "case", spacing_mm: float = SPACING_MM) -> Stack:
    """A grey fan in all frames, in one frame's memory."""
    frame = (40 * FAN).astype(np.uint8)
    frames = np.broadcast_to(frame, (n_frames, *FRAME_SHAPE))
    return Stack(name, frames, Geometry.plain(spacing_mm))


def a_measurement(n_frames: int = 12, frame: int = 8, ellipse: Ellipse = INSIDE) -> Measurement:
    scores = np.linspace(0.2, 0.7, n_frames, dtype=np.float32)
    return Measurement(
        frame=frame,
        sweep=frame // (n_frames // 6) + 1,
        mask=(ellipse.mask(FRAME_SHAPE) & FAN).astype(np.uint8),
        ac_mm=ellipse.circumference_px * SPACING_MM,
        ellipse=ellipse,
        ac_interval_mm=(200.0, 240.0),
        confidence=float(scores[frame]),
        p_annotated=0.75,
        frame_scores=scores,
        seconds={},
    )


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Draws a preview and returns its pixels, (H, W, 3) int."""

    def pixels(
        stack: Stack | None = None,
        measurement: Measurement | None = None,
        *,
        bundle_id: str = "bundle",
        simulated: bool = False,
    ) -> np.ndarray:
        path = tmp_path / "preview.png"
        stack, measurement = stack or a_stack(), measurement or a_measurement()
        write_preview(path, stack, measurement, bundle_id=bundle_id, simulated=simulated)
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            return np.asarray(image).astype(int)

    return pixels


def close_to(pixels: np.ndarray, colour: tuple[int, int, int], within: int = 30) -> np.ndarray:
    return np.asarray(np.abs(pixels - colour).max(axis=-1) <= within)


def inside(pixels: np.ndarray, box: Box) -> np.ndarray:
    return pixels[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]


def changed(before: np.ndarray, after: np.ndarray) -> Box:
    """The smallest box around all pixels in which two pictures differ."""
    rows, columns = np.nonzero((before != after).any(axis=-1))
    assert rows.size
    left, top = columns.min(), rows.min()
    return Box(left, top, columns.max() + 1 - left, rows.max() + 1 - top)


def holds(outer: Box, inner: Box) -> bool:
    return (
        outer.left <= inner.left
        and outer.top <= inner.top
        and inner.right <= outer.right
        and inner.bottom <= outer.bottom
    )


def on_picture(points: np.ndarray) -> np.ndarray:
    """Where (N, 2) pixels of a frame, (column, row), have their centre on the picture."""
    return np.asarray((points + 0.5) * FRAME_SCALE + (FRAME_BOX.left, FRAME_BOX.top))


def test_the_picture_has_the_stated_size(draw: Callable[..., np.ndarray]) -> None:
    assert (WIDTH, HEIGHT) == (1600, 1000)
    assert draw().shape == (1000, 1600, 3)


def test_the_chosen_frame_is_shown(draw: Callable[..., np.ndarray]) -> None:
    frames = np.zeros((12, *FRAME_SHAPE), np.uint8)
    frames[:, :100, :100] = 1
    frames[8, 400:404, 500:504] = 255
    pixels = draw(replace(a_stack(), frames=frames))
    (x, y), *_ = on_picture(np.array([[501.5, 401.5]]))
    assert close_to(pixels[int(y), int(x)], (255, 255, 255))
    rows, columns = np.nonzero(close_to(inside(pixels, Box(660, 540, 40, 40)), (255, 255, 255), 99))
    assert columns.mean() + 660.5 == pytest.approx(x, abs=1)
    assert rows.mean() + 540.5 == pytest.approx(y, abs=1)


@pytest.mark.parametrize(
    "mask",
    [
        INSIDE.mask(FRAME_SHAPE) & FAN,
        CUT.mask(FRAME_SHAPE) & FAN,
        CIRCLE.mask,
        Ellipse(300.0, 300.0, 1.0, 1.0, 0.0).mask(FRAME_SHAPE),
    ],
    ids=["inside", "cut", "circle", "tiny"],
)
def test_the_outline_lies_on_the_masks_border(
    mask: np.ndarray, draw: Callable[..., np.ndarray]
) -> None:
    measurement = replace(a_measurement(ellipse=POINT), mask=np.zeros(FRAME_SHAPE, np.uint8))
    without = draw(measurement=measurement)
    pixels = draw(measurement=replace(measurement, mask=mask.astype(np.uint8)))
    assert holds(FRAME_BOX, changed(without, pixels))
    is_outline = close_to(pixels, ANSWER) & (pixels != without).any(axis=-1)
    outline = np.argwhere(is_outline)[:, ::-1] + 0.5
    # The last pixels inside; the border runs half a pixel outside of their centres.
    border = on_picture(np.argwhere(mask & ~binary_erosion(mask))[:, ::-1])
    assert cKDTree(outline).query(border)[0].max() < 2.5
    assert cKDTree(border).query(outline)[0].max() < 3


@pytest.mark.parametrize("ellipse", [INSIDE, CUT], ids=["inside", "cut"])
def test_the_axes_end_on_the_ellipse(ellipse: Ellipse, draw: Callable[..., np.ndarray]) -> None:
    pixels = draw(measurement=a_measurement(ellipse=ellipse))
    angle = np.radians(ellipse.angle_deg)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-np.sin(angle), np.cos(angle)])
    centre = np.array([ellipse.centre_x_px, ellipse.centre_y_px])
    for semi_axis in (ellipse.semi_major_px * along, ellipse.semi_minor_px * across):
        for end in (centre + semi_axis, centre - semi_axis):
            x, y = on_picture(end[None])[0]
            assert close_to(inside(pixels, Box(x - 2, y - 2, 4, 4)), (244, 246, 248)).all()
            # The dot's black edge, everywhere but where the axis itself meets it.
            ring = inside(pixels, Box(x - 7, y - 7, 14, 14)).max(axis=-1)
            assert np.count_nonzero(ring < 40) > 20


@pytest.mark.parametrize("spacing_mm", [SPACING_MM, 0.35])
def test_the_scale_bar_is_five_centimetres_long(
    spacing_mm: float, draw: Callable[..., np.ndarray]
) -> None:
    pixels = draw(a_stack(spacing_mm=spacing_mm))
    left, y = SCALE_BAR_AT
    bar = close_to(pixels[round(y), : WIDTH // 2], (244, 246, 248), 60)
    start, stop = np.flatnonzero(np.diff(bar, prepend=False, append=False))
    assert start == pytest.approx(left, abs=2)
    # A line is as much longer as it is wide.
    assert stop - start == pytest.approx(50 / spacing_mm * FRAME_SCALE, abs=3)


@pytest.mark.parametrize(
    ("n_frames", "frame"), [(6, 3), (12, 0), (12, 8), (12, 11), (120, 41), (120, 119)]
)
def test_the_choice_is_marked_at_its_frame(
    n_frames: int, frame: int, draw: Callable[..., np.ndarray]
) -> None:
    measurement = a_measurement(n_frames, frame)
    pixels = draw(a_stack(n_frames), measurement)
    sweep, index = divmod(frame, n_frames // 6)
    for other, box in enumerate(PLOTS):
        marked = close_to(inside(pixels, box), ANSWER, 60)
        if other != sweep:
            assert not marked.any()
            continue
        x = (index + 0.5) / (n_frames // 6) * box.width
        lines = np.flatnonzero(marked.mean(axis=0) > 0.8)
        assert lines.size in (1, 2, 3)
        assert lines.mean() + 0.5 == pytest.approx(x, abs=1)
        rows, columns = np.nonzero(marked)
        dot = rows[np.abs(columns + 0.5 - x) > 2]
        # The uppermost part of a plot is left for the mark.
        score = 1 - (dot[dot > 8].mean() + 0.5 - 10) / (box.height - 10)
        assert score == pytest.approx(measurement.confidence, abs=0.02)


def test_black_frames_are_hatched_and_others_are_not(draw: Callable[..., np.ndarray]) -> None:
    frames = a_stack().frames.copy()
    frames[3] = 0
    measurement = replace(a_measurement(), frame_scores=np.zeros(12, np.float32))
    pixels = draw(replace(a_stack(), frames=frames), measurement)
    box = PLOTS[1]._replace(height=60)
    first, second = np.array_split(inside(pixels, box), 2, axis=1)
    assert np.ptp(first[:, :-1], axis=(0, 1)).max() == 0
    # Not by colour alone: stripes, much brighter than what is between them.
    stripes = second[30, :, 1] > 45
    assert np.count_nonzero(np.diff(stripes.astype(int)) == 1) >= 10


def test_a_guess_is_marked_on_the_frame_and_at_its_number(draw: Callable[..., np.ndarray]) -> None:
    amber = (255, 190, 70)
    guess = replace(
        a_measurement(), not_measured="expected tissue; found a stack that is all black"
    )
    measured, guessed = draw(), draw(measurement=guess)
    assert not close_to(measured, amber).any()
    rows, columns = np.nonzero(close_to(inside(guessed, FRAME_BOX), amber))
    assert np.ptp(columns) > 0.99 * FRAME_BOX.width - 1
    assert 60 < np.ptp(rows) < 100 and rows.max() > 0.99 * FRAME_BOX.height - 1
    # The big number lies right of the frame.
    number = Box(FRAME_BOX.right + 20, FRAME_BOX.top + 120, 400, 110)
    assert close_to(inside(guessed, number), amber).sum() > 3000
    # Another reason is other text in the band, and nothing else.
    band = changed(guessed, draw(measurement=replace(guess, not_measured="expected six sweeps")))
    assert holds(FRAME_BOX, band) and band.top > FRAME_BOX.bottom - 100


def test_simulated_weights_are_named_and_nothing_else_changes(
    draw: Callable[..., np.ndarray],
) -> None:
    without, pixels = draw(simulated=False), draw(simulated=True)
    warning = changed(without, pixels)
    assert warning.left > FRAME_BOX.right
    assert warning.bottom <= round(FRAME_BOX.bottom) + 1
    assert warning.width > 400
    assert warning.height > 40
    shown = inside(pixels, warning)
    assert close_to(shown, (255, 190, 70)).mean() > 0.7
    assert close_to(shown, (0, 0, 0)).mean() > 0.05


STRANGE_NAMES = {
    "long": "a-very-long-name-" * 40,
    "endless": "x" * 200_000,
    "wide": "W" * 60,
    "controls": "a\nb\tc\r\x00\x1b[31md\x7f\x85\u2028",
    "right to left": "\u202e\u200fشريحة",
    "other letters": "плод_胎児_αβγ_Łódź",
    "accents": "e" + "\u0301" * 300,
    "emoji": "🤰🏽.scan",
    "broken": "scan\udce9",
    "empty": "",
}


@pytest.mark.parametrize("name", STRANGE_NAMES.values(), ids=STRANGE_NAMES)
def test_a_strange_name_stays_in_its_place(name: str, draw: Callable[..., np.ndarray]) -> None:
    plain, pixels = draw(), draw(a_stack(name=name), bundle_id=name)
    column = Box(FRAME_BOX.right + 30, FRAME_BOX.top, WIDTH - 46 - FRAME_BOX.right - 30, 70)
    for row in (column, column._replace(top=FRAME_BOX.top + 536, height=60)):
        assert (inside(plain, row) != inside(pixels, row)).any()
        inside(pixels, row)[:] = inside(plain, row)
    assert np.array_equal(plain, pixels)


def test_names_are_transliterated_or_marked_and_shortened_in_the_middle(
    draw: Callable[..., np.ndarray],
) -> None:
    def drawn(name: str) -> np.ndarray:
        return draw(a_stack(name=name))

    assert np.array_equal(drawn("Zoë Peña"), drawn("Zoe Pena"))
    assert np.array_equal(drawn("胎\n"), drawn("??"))
    assert not np.array_equal(drawn("a" * 500 + "1"), drawn("a" * 500 + "2"))
    assert not np.array_equal(drawn("1" + "a" * 500), drawn("2" + "a" * 500))


def test_the_font_has_all_that_is_drawn() -> None:
    font = ImageFont.load_default(size=40)
    box = bytes(font.getmask("\uffff"))
    missing = [c for c in map(chr, range(0x21, 0x7F)) if bytes(font.getmask(c)) == box]
    assert not missing
    assert bytes(font.getmask("…")) != box
    assert bytes(font.getmask("胎")) == box


@pytest.mark.parametrize("n_frames", [6, 12, 840])
def test_any_number_of_frames_that_six_divides_is_drawn(
    n_frames: int, draw: Callable[..., np.ndarray]
) -> None:
    measurement = a_measurement(n_frames, n_frames - 1)
    falling = replace(measurement, frame_scores=measurement.frame_scores[::-1].copy())
    stack = a_stack(n_frames)
    curves = changed(draw(stack, measurement), draw(stack, falling))
    assert curves.top > FRAME_BOX.bottom
    assert curves.left < PLOTS[0].right
    assert curves.right > PLOTS[5].left


def test_masks_and_ellipses_that_leave_the_frame_stay_in_its_panel(
    draw: Callable[..., np.ndarray],
) -> None:
    table = FRAME_BOX.right + 40
    plain, odd = (
        draw(measurement=measurement)
        for measurement in (
            a_measurement(),
            replace(
                a_measurement(),
                mask=np.ones(FRAME_SHAPE, np.uint8),
                ellipse=Ellipse(30.0, -20.0, 700.0, 500.0, 45.0),
            ),
        )
    )
    assert np.array_equal(plain[round(FRAME_BOX.bottom) + 1 :], odd[round(FRAME_BOX.bottom) + 1 :])
    margin = slice(int(FRAME_BOX.right) + 1, int(table))
    assert np.array_equal(plain[:, margin], odd[:, margin])
    assert np.array_equal(plain[:, : int(FRAME_BOX.left)], odd[:, : int(FRAME_BOX.left)])
    # A mask that fills the frame has its outline along the frame's edge.
    left = odd[300, int(FRAME_BOX.left) : int(FRAME_BOX.left) + 3]
    assert close_to(left, ANSWER, 60).any()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
def test_an_interrupted_write_leaves_what_was_there(
    error: BaseException, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "preview.png"
    if older:
        path.write_bytes(b"older")

    def save(self: Image.Image, target: Path, **options: object) -> None:
        Path(target).write_bytes(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", save)
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_preview(path, a_stack(), a_measurement(), bundle_id="bundle", simulated=True)
    assert [item.name for item in tmp_path.iterdir()] == ["preview.png"] * older
    assert not older or path.read_bytes() == b"older"


def test_a_run_without_preview_does_not_import_it() -> None:
    code = "import inference, acouslic.pipeline, acouslic.platform_io, sys; print(*sys.modules)"
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "acouslic.pipeline" in result.stdout.split()
    assert "acouslic.preview" not in result.stdout.split()
