"""Reading a stack: its header is checked before a pixel is read.

Arrays are (frame, row, column) = (T, H, W) uint8; geometry keeps the file's own (x, y, z) order.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from acouslic.challenge import (
    COLUMNS,
    FRAMES_PER_SWEEP,
    ROWS,
    SPACING_MM,
    SPACING_TOLERANCE_MM,
    SWEEPS,
)
from acouslic.errors import InputError
from acouslic.metaimage import Geometry, read_header


@dataclass(frozen=True)
class Stack:
    """One case: six sweeps of frames behind each other."""

    name: str
    """The file's name without its extension."""
    frames: np.ndarray
    """(T, H, W) uint8 grey levels; T is a multiple of six."""
    geometry: Geometry
    """Where the stack lies in space, as its file says."""

    @property
    def frames_per_sweep(self) -> int:
        """The length of each sweep, its black frames included."""
        return len(self.frames) // SWEEPS

    @cached_property
    def tissue(self) -> np.ndarray:
        """Which frames show anything, (T,) bool; the padding behind a sweep is black."""
        return np.asarray(self.frames.any(axis=(1, 2)))

    def sweep_of(self, frame: int) -> int:
        """The 0-based sweep that holds the frame."""
        return frame // self.frames_per_sweep


def sweep_slices(n_frames: int) -> tuple[slice, ...]:
    """The frames of each of the six sweeps."""
    length = n_frames // SWEEPS
    return tuple(slice(start, start + length) for start in range(0, SWEEPS * length, length))


def find_stacks(path: Path) -> list[Path]:
    """The stacks that a path names: the file itself, or every .mha of a folder, sorted by name.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(
            expected="a stack (.mha) or a folder of stacks",
            found=f"no {path}",
            advice="check the path",
        )
    # A file whose name begins with a dot is no stack: macOS leaves such ones beside the real ones.
    stacks = sorted(path.glob("[!.]*.mha"))
    if not stacks:
        raise InputError(
            expected=f"stacks (.mha) in {path}",
            found="none",
            advice="name the folder that has them",
        )
    return stacks


def check_header(path: Path) -> tuple[int, int, int]:
    """Check, by its header and its length, that a file is a stack as the challenge gives it.

    Returns:
        The stack's shape (T, H, W).

    Raises:
        InputError: it is no such stack, or was cut short.
    """
    columns, rows, n_frames = _checked_reader(path).GetSize()
    return n_frames, rows, columns


def read_stack(path: Path | str) -> Stack:
    """Read a stack as the challenge gives it.

    Any number of frames that is a multiple of six is taken; the challenge's own is 840.

    Args:
        path: the .mha file.

    Returns:
        The stack, with (T, 562, 744) uint8 frames of which at least one shows something.

    Raises:
        InputError: the file is no such stack, is damaged, or shows nothing at all.
    """
    path = Path(path)
    reader = _checked_reader(path)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            expected=f"pixels that can be decompressed in {path.name}",
            found="damaged ones",
            advice="copy the file again and compare its checksum",
        ) from error
    geometry = Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    stack = Stack(path.stem, sitk.GetArrayFromImage(image), geometry)
    if not stack.tissue.any():
        raise InputError(
            expected="at least one frame that shows tissue",
            found=f"{len(stack.frames)} frames that are all black in {path.name}",
            advice="check the recording",
        )
    return stack


def _checked_reader(path: Path) -> sitk.ImageFileReader:
    """A reader that holds the file's header, which fits the challenge, and no pixels yet."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            expected="a MetaImage file (.mha)",
            found=f"{path.name}, which cannot be read as an image",
            advice="give the stack as the challenge distributes it",
        ) from error
    size, spacing = reader.GetSize(), reader.GetSpacing()
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    _require(
        len(size) == 3,
        path,
        expected="a three-dimensional stack (x, y, frame)",
        found=f"{len(size)} dimensions",
        advice="give all six sweeps in one file",
    )
    _require(
        reader.GetNumberOfComponents() == 1 and pixel == "8-bit unsigned integer",
        path,
        expected="grey frames of 8-bit unsigned integers",
        found=f"{reader.GetNumberOfComponents()} component(s) of type '{pixel}'",
        advice="convert the stack to uint8 grey levels",
    )
    _require(
        size[:2] == (COLUMNS, ROWS),
        path,
        expected=f"frames of {COLUMNS} x {ROWS} pixels",
        found=f"{size[0]} x {size[1]}",
        advice="do not crop or resize the frames",
    )
    _require(
        size[2] > 0 and size[2] % SWEEPS == 0,
        path,
        expected=f"{SWEEPS} sweeps of equal length ({SWEEPS} x {FRAMES_PER_SWEEP} frames)",
        found=f"{size[2]} frames, no multiple of {SWEEPS}",
        advice="pad every sweep with black frames at its end",
    )
    _require(
        all(abs(step - SPACING_MM) <= SPACING_TOLERANCE_MM for step in spacing[:2]),
        path,
        expected=f"a pixel spacing of {SPACING_MM} mm",
        found=f"{spacing[0]:g} x {spacing[1]:g} mm (1 x 1 is also read where the header has none)",
        advice="write the probe's spacing into the header, as millimetres are measured with it",
    )
    _check_length(path, math.prod(size))
    return reader


def _require(holds: bool, path: Path, *, expected: str, found: str, advice: str) -> None:
    """Refuse the file unless the condition holds."""
    if not holds:
        raise InputError(expected=expected, found=f"{found} in {path.name}", advice=advice)


def _check_length(path: Path, n_pixels: int) -> None:
    """Refuse a file that was cut short, for which ITK has several lines on stderr."""
    header = read_header(path)
    if header is None:
        return  # the pixels lie in a file of their own, or another format looks after itself
    compressed = header.fields.get("CompressedDataSize", "")
    announced = int(compressed) if compressed.isdigit() else n_pixels
    held = path.stat().st_size - header.pixels_at
    _require(
        held >= announced,
        path,
        expected=f"{announced} bytes of pixels, as the header announces",
        found=f"{held}, so the file was cut short,",
        advice="copy the file again and compare its size",
    )
