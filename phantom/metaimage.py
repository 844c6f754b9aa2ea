"""Writes a stack as a compressed MetaImage (.mha), frame by frame, so that no whole volume is held
in memory.

SimpleITK writes the same file, but takes twice as long and wants all 351 MB at once.
"""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = True
CompressedDataSize = {size}
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = {spacing} {spacing} {spacing}
DimSize = {columns} {rows} {frames}
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""


def write_mha(path: Path, frames: Iterable[np.ndarray], *, spacing_mm: float) -> None:
    """Write (H, W) uint8 frames, all of one size, as one volume; the file appears whole or not at
    all.

    Raises ValueError for a frame of another type or size, or for none at all.
    """
    packer, chunks, count, shape = zlib.compressobj(1), [], 0, None
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
        spacing=spacing_mm,
        columns=shape[1],
        rows=shape[0],
        frames=count,
    )
    write_whole(path, [header.encode("ascii"), *chunks])


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write bytes under a temporary name in the same folder, then give the file its name."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.writelines(chunks)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
