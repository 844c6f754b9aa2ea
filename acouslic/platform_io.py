"""The platform's side: the one input file, and the output's files, written all or none."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from acouslic import files
from acouslic.challenge import (
    CIRCUMFERENCE_FILE,
    FRAME_FILE,
    INPUT_FOLDER,
    MASK_FILE,
    MASK_FOLDER,
    STACK_SLUG,
)
from acouslic.errors import InputError, OutputError
from acouslic.metaimage import write_frames
from acouslic.stack import Stack, require_inside

if TYPE_CHECKING:
    from acouslic.pipeline import Measurement

INPUTS_FILE = "inputs.json"
# The platform's has a few hundred bytes a socket.
MOST_INPUTS_BYTES = 1_000_000
ANSWER_FILES = (MASK_FILE, CIRCUMFERENCE_FILE, FRAME_FILE)


def find_input(input_dir: Path) -> Path:
    """The one stack below the input folder, where `inputs.json` says or the challenge has it.

    Args:
        input_dir: the folder that holds `inputs.json`, or the challenge's `images/`.

    Raises:
        InputError: there is none, or several, it is a link that leads out of the folder, or
            `inputs.json` names something else.
    """
    place, name = INPUT_FOLDER, None
    if os.path.lexists(input_dir / INPUTS_FILE):
        place, name = read_inputs(input_dir / INPUTS_FILE)
    folder = input_dir / place
    try:
        names = sorted(file for file in os.listdir(folder) if not file.startswith("."))
        found = f"{len(names)} files ({', '.join(names[:3])} ...)" if names else "none"
    except (OSError, ValueError) as error:
        names, found = [], f"none ({error})"
    # The image's name is its uploader's: the platform may have stored it under another one.
    if name in names or len(names) == 1:
        path = folder / (name if name in names else names[0])
        require_inside(path, input_dir)
        return path
    raise InputError(
        expected=f"one .mha file in {folder}", found=found, advice="give one stack a run"
    )


class _Socket(BaseModel):
    """What an input is for."""

    slug: str
    """The socket's name."""
    relative_path: PurePosixPath
    """Where its file or folder is, below the input folder."""

    @property
    def is_ours(self) -> bool:
        """Whether it is the stack's, by its slug or by its folder."""
        return self.slug == STACK_SLUG or self.relative_path == PurePosixPath(INPUT_FOLDER)


class _Image(BaseModel):
    """What is told of an input's image."""

    name: str | None = None
    """The uploader's file name."""


class _Input(BaseModel):
    """One entry of `inputs.json`; what else stands there does not matter here."""

    socket: _Socket = Field(validation_alias=AliasChoices("socket", "interface"))
    """Its socket, under the newer or the older key."""
    image: _Image | None = None
    """Its image, where it is one."""


def read_inputs(path: Path) -> tuple[Path, str | None]:
    """What the platform's list of inputs says of the one stack.

    Args:
        path: `inputs.json`, a list of `{"socket": {"slug", "relative_path"}, "image": {"name"}}`;
            older ones have `interface` for `socket`.

    Returns:
        The stack's folder, relative to the input folder, and its image's name if it is told.

    Raises:
        InputError: it is no such list, or has another socket, or several.
    """
    inputs = _parse_inputs(path)
    if len(inputs) != 1 or not inputs[0].socket.is_ours:
        slugs = ", ".join(repr(entry.socket.slug[:50]) for entry in inputs[:3])
        raise InputError(
            expected=f"one socket in {path}, {STACK_SLUG}",
            found=f"{len(inputs)} ({slugs})" if inputs else "none",
            advice="connect the algorithm's interface to that socket alone",
        )
    place = inputs[0].socket.relative_path
    if place.is_absolute() or ".." in place.parts:
        raise _malformed(path, f"a path that leads out of the folder: {str(place)[:100]!r}")
    return Path(place), inputs[0].image.name if inputs[0].image else None


def _parse_inputs(path: Path) -> list[_Input]:
    try:
        values = files.parse_json(files.read_regular(path, MOST_INPUTS_BYTES))
        return TypeAdapter(list[_Input]).validate_python(values)
    except OSError as error:
        raise _malformed(path, f"one that cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise _malformed(path, f"another form ({place}: {first['msg']})") from error
    except ValueError as error:
        raise _malformed(path, f"another form ({error})") from error


def _malformed(path: Path, found: str) -> InputError:
    return InputError(
        expected=f"a list of inputs in {path}, as the platform writes it",
        found=found,
        advice=f"leave the platform's file as it is, or remove it to use {INPUT_FOLDER}",
    )


def require_writable(folder: Path) -> None:
    """Make a folder where there is none, and find out before the work whether files can go there.

    Raises:
        OutputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


@contextmanager
def own_output(output_dir: Path) -> Iterator[None]:
    """Have the platform's output for this run alone, without an older answer, while the block runs.

    What was written by an earlier run, whole or by one that was killed, is removed first. So a run
    that fails leaves no answer that could be taken for its own.

    Raises:
        OutputError: it cannot be written, another run is at it, or another mask lies there.
    """
    require_writable(output_dir)
    with files.claim(output_dir) as is_mine:
        if not is_mine:
            raise OutputError(
                expected=f"{output_dir} for this run alone",
                found="another run that is writing there",
                advice="wait for its end, or name another --output",
            )
        remove_answer(output_dir)
        folder = output_dir / MASK_FOLDER
        strangers = [path.name for path in folder.glob("*")]
        if strangers:
            raise OutputError(
                expected=f"an empty {folder}, as the platform takes exactly one file from it",
                found=f"{strangers[0]}",
                advice="move it away",
            )
        yield


def remove_answer(output_dir: Path) -> None:
    """Remove the answer of an earlier run, and what a killed one left.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        files.remove_leftovers(output_dir / files.SET)
        for path in ANSWER_FILES:
            (output_dir / path).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(output_dir, error) from error


def write_outputs(
    output_dir: Path, stack: Stack, measurement: "Measurement", bundle_id: str, *, simulated: bool
) -> None:
    """Write the mask volume, the frame number and the measurement, all of them or none.

    Args:
        output_dir: the folder that gets the three files, see `challenge`.
        stack: what was measured; the mask has its shape and geometry.
        measurement: the answer.
        bundle_id: the weights that gave it.
        simulated: whether those were trained on simulated images.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        with files.new_files(output_dir, ANSWER_FILES) as partial:
            _write_mask(partial / MASK_FILE, stack, measurement)
            described = describe(stack, measurement, bundle_id, simulated=simulated)
            files.write_json(partial / CIRCUMFERENCE_FILE, described)
            files.write_json(partial / FRAME_FILE, measurement.frame)
    except OSError as error:
        raise unwritable(output_dir, error) from error


def describe(
    stack: Stack, measurement: "Measurement", bundle_id: str, *, simulated: bool
) -> dict[str, Any]:
    """A measurement in plain JSON types, lengths in mm and places in pixels of the frame."""
    ellipse, spacing_mm = measurement.ellipse, stack.geometry.spacing_mm[0]
    return {
        "ac_mm": measurement.ac_mm,
        "ac_interval_mm": list(measurement.ac_interval_mm),
        "frame": measurement.frame,
        "sweep": measurement.sweep,
        "ellipse": {
            "centre_x_px": ellipse.centre_x_px,
            "centre_y_px": ellipse.centre_y_px,
            "semi_major_mm": ellipse.semi_major_px * spacing_mm,
            "semi_minor_mm": ellipse.semi_minor_px * spacing_mm,
            "angle_deg": ellipse.angle_deg,
        },
        "confidence": measurement.confidence,
        "p_annotated": measurement.p_annotated,
        "bundle_id": bundle_id,
        "simulated": simulated,
        "not_measured": measurement.not_measured,
    }


def _write_mask(path: Path, stack: Stack, measurement: "Measurement") -> None:
    """Write a volume of the stack's shape that is filled on the chosen frame only."""
    empty = np.zeros(stack.frames.shape[1:], np.uint8)
    frames = range(len(stack.frames))
    masks = (measurement.mask if frame == measurement.frame else empty for frame in frames)
    write_frames(path, masks, stack.geometry)


def unwritable(folder: Path, error: OSError) -> OutputError:
    """What to tell the user when the system refuses to write into a folder."""
    return OutputError(
        expected=f"a folder {folder} that can be written",
        found=str(error).strip().splitlines()[-1],
        # A mask has 1.5 MB, a preview less than 1 MB: 10 MB is ample.
        advice="let the user that runs this own it, and leave 10 MB free",
    )
