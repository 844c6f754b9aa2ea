"""MetaImage files (.mha), read and written by ourselves.

A file may come from anybody, so it is read strictly: see `metaheader` for its header. The pixels
must be exactly as many as the header announces, and a compressed stream must end with its checksum
and with the file.

Arrays are (frame, row, column) = (T, H, W) uint8; geometry keeps the file's own (x, y, z) order.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError

from acouslic import files
from acouslic.errors import InputError
from acouslic.metaheader import (
    MOST_HEADER_BYTES,
    Geometry,
    Header,
    LengthError,
    PixelTypeError,
    UnsoundHeaderError,
    parse_header,
)

__all__ = [
    "SUFFIX",
    "Geometry",
    "Header",
    "LengthError",
    "PixelTypeError",
    "read_array",
    "read_filled_frames",
    "read_frames",
    "read_header",
    "write_frames",
]
SUFFIX = ".mha"
# So much is read, and so much inflated, at a time: little memory and few calls.
_READ_BYTES, _INFLATED_BYTES = 1 << 18, 1 << 20
# The fastest of zlib's: a mask takes 1.5 MB. Level 6 would make 0.3 MB of it in 0.9 s more.
_COMPRESSION_LEVEL = 1
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


def read_header(path: Path) -> Header:
    """Read and check a header, and the file's length, but no pixels.

    Raises:
        PixelTypeError: the pixels are of another type than uint8, or of several channels.
        LengthError: the file was cut short, or is too long.
        InputError: the file is not named .mha, is no regular file, cannot be read, or has no sound
            header.
    """
    with _opened(path) as file:
        head = file.read(MOST_HEADER_BYTES)
        n_bytes = file.seek(0, 2)
    try:
        return parse_header(head, n_bytes)
    except UnsoundHeaderError as error:
        raise error.kind(
            expected=f"{error.expected} in {path}",
            found=error.found,
            advice="copy the file again, or write it with SimpleITK",
        ) from None


def read_array(path: Path, header: Header) -> np.ndarray:
    """Read all pixels.

    Args:
        path: the file.
        header: its header.

    Returns:
        An array of the header's shape, uint8.

    Raises:
        InputError: the pixels are damaged, or there is no memory for them.
    """
    with _Pixels.of(path, header) as pixels:
        try:
            # The system gives zeros without memory behind them; black frames then take none.
            array = np.zeros(header.shape, np.uint8)
        except MemoryError:
            raise InputError(
                expected=f"{header.n_pixels / 1e6:.0f} MB of memory for the pixels of {path}",
                found="less",
                advice="give the process more memory",
            ) from None
        pixels.fill(array, is_zero=True)
    return array


def read_frames(path: Path, header: Header) -> Iterator[np.ndarray]:
    """Read the frames of a volume one at a time.

    Args:
        path: the file.
        header: its header, of three dimensions.

    Yields:
        (H, W) uint8. That the stream ends soundly is known after the last one only.

    Raises:
        InputError: the pixels are damaged.
    """
    with _Pixels.of(path, header) as pixels:
        for _ in range(header.shape[0]):
            frame = np.empty(header.shape[1:], np.uint8)
            pixels.fill(frame)
            yield frame


def read_filled_frames(path: Path, header: Header) -> dict[int, np.ndarray]:
    """Read a volume a frame at a time, and keep the frames that are not all zero.

    Args:
        path: the file.
        header: its header, of three dimensions.

    Returns:
        (H, W) uint8, by the frame's index.

    Raises:
        InputError: the pixels are damaged.
    """
    filled = {}
    # One array for all: the system would have to find and clear memory for each anew.
    frame = np.empty(header.shape[1:], np.uint8)
    with _Pixels.of(path, header) as pixels:
        for index in range(header.shape[0]):
            pixels.fill(frame)
            if frame.any():
                filled[index] = frame.copy()
    return filled


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


# ---- the file


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Open a MetaImage; any failure of the system becomes an InputError that names it.

    Raises:
        InputError: it is not named as one, is no regular file, or cannot be read.
    """
    # No log and no file of an answer can hold the name otherwise.
    if not path.name.isprintable() or path.suffix.lower() != SUFFIX:
        raise InputError(
            expected=f"a MetaImage file, its name in UTF-8 and with {SUFFIX} at the end",
            found=ascii(path.name),
            advice="give the file as the challenge distributes it",
        )
    try:
        file = files.open_regular(path)
    except (OSError, ValueError) as error:
        raise files.unreadable(path, error) from error
    with file:
        try:
            yield file
        except OSError as error:
            raise files.unreadable(path, error) from error


class _Pixels:
    """The pixels of an open file, in their order; compressed ones are inflated on the way."""

    def __init__(self, file: BufferedReader, header: Header) -> None:
        self._file = file
        self._inflater = isal_zlib.decompressobj() if header.is_compressed else None

    @classmethod
    @contextmanager
    def of(cls, path: Path, header: Header) -> "Iterator[_Pixels]":
        """Open a file; when the block ends without an error, its pixels must end too.

        Raises:
            InputError: the pixels are damaged, fewer or more than the header announces.
        """
        with _opened(path) as file:
            file.seek(header.pixels_at)
            pixels = cls(file, header)
            try:
                yield pixels
                pixels.end()
            # The stub has an instance where there is a class.
            except (IsalError, _DamagedError) as damage:  # type: ignore[misc]
                raise InputError(
                    expected=f"{header.shape[0]} whole frames in {path}",
                    found=f"damaged pixels ({damage})",
                    advice="copy the file again and compare its checksum",
                ) from None

    def fill(self, array: np.ndarray, *, is_zero: bool = False) -> None:
        """Read as many pixels as an array holds into it; zeros are not written into zeros."""
        target = array.data.cast("B")
        filled = 0
        while filled < len(target):
            filled += self._read(target[filled:], is_zero=is_zero)

    def end(self) -> None:
        """Make sure that there is nothing more; a stream's checksum is compared here at last."""
        inflater = self._inflater
        while inflater is not None and not inflater.eof:
            if self._inflate(inflater, 1):
                raise _DamagedError("a stream that is longer than the header announces")
        if (inflater is not None and inflater.unused_data) or self._file.read(1):
            raise _DamagedError("bytes behind the pixels")

    def _read(self, target: memoryview, *, is_zero: bool) -> int:
        """Read some pixels into the beginning of `target`, and return how many."""
        if self._inflater is None:
            n_read = self._file.readinto(target)
            if not n_read:
                raise _DamagedError("a file that ends early")
            return n_read
        if self._inflater.eof:
            raise _DamagedError("a stream that ends early")
        data = self._inflate(self._inflater, min(len(target), _INFLATED_BYTES))
        if not is_zero or np.frombuffer(data, np.uint8).any():
            target[: len(data)] = data
        return len(data)

    def _inflate(self, inflater: Any, most_bytes: int) -> bytes:
        """Inflate some bytes; none where more of the file is needed for the next one."""
        packed = inflater.unconsumed_tail or self._file.read(_READ_BYTES)
        data: bytes = inflater.decompress(packed, most_bytes)
        if not data and not packed:
            raise _DamagedError("a file that ends early")
        return data


class _DamagedError(Exception):
    """Pixels that cannot be what was written; says what is wrong."""
