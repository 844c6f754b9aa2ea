import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.errors import InputError
from acouslic.stack import read_stack, sweep_slices

CASE = "images/stacked-fetal-ultrasound/case.mha"


def test_a_stack_is_read_with_its_geometry(
    write_stack: Callable[..., Path], frames: np.ndarray
) -> None:
    stack = read_stack(write_stack(frames) / CASE)
    assert np.array_equal(stack.frames, frames)
    assert stack.geometry.spacing_mm == (0.28, 0.28, 0.28)
    assert stack.name == "case"
    assert stack.tissue.tolist() == [True, False] * 6
    assert [stack.sweep_of(frame) for frame in (0, 1, 2, 11)] == [0, 0, 1, 5]


def test_sweeps_cover_every_frame_once() -> None:
    covered = np.concatenate([np.arange(840)[sweep] for sweep in sweep_slices(840)])
    assert covered.tolist() == list(range(840))
    assert sweep_slices(840)[1] == slice(140, 280)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frames: frames[0], "2 dimensions"),
        (lambda frames: frames.astype(np.int16), "16-bit signed integer"),
        (lambda frames: frames.astype(np.float32), "32-bit float"),
        (lambda frames: frames[:, :, :700], "700 x 562"),
        (lambda frames: frames[:11], "11 frames, no multiple of 6"),
        (lambda frames: np.zeros_like(frames), "all black"),
    ],
)
def test_what_is_no_stack_is_refused(
    write_stack: Callable[..., Path],
    frames: np.ndarray,
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        read_stack(write_stack(change(frames)) / CASE)


def test_colour_is_refused(write_stack: Callable[..., Path], frames: np.ndarray) -> None:
    colour = np.repeat(frames[..., None], 3, axis=-1)
    with pytest.raises(InputError, match=r"3 component"):
        read_stack(write_stack(colour, is_vector=True) / CASE)


@pytest.mark.parametrize("spacing", [1.0, 0.3])
def test_another_spacing_is_refused(
    write_stack: Callable[..., Path], frames: np.ndarray, spacing: float
) -> None:
    with pytest.raises(InputError, match=rf"{spacing:g} x {spacing:g} mm"):
        read_stack(write_stack(frames, spacing=spacing) / CASE)


def test_a_header_without_spacing_is_refused(
    write_stack: Callable[..., Path], frames: np.ndarray
) -> None:
    path = write_stack(frames) / CASE
    lines = path.read_bytes().split(b"\n", 20)
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"ElementSpacing")))
    with pytest.raises(InputError, match="1 x 1 mm"):
        read_stack(path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_short_is_refused(
    write_stack: Callable[..., Path], frames: np.ndarray, kept: float, compressed: bool
) -> None:
    path = write_stack(frames) / CASE
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path), useCompression=compressed)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"cut short|cannot be read"):
        read_stack(path)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "case.mha"
    path.write_text("hello")
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_stack(path)


def test_errors_are_one_line_that_says_what_to_do() -> None:
    error = InputError(expected="a", found="b\nc", advice="do d")
    assert str(error) == "expected a; found b c; do d"


def test_an_error_survives_the_way_from_one_process_to_another() -> None:
    error = InputError(expected="a", found="b", advice="do d")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError and str(again) == str(error)
