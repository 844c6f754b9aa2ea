"""Label volumes, kept as their few frames that are not empty, and read a frame at a time.

A stack's labels are 351 MB of which a few frames are not zero: never laid out whole, they cost a
tenth of the time and of the memory.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from acouslic.errors import InputError
from acouslic.fan import SWEEPS
from acouslic.metaimage import read_header

_CHUNK_BYTES = 1 << 20
_ADVICE = "copy the file again"


@dataclass(frozen=True)
class Labels:
    """A volume of `n_frames` frames (H, W); `frames` has those that are not empty, by index."""

    n_frames: int
    frame_shape: tuple[int, int]
    frames: Mapping[int, np.ndarray]
    spacing_mm: tuple[float, ...] = ()

    @classmethod
    def from_volume(cls, volume: np.ndarray, spacing_mm: tuple[float, ...] = ()) -> "Labels":
        """From a whole (T, H, W) array."""
        filled = np.flatnonzero(volume.any(axis=(1, 2))).tolist()
        return cls(
            len(volume), volume.shape[1:], {frame: volume[frame] for frame in filled}, spacing_mm
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return (self.n_frames, *self.frame_shape)

    @cached_property
    def filled(self) -> np.ndarray:
        """Which frames are not empty, (T,) bool."""
        filled = np.zeros(self.n_frames, bool)
        filled[list(self.frames)] = True
        return filled

    def frame(self, index: int) -> np.ndarray:
        """One frame's labels, (H, W); zeros where it is empty, or not in the volume."""
        return self.frames.get(index, np.zeros(self.frame_shape, np.uint8))

    def has(self, label: int, frame: int) -> bool:
        """Whether a frame has pixels of a label."""
        return bool((self.frame(frame) == label).any())

    def sweep_of(self, frame: int) -> int | None:
        """The 1-based sweep that holds a frame, None outside of the volume."""
        if not 0 <= frame < self.n_frames:
            return None
        return frame // (self.n_frames // SWEEPS) + 1


def read_labels(path: Path) -> Labels:
    """Read a label volume from an image file.

    Compressed .mha of uint8 is inflated frame by frame; all else is left to SimpleITK.

    Raises:
        InputError: the file cannot be read, ends early, or is no volume of six equal sweeps.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    size = reader.GetSize()
    if len(size) != 3 or reader.GetNumberOfComponents() != 1 or not size[2] or size[2] % SWEEPS:
        raise InputError(
            expected=f"labels (frames, rows, columns) of {SWEEPS} equal sweeps in {path}",
            found=f"size {size} with {reader.GetNumberOfComponents()} component(s)",
            advice="give one label a pixel for all frames of the stack",
        )
    start = _start_of_deflated(path) if reader.GetPixelID() == sitk.sitkUInt8 else None
    if start is None:
        try:
            return Labels.from_volume(sitk.GetArrayFromImage(reader.Execute()), reader.GetSpacing())
        except RuntimeError as error:
            raise _unreadable(path, error) from error
    shape = (size[1], size[0])
    inflated = enumerate(_inflate(path, start, shape[0] * shape[1], size[2]))
    arrays = ((index, np.frombuffer(data, np.uint8)) for index, data in inflated)
    frames = {index: array.reshape(shape) for index, array in arrays if array.any()}
    return Labels(size[2], shape, frames, reader.GetSpacing())


def _start_of_deflated(path: Path) -> int | None:
    """Where a MetaImage's deflated pixels start; None for other files and other ways of storing."""
    header = read_header(path)
    if header is None or header.fields.get("CompressedData", "").lower() != "true":
        return None
    return header.pixels_at


def _inflate(path: Path, start: int, frame_bytes: int, n_frames: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(n_frames):
            frame = b""
            while len(frame) < frame_bytes:
                data = inflater.unconsumed_tail or file.read(_CHUNK_BYTES)
                if not data or inflater.eof:
                    raise InputError(
                        expected=f"{n_frames} whole frames in {path}",
                        found="a file that ends early",
                        advice=_ADVICE,
                    )
                try:
                    frame += inflater.decompress(data, frame_bytes - len(frame))
                except zlib.error as error:
                    raise _unreadable(path, error) from error
            yield frame


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        expected=f"a whole image in {path}",
        found=str(error).strip().splitlines()[-1].strip(),
        advice=_ADVICE,
    )
