"""Damaged and hostile stacks: each is refused in one line, or its pixels are right.

`ACOUSLIC_MUTATIONS=10000 pytest test/test_hostile_stacks.py -k mutated -s` tries that many headers
and prints the counts.
"""

import json
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, INPUT_FOLDER, SPACING_MM
from acouslic.errors import InputError
from acouslic.metaimage import Geometry, LengthError, PixelTypeError, write_frames
from acouslic.platform_io import find_input
from acouslic.stack import find_stacks, read_stack, require_inside

N_MUTATIONS = int(os.environ.get("ACOUSLIC_MUTATIONS", "400"))
N_FLIPS = 200
SEED = 19
# The slowest refusal took 0.02 s; a hang is one of another kind.
MOST_SECONDS = 5.0
KEPT = "ElementDataFile = LOCAL\n"


def speckle() -> np.ndarray:
    """(6, 562, 744) uint8: noise in the fan, as a probe makes it."""
    grains = np.random.default_rng(SEED).rayleigh(30, (6, *FRAME_SHAPE)).clip(0, 255)
    return np.asarray(grains.astype(np.uint8) * CHALLENGE_FAN.mask())


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return speckle()


@pytest.fixture
def stack(tmp_path: Path, frames: np.ndarray) -> Path:
    path = tmp_path / "case.mha"
    write_frames(path, frames, Geometry.plain(SPACING_MM))
    return path


def split(path: Path) -> tuple[str, bytes]:
    """A file's header and its pixels."""
    head, pixels = path.read_bytes().split(KEPT.encode(), 1)
    return head.decode() + KEPT, pixels


def with_line(header: str, key: str, value: str | None) -> str:
    """A header with another value of a key, or without it; a new key goes before the last line."""
    lines = [line for line in header.splitlines() if not line.startswith(f"{key} =")]
    new = [] if value is None else [f"{key} = {value}"]
    if key == "ElementDataFile":
        return "\n".join([*lines, *new]) + "\n"
    return "\n".join([*lines[:-1], *new, lines[-1]]) + "\n"


def refusal(path: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(InputError) as caught:
        read_stack(path)
    line = str(caught.value)
    assert line.isprintable(), line
    return line


# ---- what real files have


@pytest.mark.parametrize("compressed", [True, False])
def test_a_stack_that_simpleitk_saved_again_is_read(
    stack: Path, frames: np.ndarray, compressed: bool
) -> None:
    """As the platform's importer does it, with what ITK and people add to the header."""
    image = sitk.ReadImage(str(stack))
    for key, value in {"PatientID": "Jörg", "Comment": "a = b", "Split": "one\ntwo"}.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(stack), useCompression=compressed)
    assert b"ITK_original_spacing" in stack.read_bytes()[:1000]
    assert np.array_equal(read_stack(stack).frames, frames)


EXTRA_KEYS = {
    "Comment": "made by hand",
    "ObjectSubType": "None",
    "Name": "a",
    "ID": "-1",
    "ParentID": "3",
    "AcquisitionDate": "2024.05.06",
    "Color": "1 1 1 1",
    "ElementByteOrderMSB": "False",
    "DistanceUnits": "mm",
    "AnatomicalOrientation": "RAI",
    "HeaderSize": "0",
    "Modality": "MET_MOD_US",
    "ImagePosition": "0 0 0",
    "SequenceID": "1 2 3 4",
    "ElementMin": "0",
    "ElementMax": "2.55e+02",
    "ElementNumberOfChannels": "1",
    "ElementSize": "0.28 0.28 0.28",
    "ElementToIntensityFunctionSlope": "1",
    "ElementToIntensityFunctionOffset": "-0.5",
    "Window": "= 40",
    "é": "\x07",
}


@pytest.mark.parametrize("key", EXTRA_KEYS)
def test_what_writers_put_into_a_header_and_unknown_keys_are_taken(
    stack: Path, frames: np.ndarray, key: str
) -> None:
    header, pixels = split(stack)
    stack.write_bytes(with_line(header, key, EXTRA_KEYS[key]).encode() + pixels)
    assert np.array_equal(read_stack(stack).frames, frames)


def test_the_size_of_a_pixel_stands_for_a_missing_spacing(stack: Path) -> None:
    header, pixels = split(stack)
    header = with_line(with_line(header, "ElementSpacing", None), "ElementSize", "0.28 0.28 2")
    stack.write_bytes(header.encode() + pixels)
    assert read_stack(stack).geometry.spacing_mm == (0.28, 0.28, 2.0)
    assert sitk.ReadImage(str(stack)).GetSpacing() == (0.28, 0.28, 2.0)


@pytest.mark.parametrize("key", ["Orientation", "Rotation", "TransformMatrix"])
@pytest.mark.parametrize("place", ["Offset", "Origin", "Position"])
def test_older_names_mean_what_they_mean_to_itk(stack: Path, key: str, place: str) -> None:
    header, pixels = split(stack)
    for old in ("TransformMatrix", "Offset"):
        header = with_line(header, old, None)
    header = with_line(with_line(header, key, "0 0 1 1 0 0 0 1 0"), place, "1 -2.5 3e1")
    stack.write_bytes(header.encode() + pixels)
    image, geometry = sitk.ReadImage(str(stack)), read_stack(stack).geometry
    assert geometry == Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def test_lines_may_end_as_windows_ends_them(stack: Path, frames: np.ndarray) -> None:
    header, pixels = split(stack)
    stack.write_bytes(header.replace("\n", "\r\n").encode() + pixels)
    assert np.array_equal(read_stack(stack).frames, frames)


def test_a_name_in_capitals_is_a_stack(stack: Path, frames: np.ndarray) -> None:
    upper = stack.rename(stack.with_name("CASE.MHA"))
    assert find_stacks(upper.parent) == [upper]
    assert np.array_equal(read_stack(upper).frames, frames)


# ---- headers that lie

LIES: dict[str, tuple[str, str | None]] = {
    "another shape, no larger": ("DimSize", "744 562 12"),
    "one frame less": ("DimSize", "744 562 5"),
    "a smaller stream": ("CompressedDataSize", "1000"),
    "a larger stream": ("CompressedDataSize", "999999999"),
    "no size that counts": ("CompressedDataSize", "1e6"),
    "pixels elsewhere": ("HeaderSize", "20"),
    "pixels far behind": ("HeaderSize", "1000000"),
    "not compressed": ("CompressedData", "False"),
    "no dimensions": ("NDims", "-1"),
    "many dimensions": ("NDims", "2147483647"),
    "fewer dimensions": ("NDims", "2"),
    "no size": ("DimSize", None),
    "an overflow": ("DimSize", "744 562 99999999999999999999"),
    "a negative size": ("DimSize", "744 562 -6"),
    "a fraction": ("DimSize", "744 562 6.0"),
    "a printf format": ("ElementDataFile", "%s%s%s%n.raw 1 6 1"),
    "a list of files": ("ElementDataFile", "LIST"),
    "standard input": ("ElementDataFile", "/dev/stdin"),
    "an endless device": ("ElementDataFile", "/dev/urandom"),
    "another file": ("ElementDataFile", "case.raw"),
    "text for pixels": ("BinaryData", "False"),
    "no word about pixels": ("BinaryData", None),
    "another object": ("ObjectType", "Scene"),
    "pixels of no size": ("ElementType", "MET_NONE"),
    "wide pixels": ("ElementType", "MET_USHORT"),
    "colours": ("ElementNumberOfChannels", "3"),
    "spacing that is no number": ("ElementSpacing", "nan nan nan"),
    "spacing below zero": ("ElementSpacing", "-0.28 -0.28 -0.28"),
    "too few spacings": ("ElementSpacing", "0.28 0.28"),
    "an origin without end": ("Offset", "0 0 1e999"),
    "a number with a line": ("Offset", "0 0 1_0"),
    "a number of another script": ("Offset", "0 0 ٣"),
    "axes that fall together": ("TransformMatrix", "1 0 0 1 0 0 0 0 1"),
    "axes that stretch": ("TransformMatrix", "2 0 0 0 1 0 0 0 1"),
    "inches": ("DistanceUnits", "in"),
    "two origins": ("Position", "0 0 0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(stack: Path, lie: str) -> None:
    header, pixels = split(stack)
    stack.write_bytes(with_line(header, *LIES[lie]).encode() + pixels)
    assert refusal(stack).startswith("expected ")


def test_a_key_that_is_given_twice_is_refused(stack: Path) -> None:
    header, pixels = split(stack)
    stack.write_bytes(header.replace("NDims", "DimSize = 744 562 6\nNDims").encode() + pixels)
    assert "found two" in refusal(stack)


def test_a_header_without_end_is_refused(stack: Path) -> None:
    stack.write_bytes(b"ObjectType = Image\n" + b"Comment = a\n" * 1_000_000)
    assert "found two" in refusal(stack)
    stack.write_bytes(b"ObjectType = Image\n" + b"Unknown = a\n" * 1_000_000)
    assert "cannot be read as an image" in refusal(stack)


def test_more_frames_than_a_stream_can_hold_take_no_memory(stack: Path) -> None:
    header, pixels = split(stack)
    stack.write_bytes(with_line(header, "DimSize", "744 562 2147483640").encode() + pixels)
    with pytest.raises(LengthError, match="a stream of"):
        read_stack(stack)


def test_more_frames_than_memory_holds_are_refused(stack: Path, frames: np.ndarray) -> None:
    """A stream of few bytes may announce very many black pixels."""
    write_frames(stack, (frames[0] * 0 for _ in range(8406)), Geometry.plain(SPACING_MM))
    assert "at most 8400 frames" in refusal(stack)


def test_pixels_of_other_types_have_an_error_of_their_own(stack: Path) -> None:
    header, pixels = split(stack)
    stack.write_bytes(with_line(header, "ElementType", "MET_FLOAT").encode() + pixels)
    with pytest.raises(PixelTypeError, match="32-bit float"):
        read_stack(stack)


# ---- pixels that are damaged


def pack(path: Path, packed: bytes) -> None:
    """Put another stream behind a stack's header, which knows its length."""
    header, _ = split(path)
    path.write_bytes(with_line(header, "CompressedDataSize", str(len(packed))).encode() + packed)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: zlib.compress(raw[:-1]), "ends early"),
        (lambda raw: zlib.compress(raw + b"\0"), "longer than the header announces"),
        (lambda raw: zlib.compress(raw)[:-1], "ends early"),
        (lambda raw: zlib.compress(raw)[:-4] + b"\0\0\0\0", "checksum"),
        (lambda raw: zlib.compress(raw) + b"\0", "bytes behind"),
        (lambda raw: zlib.compress(raw) + zlib.compress(raw), "bytes behind"),
        (lambda raw: zlib.compressobj(wbits=-15).compress(raw), "damaged pixels"),
        (lambda raw: b"\x1f\x8b" + zlib.compress(raw)[2:], "damaged pixels"),
        (lambda raw: zlib.compress(b"") + raw, "ends early"),
        (lambda raw: raw, "damaged pixels"),
    ],
)
def test_a_stream_that_is_not_the_pixels_is_refused(
    stack: Path, frames: np.ndarray, change: Callable[[bytes], bytes], problem: str
) -> None:
    pack(stack, change(frames.tobytes()))
    assert problem in refusal(stack)


@pytest.mark.parametrize("surplus", [b"\0", b"ObjectType = Image\n"])
def test_pixels_that_are_not_compressed_end_with_the_file(
    stack: Path, frames: np.ndarray, surplus: bytes
) -> None:
    header, _ = split(stack)
    header = with_line(with_line(header, "CompressedDataSize", None), "CompressedData", "False")
    stack.write_bytes(header.encode() + frames.tobytes())
    assert np.array_equal(read_stack(stack).frames, frames)
    stack.write_bytes(header.encode() + frames.tobytes() + surplus)
    assert "bytes of pixels, as the header announces" in refusal(stack)


def test_a_flipped_bit_is_always_refused(
    stack: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """ITK takes most of these: it does not look at the stream's checksum."""
    whole = stack.read_bytes()
    start = whole.index(KEPT.encode()) + len(KEPT)
    for bit in random.Random(SEED).sample(range(8 * start, 8 * len(whole)), N_FLIPS):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        stack.write_bytes(flipped)
        assert "damaged pixels" in refusal(stack), bit
    record_testsuite_property("flips", json.dumps({"refused": N_FLIPS}))


# ---- what is no file of ours


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "case.mha")
    assert "a pipe or a device" in refusal(tmp_path / "case.mha")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/stdin"])
def test_a_device_is_refused(tmp_path: Path, device: str) -> None:
    (tmp_path / "case.mha").symlink_to(device)
    refusal(tmp_path / "case.mha")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "case.mha").mkdir()
    assert "a folder" in refusal(tmp_path / "case.mha")


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    (tmp_path / "case.mha").symlink_to(tmp_path / "absent.mha")
    assert "No such file" in refusal(tmp_path / "case.mha")


def test_a_file_that_may_not_be_read_says_so(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read anything, so the system's answer is played."""

    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "Permission denied" in refusal(stack)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".tif", ".dcm", ".mhd", ".mha.gz", ""])
def test_other_formats_are_refused_by_name(stack: Path, suffix: str) -> None:
    assert "with .mha at the end" in refusal(stack.rename(stack.with_name(f"case{suffix}")))


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".tif", ".png"])
def test_other_formats_are_refused_under_our_name(tmp_path: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(speckle()[0] if suffix == ".png" else speckle())
    sitk.WriteImage(image, str(tmp_path / f"other{suffix}"))
    path = (tmp_path / f"other{suffix}").rename(tmp_path / "case.mha")
    assert "cannot be read as an image" in refusal(path)


@pytest.mark.parametrize("name", [b"case\xff.mha", b"case\n.mha", b"case\x1b[2J.mha"])
def test_a_name_that_no_log_can_hold_is_refused(stack: Path, name: bytes) -> None:
    path = stack.rename(os.fsdecode(os.fsencode(stack.parent) + b"/" + name))
    assert "its name in UTF-8" in refusal(path)


def test_a_link_out_of_a_folder_is_refused(tmp_path: Path, stack: Path) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "in.mha").write_bytes(b"")
    (folder / "link.mha").symlink_to("in.mha")
    (folder / "out.mha").symlink_to(stack)
    (tmp_path / "again").symlink_to(folder)
    require_inside(folder / "link.mha", folder)
    require_inside(tmp_path / "again" / "in.mha", folder)
    with pytest.raises(InputError, match="a link that leads out"):
        require_inside(folder / "out.mha", folder)
    with pytest.raises(InputError, match="a link that leads out"):
        require_inside(folder / ".." / "case.mha", folder)


def test_the_platforms_input_is_no_link_out_of_its_folder(tmp_path: Path, stack: Path) -> None:
    folder = tmp_path / "input" / INPUT_FOLDER
    folder.mkdir(parents=True)
    (folder / "case.mha").symlink_to(stack)
    with pytest.raises(InputError, match="a link that leads out"):
        find_input(tmp_path / "input")
    (folder / "case.mha").unlink()
    stack.rename(folder / "case.mha")
    (tmp_path / "mounted").symlink_to(tmp_path / "input")
    assert find_input(tmp_path / "mounted").name == "case.mha"


# ---- mutated headers

NASTY = (
    *("", "-1", "0", "1", "2", "3", "nan", "inf", "-inf", "1e308", "1e-308", "0x10", "1_0", "٣"),
    *("2147483647", "4294967296", "18446744073709551616", "9" * 400, "a" * 5000, "%n%s%x", "\0"),
    *("744 562", "744 562 6 1", "562 744 6", "True", "False", "true", "LOCAL", "Local", "LIST"),
    *("/dev/stdin", "/dev/urandom", "%03d.raw 1 6 1", "MET_UCHAR", "MET_CHAR", "MET_DOUBLE_ARRAY"),
    *("0.28 0.28 0.28", "1 0 0 0 1 0 0 0 1", "=", "= =", "\r", "\xff", "Image", "Scene"),
)


def mutated(header: bytes, draw: random.Random) -> bytes:
    """A header with one to three changes, of a byte, a value, a key or a line."""
    for _ in range(draw.randint(1, 3)):
        header = draw.choice(MUTATIONS)(header, draw)
    return header


def _flip(header: bytes, draw: random.Random) -> bytes:
    changed = bytearray(header)
    if changed:
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(header: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(header) + 1) for _ in range(2))
    return header[:start] + header[end:] if draw.random() < 0.5 else header[:end]


def _insert(header: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(header) + 1)
    return header[:at] + draw.choice(NASTY).encode() + header[at:]


def _another_value(header: bytes, draw: random.Random) -> bytes:
    lines = header.split(b"\n")
    at = draw.randrange(len(lines))
    lines[at] = lines[at].split(b"=")[0] + b"= " + draw.choice(NASTY).encode()
    return b"\n".join(lines)


def _another_number(header: bytes, draw: random.Random) -> bytes:
    """A digit is changed, which leaves the most plausible headers."""
    digits = [at for at, sign in enumerate(header) if chr(sign).isdigit()]
    if not digits:
        return header
    at = draw.choice(digits)
    return header[:at] + draw.choice(b"0123456789.-e ").to_bytes() + header[at + 1 :]


def _shuffle(header: bytes, draw: random.Random) -> bytes:
    lines = header.split(b"\n")
    draw.shuffle(lines)
    return b"\n".join(lines)


def _repeat(header: bytes, draw: random.Random) -> bytes:
    lines = header.split(b"\n")
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))
    return b"\n".join(lines)


def _new_key(header: bytes, draw: random.Random) -> bytes:
    key = draw.choice([*EXTRA_KEYS, "Position", "Origin", "Rotation", "Orientation"])
    line = f"{key} = {draw.choice([*NASTY, *EXTRA_KEYS.values()])}\n"
    return line.encode() + header


MUTATIONS = (_flip, _cut, _insert, _another_value, _another_number, _shuffle, _repeat, _new_key)


def test_a_mutated_header_is_refused_or_its_pixels_are_right(
    stack: Path,
    frames: np.ndarray,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    header, pixels = split(stack)
    draw, counts, slowest = random.Random(SEED), Counter[str](), 0.0
    for number in range(N_MUTATIONS):
        content = mutated(header.encode(), draw)
        stack.write_bytes(content + pixels)
        start = time.perf_counter()
        try:
            read = read_stack(stack)
        except InputError as error:
            counts["refused"] += 1
            assert str(error).isprintable() and len(str(error)) < 1000, content
        else:
            counts["accepted"] += 1
            assert np.array_equal(read.frames, frames), (number, content)
        slowest = max(slowest, time.perf_counter() - start)
    print(f"{N_MUTATIONS} headers: {dict(counts)}, at most {slowest:.2f} s each")
    record_testsuite_property("headers", json.dumps(counts))
    assert slowest < MOST_SECONDS
    assert counts["refused"] > counts["accepted"] > 0
