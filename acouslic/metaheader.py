"""The header of a MetaImage file (.mha): text lines `key = value`, and the pixels behind them.

Each key that MetaIO's writers put there must have the form that they give it. Other keys are
ignored. MetaIO itself takes much for granted, and some headers end its process.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acouslic.errors import InputError

# Headers have some 500 bytes: what has more than 64 KiB before the pixels is no header.
MOST_HEADER_BYTES = 1 << 16
_PIXELS = "ElementDataFile"
# No stream inflates to more (zlib's technical notes): a symbol of two bits stands for 258 bytes.
_MOST_INFLATED = 1032
# MetaIO's own limit.
_MOST_DIMENSIONS = 10
_MOST_WHOLE_NUMBER = 2**63 - 1
# Direction cosines are written with six digits or more.
_DIRECTION_TOLERANCE = 1e-4
# The keys that no header goes without.
_NEEDED = ("ObjectType", "NDims", "BinaryData", "DimSize", "ElementType")
# Keys with a number a dimension, and those with a matrix; names in one tuple mean the same.
_ORIGINS = ("Offset", "Origin", "Position")
_DIRECTIONS = ("TransformMatrix", "Orientation", "Rotation")
_VECTORS = (*_ORIGINS, "CenterOfRotation", "ImagePosition", "ElementSpacing", "ElementSize")
_PIXEL_TYPES = {
    "MET_CHAR": "8-bit signed integer",
    "MET_UCHAR": "8-bit unsigned integer",
    "MET_SHORT": "16-bit signed integer",
    "MET_USHORT": "16-bit unsigned integer",
    "MET_INT": "32-bit signed integer",
    "MET_UINT": "32-bit unsigned integer",
    "MET_FLOAT": "32-bit float",
    "MET_DOUBLE": "64-bit float",
}
# What may stand around keys and values.
_BLANKS = " \t\r"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
# What a message quotes of a file.
_QUOTED = 40


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


@dataclass(frozen=True)
class Header:
    """What a MetaImage says of its pixels."""

    shape: tuple[int, ...]
    """The array's: (T, H, W) of a volume."""
    geometry: Geometry
    """Where the image lies in space."""
    is_compressed: bool
    """Whether the pixels are a zlib stream."""
    pixels_at: int
    """The byte at which the pixels start."""

    @property
    def n_pixels(self) -> int:
        """The number of pixels, and of bytes."""
        return math.prod(self.shape)


class PixelTypeError(InputError):
    """The pixels are not single unsigned integers of 8 bits."""


class LengthError(InputError):
    """The file is shorter or longer than its header announces."""


class UnsoundHeaderError(Exception):
    """A header that is not as it must be."""

    def __init__(self, expected: str, found: str, kind: type[InputError] = InputError) -> None:
        """Say what is wrong.

        Args:
            expected: what should be there.
            found: what is there instead.
            kind: the error that its user gets.
        """
        super().__init__(expected, found)
        self.expected, self.found, self.kind = expected, found, kind


def parse_header(head: bytes, n_bytes: int) -> Header:
    """Read a header from a file's first bytes.

    Args:
        head: the first MOST_HEADER_BYTES, or all.
        n_bytes: the file's length.

    Raises:
        UnsoundHeaderError: it is no header, has a value of another form, announces pixels that are
            not single uint8, or not as many as there are.
    """
    texts, pixels_at = _split(head)
    values = {name: _value(name, text) for name, text in texts.items()}
    return _interpret(values, pixels_at, n_bytes)


def _split(head: bytes) -> tuple[dict[str, str], int]:
    """The known keys of a header with their texts, and the byte behind it."""
    texts: dict[str, str] = {}
    start = 0
    while _PIXELS not in texts:
        end = head.find(b"\n", start)
        if end < 0:
            raise UnsoundHeaderError(
                f"the header of a MetaImage, up to {_PIXELS},",
                "something that cannot be read as an image",
            )
        name, _, text = head[start:end].decode("latin-1").partition("=")
        name = name.strip(_BLANKS)
        if name in texts:
            raise UnsoundHeaderError(f"one {name}", "two")
        if name in _FORMS:
            texts[name] = text.strip(_BLANKS)
        start = end + 1
    return texts, start


def _value(name: str, text: str) -> Any:
    """The value of a known key."""
    try:
        return _FORMS[name](text)
    except ValueError as error:
        raise UnsoundHeaderError(f"{name} = {error}", repr(text[:_QUOTED])) from None


def _any_text(text: str) -> str:
    return text


def _word(*words: str) -> Callable[[str], str]:
    """One of some words, in any case of letters; the value is in small ones."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(" or ".join(words))
        return text.lower()

    return parse


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within limits."""

    def parse(text: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("a finite number")
    return float(text)


def _list_of(parse_one: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Values with blanks between them."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(parse_one(word) for word in text.replace("\t", " ").split(" ") if word)

    return parse


_FLAG, _NUMBERS, _SIZE = _word("true", "false"), _list_of(_number), _whole(1, 2**31 - 1)
# All that MetaIO's writers put into the header of an image, and the older names that its readers
# take. Sizes and orders of magnitude are those of MetaIO's own variables.
_FORMS: Mapping[str, Callable[[str], Any]] = {
    "ObjectType": _word("image"),
    "ObjectSubType": _any_text,
    "Comment": _any_text,
    "Name": _any_text,
    "TransformType": _any_text,
    "AcquisitionDate": _any_text,
    "AnatomicalOrientation": _any_text,
    "Modality": _any_text,
    "ID": _whole(-(2**31), 2**31 - 1),
    "ParentID": _whole(-(2**31), 2**31 - 1),
    "Color": _NUMBERS,
    "SequenceID": _NUMBERS,
    "BinaryData": _FLAG,
    "BinaryDataByteOrderMSB": _FLAG,
    "ElementByteOrderMSB": _FLAG,
    "CompressedData": _FLAG,
    "CompressedDataSize": _whole(0, _MOST_WHOLE_NUMBER),
    "HeaderSize": _whole(-1, _MOST_WHOLE_NUMBER),
    "NDims": _whole(1, _MOST_DIMENSIONS),
    "DimSize": _list_of(_SIZE),
    # Lengths are millimetres here; `?` is what a writer says that was not told.
    "DistanceUnits": _word("mm", "?"),
    **dict.fromkeys(_VECTORS, _NUMBERS),
    **dict.fromkeys(_DIRECTIONS, _NUMBERS),
    "ElementMin": _number,
    "ElementMax": _number,
    "ElementToIntensityFunctionSlope": _number,
    "ElementToIntensityFunctionOffset": _number,
    "ElementNumberOfChannels": _SIZE,
    "ElementType": _any_text,
    _PIXELS: _word("local"),
}


def _interpret(values: Mapping[str, Any], pixels_at: int, n_bytes: int) -> Header:
    """Make sense of a header's values.

    Args:
        values: by key, each of its key's form.
        pixels_at: the byte at which the pixels start.
        n_bytes: the file's length.
    """
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise UnsoundHeaderError(f"the key {missing[0]}", "none")
    _check_counts(values)
    _check_pixel_type(values)
    header = Header(
        shape=tuple(reversed(values["DimSize"])),
        geometry=_geometry(values),
        is_compressed=values.get("CompressedData") == "true",
        pixels_at=pixels_at,
    )
    # 0: right behind the header; -1: as many bytes as there are pixels, from the file's end.
    if values.get("HeaderSize", 0) not in (-1, 0, pixels_at):
        raise UnsoundHeaderError(
            f"pixels at byte {pixels_at}", f"HeaderSize = {values['HeaderSize']}"
        )
    _check_length(header, values.get("CompressedDataSize"), n_bytes - pixels_at)
    return header


def _check_counts(values: Mapping[str, Any]) -> None:
    """Every list has as many values as there are dimensions."""
    n = values["NDims"]
    counts = dict.fromkeys(("DimSize", *_VECTORS), n) | dict.fromkeys(_DIRECTIONS, n * n)
    for name, count in counts.items():
        if name in values and len(values[name]) != count:
            raise UnsoundHeaderError(f"{count} numbers for {name}", f"{len(values[name])}")


def _check_pixel_type(values: Mapping[str, Any]) -> None:
    """Binary uint8, one number a pixel."""
    name, n_channels = values["ElementType"], values.get("ElementNumberOfChannels", 1)
    if (name, n_channels) != ("MET_UCHAR", 1):
        kind = _PIXEL_TYPES.get(name, repr(name[:_QUOTED]))
        raise UnsoundHeaderError(
            "grey pixels of 8-bit unsigned integers (MET_UCHAR)",
            f"{n_channels} component(s) of type {kind}",
            PixelTypeError,
        )
    if values["BinaryData"] != "true":
        raise UnsoundHeaderError("binary pixels", "BinaryData = False")


def _geometry(values: Mapping[str, Any]) -> Geometry:
    """The place in space; what a header leaves out is as MetaIO has it."""
    n = values["NDims"]
    # As MetaIO does, the size of a pixel stands for the distance where that is not given.
    spacing = values.get("ElementSpacing", values.get("ElementSize", (1.0,) * n))
    if min(spacing) <= 0:
        raise UnsoundHeaderError("a spacing above 0", f"{spacing}")
    # MetaImage lists one axis after the other, SimpleITK one row after the other.
    direction = np.reshape(_first(values, _DIRECTIONS, np.eye(n).ravel()), (n, n)).T
    if not np.allclose(direction @ direction.T, np.eye(n), rtol=0, atol=_DIRECTION_TOLERANCE):
        raise UnsoundHeaderError(
            "axes at right angles, of length 1", f"{direction.T.ravel().tolist()}"
        )
    origin = _first(values, _ORIGINS, (0.0,) * n)
    return Geometry(tuple(spacing), tuple(origin), tuple(direction.ravel().tolist()))


def _first(values: Mapping[str, Any], names: Sequence[str], default: Any) -> Any:
    """The value of the one of several keys, which mean the same, that is given."""
    given = [name for name in names if name in values]
    if len(given) > 1:
        raise UnsoundHeaderError(f"one of {' and '.join(given)}, which mean the same,", "both")
    return values[given[0]] if given else default


def _check_length(header: Header, compressed: int | None, n_bytes: int) -> None:
    """The file holds as many bytes behind its header as that announces."""
    announced = header.n_pixels
    if header.is_compressed:
        announced = n_bytes if compressed is None else compressed
    if n_bytes != announced:
        cut = ", so the file was cut short" if n_bytes < announced else ""
        raise UnsoundHeaderError(
            f"{announced} bytes of pixels, as the header announces,", f"{n_bytes}{cut}", LengthError
        )
    if header.is_compressed and header.n_pixels > _MOST_INFLATED * n_bytes:
        raise UnsoundHeaderError(
            f"the {header.n_pixels} pixels of DimSize", f"a stream of {n_bytes} bytes", LengthError
        )
