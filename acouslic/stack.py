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
from acouslic.errors import InputError, OddStackError
from acouslic.metaimage import SUFFIX, Geometry, Header, read_array, read_header

# A stack of more frames would not fit into the platform's memory beside its network: 3.5 GB.
_MOST_FRAMES = 10 * FRAMES


@dataclass(frozen=True)
class Stack:
    """One case: six sweeps of frames behind each other."""

    name: str
    """The file's name without its extension."""
    frames: np.ndarray
    """(T, H, W) uint8 grey levels; T is a multiple of six, unless `oddity` says otherwise."""
    geometry: Geometry
    """Where the stack lies in space, as its file says."""

    @property
    def frames_per_sweep(self) -> int:
        """The length of each sweep, its black frames included; the last one's may be shorter."""
        return -(-len(self.frames) // SWEEPS)

    @cached_property
    def tissue(self) -> np.ndarray:
        """Which frames show anything, (T,) bool; the padding behind a sweep is black."""
        return np.asarray(self.frames.any(axis=(1, 2)))

    @property
    def oddity(self) -> OddStackError | None:
        """Why the stack cannot be measured; None where it can."""
        if not self.tissue.any():
            return OddStackError(
                expected="at least one frame that shows tissue",
                found=f"{len(self.frames)} frames that are all black in {self.name}",
                advice="check the recording",
            )
        return _unequal_sweeps(len(self.frames), self.name)

    def with_whole_sweeps(self) -> "Stack":
        """The stack, with black frames behind the last ones where T is no multiple of six."""
        missing = self.frames_per_sweep * SWEEPS - len(self.frames)
        if not missing:
            return self
        padded = np.concatenate([self.frames, np.zeros_like(self.frames[:1].repeat(missing, 0))])
        return Stack(self.name, padded, self.geometry)

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


def check_header(path: Path, *, fail_soft: bool = False) -> tuple[int, int, int]:
    """Check, by its header and its length, that a file is a stack as the challenge gives it.

    Args:
        path: the .mha file.
        fail_soft: whether any number of frames will do.

    Returns:
        The stack's shape (T, H, W).

    Raises:
        InputError: it is no such stack, or was cut short.
    """
    n_frames, rows, columns = _checked_header(path, fail_soft=fail_soft).shape
    return n_frames, rows, columns


def read_stack(path: Path | str, *, fail_soft: bool = False) -> Stack:
    """Read a stack as the challenge gives it.

    Any number of frames that is a multiple of six is taken; the challenge's own is 840.

    Args:
        path: the .mha file.
        fail_soft: whether a stack that cannot be measured is read as well, see `Stack.oddity`.

    Returns:
        The stack, with (T, 562, 744) uint8 frames of which at least one shows something.

    Raises:
        InputError: the file is no such stack, is damaged, or shows nothing at all.
    """
    path = Path(path)
    header = _checked_header(path, fail_soft=fail_soft)
    stack = Stack(path.stem, read_array(path, header), header.geometry)
    if not fail_soft and stack.oddity is not None:
        raise stack.oddity
    return stack


def _checked_header(path: Path, *, fail_soft: bool) -> Header:
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
    oddity = _unequal_sweeps(n_frames, path.name)
    if oddity is not None and not fail_soft:
        raise oddity
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


def _unequal_sweeps(n_frames: int, name: str) -> OddStackError | None:
    if n_frames % SWEEPS == 0:
        return None
    return OddStackError(
        expected=f"{SWEEPS} sweeps of equal length ({SWEEPS} x {FRAMES_PER_SWEEP} frames)",
        found=f"{n_frames} frames, no multiple of {SWEEPS} in {name}",
        advice="pad every sweep with black frames at its end",
    )


def _require(holds: bool, path: Path, *, expected: str, found: str, advice: str) -> None:
    """Refuse the file unless the condition holds."""
    if not holds:
        raise InputError(expected=expected, found=f"{found} in {path.name}", advice=advice)
