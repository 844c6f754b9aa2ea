"""The few text lines that a MetaImage (.mha) begins with, as far as ITK does not tell of them."""

from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 1 << 16
PIXELS = "ElementDataFile"


class Header(NamedTuple):
    """`fields` by their names, and the byte at which the pixels start."""

    fields: dict[str, str]
    pixels_at: int


def read_header(path: Path) -> Header | None:
    """The header of a MetaImage with its pixels in the same file; None for any other file."""
    with path.open("rb") as file:
        head = file.read(MOST_BYTES)
    fields: dict[str, str] = {}
    start = 0
    while PIXELS not in fields and (end := head.find(b"\n", start)) > 0:
        name, _, value = head[start:end].decode("latin-1").partition("=")
        fields[name.strip()] = value.strip()
        start = end + 1
    if not head.startswith(b"ObjectType") or fields.get(PIXELS) != "LOCAL":
        return None
    return Header(fields, start)
