"""MetaImage files (.mha): their header, their frames one by one, and a writer that streams.

A whole stack is 351 MB; nothing here holds one. Arrays are (row, column); a header keeps the file's
own (x, y, z) order.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acouslic import files
from acouslic.errors import InputError

# Headers have some 500 bytes: what has more than 64 KiB before the pixels is no header.
_MOST_HEADER_BYTES = 1 << 16
# So much is read at a time, which is little memory and few calls.
_CHUNK_BYTES = 1 << 20
# The fastest of zlib's: a mask takes 1.5 MB. Level 6 would make 0.3 MB of it in 0.9 s more.
_COMPRESSION_LEVEL = 1
_PIXELS = "ElementDataFile"
_HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = True
CompressedDataSize = {size}
TransformMatrix = {direction}
Offset = {origin}
CenterOfRotation = 0 0 0
ElementSpacing = {spacing}
DimSize = {columns} {rows} {frames}
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in space, in the order of SimpleITK."""

    spacing_mm: tuple[float, ...]
    """Distance of neighbouring pixels along x, y, z."""
    origin_mm: tuple[float, ...]
    """Place of the first pixel."""
    direction: tuple[float, ...]
    """Direction cosines, row by row; the axes are the columns."""

    @classmethod
    def plain(cls, spacing_mm: float) -> "Geometry":
        """The geometry of a volume along the axes of space, its first pixel at the origin.

        Args:
            spacing_mm: distance of neighbouring pixels along all three axes.
        """
        return cls((spacing_mm,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


class Header(NamedTuple):
    """The text lines that a MetaImage begins with."""

    fields: dict[str, str]
    """The values by their names."""
    pixels_at: int
    """The byte at which the pixels start."""

    @property
    def is_compressed(self) -> bool:
        """Whether the pixels are a zlib stream."""
        return self.fields.get("CompressedData", "").lower() == "true"


def read_header(path: Path) -> Header | None:
    """The header of a MetaImage with its pixels in the same file; None for any other file."""
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER_BYTES)
    fields: dict[str, str] = {}
    start = 0
    while _PIXELS not in fields and (end := head.find(b"\n", start)) > 0:
        name, _, value = head[start:end].decode("latin-1").partition("=")
        fields[name.strip()] = value.strip()
        start = end + 1
    if not head.startswith(b"ObjectType") or fields.get(_PIXELS) != "LOCAL":
        return None
    return Header(fields, start)


def read_frames(path: Path, pixels_at: int, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Read the frames of a compressed volume of uint8, one at a time.

    Args:
        path: the file.
        pixels_at: the byte at which its zlib stream starts.
        shape: (T, H, W) of the volume.

    Yields:
        (H, W) uint8, read-only.

    Raises:
        InputError: the stream ends early or is damaged.
    """
    n_frames, rows, columns = shape
    inflater = zlib.decompressobj()
    with path.open("rb") as file:
        file.seek(pixels_at)
        for _ in range(n_frames):
            frame = b""
            while len(frame) < rows * columns:
                data = inflater.unconsumed_tail or file.read(_CHUNK_BYTES)
                if not data or inflater.eof:
                    raise _damaged(path, n_frames, "a file that ends early")
                try:
                    frame += inflater.decompress(data, rows * columns - len(frame))
                except zlib.error as error:
                    raise _damaged(path, n_frames, str(error)) from error
            yield np.frombuffer(frame, np.uint8).reshape(rows, columns)


def write_frames(path: Path, frames: Iterable[np.ndarray], geometry: Geometry) -> None:
    """Write frames as one compressed volume; the file appears whole or not at all.

    Args:
        path: the file, .mha.
        frames: (H, W) uint8, all of one size.
        geometry: of the volume, three-dimensional.

    Raises:
        ValueError: a frame is of another type or size, or there is none.
    """
    packer, chunks, count = zlib.compressobj(_COMPRESSION_LEVEL), [], 0
    shape: tuple[int, ...] | None = None
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 2 or frame.shape != (shape or frame.shape):
            raise ValueError(
                f"expected (H, W) uint8 frames of one size, found {frame.dtype} {frame.shape}"
            )
        shape, count = frame.shape, count + 1
        chunks.append(packer.compress(np.ascontiguousarray(frame).data))
    if shape is None:
        raise ValueError("expected at least one frame, found none")
    chunks.append(packer.flush())
    header = _HEADER.format(
        size=sum(map(len, chunks)),
        # MetaImage lists one axis after the other, SimpleITK one row after the other.
        direction=_numbers(np.reshape(geometry.direction, (3, 3)).T.ravel().tolist()),
        origin=_numbers(geometry.origin_mm),
        spacing=_numbers(geometry.spacing_mm),
        columns=shape[1],
        rows=shape[0],
        frames=count,
    )
    with files.new_file(path) as partial, partial.open("wb") as file:
        file.writelines([header.encode("ascii"), *chunks])


def _numbers(values: Sequence[float]) -> str:
    """Decimal text that reads back as the same numbers; whole ones without a fraction."""
    return " ".join(str(int(x)) if x == int(x) else repr(float(x)) for x in values)


def _damaged(path: Path, n_frames: int, problem: str) -> InputError:
    """What to tell the user about pixels that cannot be read."""
    return InputError(
        expected=f"{n_frames} whole frames in {path}",
        found=problem,
        advice="copy the file again",
    )
