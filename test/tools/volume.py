"""An image file (.mha) read apart from the project's own reader, as the check of what that writes.

NumPy and the standard library only, since it runs inside the image too. Lists are x, y, z, as in
the file; arrays are (frame, row, column).
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TYPES = {"MET_UCHAR": np.uint8, "MET_SHORT": np.int16, "MET_FLOAT": np.float32}
LAST_KEY = b"ElementDataFile"


@dataclass(frozen=True)
class Header:
    """What has to agree between a stack and its mask volume."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class Volume:
    """An image file."""

    header: Header
    """Its geometry."""
    kind: str
    """The type of its pixels, as MetaIO calls it."""
    pixels: np.ndarray
    """All of them."""


def read_header(path: Path) -> Header:
    """The geometry of an image file.

    Raises:
        ValueError: it is none.
        OSError: it cannot be read.
    """
    return _geometry(_split(path.read_bytes())[0])


def read_volume(path: Path) -> Volume:
    """A whole image file.

    Raises:
        ValueError: it is none, or its pixels are not exactly those that it announces.
        OSError: it cannot be read.
    """
    keys, data = _split(path.read_bytes())
    geometry, kind = _geometry(keys), keys["ElementType"]
    if kind not in TYPES or keys.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError(f"pixels of {keys.get('ElementNumberOfChannels', '1')} {kind}")
    if keys.get("CompressedData") == "True":
        inflater = zlib.decompressobj()
        data = inflater.decompress(data)
        if not inflater.eof or inflater.unused_data:
            raise ValueError("a compressed stream that does not end with the file")
    pixels = np.frombuffer(data, TYPES[kind])
    if pixels.size != math.prod(geometry.size):
        raise ValueError(f"{pixels.size} pixels where {math.prod(geometry.size)} are announced")
    return Volume(geometry, kind, pixels.reshape(geometry.size[::-1]))


def _split(content: bytes) -> tuple[dict[str, str], bytes]:
    """A file's keys, and what lies behind the last of them."""
    start = content.find(LAST_KEY)
    end = content.find(b"\n", start)
    lines = content[: max(end, 0)].decode("ascii").splitlines()
    keys = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if start < 0 or keys.get(LAST_KEY.decode()) != "LOCAL":
        raise ValueError("no header of an image whose pixels are in the same file")
    return keys, content[end + 1 :]


def _geometry(keys: dict[str, str]) -> Header:
    try:
        size = tuple(int(value) for value in keys["DimSize"].split())
        lists = (keys[key] for key in ("ElementSpacing", "Offset", "TransformMatrix"))
        return Header(size, *(tuple(float(value) for value in text.split()) for text in lists))
    except KeyError as error:
        raise ValueError(f"no {error} in the header") from error
