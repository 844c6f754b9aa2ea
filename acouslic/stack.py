"""Reading a stack: its header is checked before a pixel is read.

Arrays are (frame, row, column) = (T, H, W) uint8; geometry keeps the file's own (x, y, z) order.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from acouslic.challenge import (
    COLUMNS,
    FRAMES,
    FRAMES_PER_SWEEP,
    ROWS,
    SPACING_MM,
    SPACING_TOLERANCE_MM,
    SWEEPS,
)
from acouslic.errors import InputError
from acouslic.metaimage import SUFFIX, Geometry, Header, read_array, read_header

# A stack of more frames would not fit into the platform's memory beside its network: 3.5 GB.
_MOST_FRAMES = 10 * FRAMES


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
    stacks = sorted(file for file in path.glob("[!.]*") if file.suffix.lower() == SUFFIX)
    if not stacks:
        raise InputError(
            expected=f"stacks (.mha) in {path}",
            found="none",
            advice="name the folder that has them",
        )
    return stacks


def require_inside(path: Path, folder: Path) -> None:
    """Make sure that a file lies in a folder, wherever links may lead.

    Raises:
        InputError: it lies elsewhere.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            expected=f"a file in {folder}",
            found=f"{path}, a link that leads out of it",
            advice="put the file itself there",
        )


def check_header(path: Path) -> tuple[int, int, int]:
    """Check, by its header and its length, that a file is a stack as the challenge gives it.

    Returns:
        The stack's shape (T, H, W).

    Raises:
        InputError: it is no such stack, or was cut short.
    """
    n_frames, rows, columns = _checked_header(path).shape
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
    header = _checked_header(path)
    stack = Stack(path.stem, read_array(path, header), header.geometry)
    if not stack.tissue.any():
        raise InputError(
            expected="at least one frame that shows tissue",
            found=f"{len(stack.frames)} frames that are all black in {path.name}",
            advice="check the recording",
        )
    return stack


def _checked_header(path: Path) -> Header:
    """The header of a file, which fits the challenge."""
    header = read_header(path)
    _require(
        len(header.shape) == 3,
        path,
        expected="a three-dimensional stack (x, y, frame)",
        found=f"{len(header.shape)} dimensions",
        advice="give all six sweeps in one file",
    )
    n_frames, rows, columns = header.shape
    _require(
        (rows, columns) == (ROWS, COLUMNS),
        path,
        expected=f"frames of {COLUMNS} x {ROWS} pixels",
        found=f"{columns} x {rows}",
        advice="do not crop or resize the frames",
    )
    _require(
        n_frames % SWEEPS == 0,
        path,
        expected=f"{SWEEPS} sweeps of equal length ({SWEEPS} x {FRAMES_PER_SWEEP} frames)",
        found=f"{n_frames} frames, no multiple of {SWEEPS}",
        advice="pad every sweep with black frames at its end",
    )
    _require(
        n_frames <= _MOST_FRAMES,
        path,
        expected=f"at most {_MOST_FRAMES} frames, ten times the challenge's,",
        found=f"{n_frames}",
        advice="give one case a file",
    )
    spacing = header.geometry.spacing_mm
    _require(
        all(abs(step - SPACING_MM) <= SPACING_TOLERANCE_MM for step in spacing[:2]),
        path,
        expected=f"a pixel spacing of {SPACING_MM} mm",
        found=f"{spacing[0]:g} x {spacing[1]:g} mm (1 x 1 is also read where the header has none)",
        advice="write the probe's spacing into the header, as millimetres are measured with it",
    )
    return header


def _require(holds: bool, path: Path, *, expected: str, found: str, advice: str) -> None:
    """Refuse the file unless the condition holds."""
    if not holds:
        raise InputError(expected=expected, found=f"{found} in {path.name}", advice=advice)
