"""The platform's side: the one input file, and the output's files, written all or none."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from acouslic import files
from acouslic.challenge import (
    CIRCUMFERENCE_FILE,
    FRAME_FILE,
    INPUT_FOLDER,
    MASK_FILE,
    MASK_FOLDER,
)
from acouslic.errors import InputError, OutputError
from acouslic.metaimage import write_frames
from acouslic.pipeline import Measurement
from acouslic.stack import Stack

ANSWER_FILES = (MASK_FILE, CIRCUMFERENCE_FILE, FRAME_FILE)


def find_input(input_dir: Path) -> Path:
    """The one stack below the input folder.

    Args:
        input_dir: the folder that holds the challenge's `images/`.

    Raises:
        InputError: there is none, or several.
    """
    folder = input_dir / INPUT_FOLDER
    paths = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths[:3])
        raise InputError(
            expected=f"one .mha file in {folder}",
            found=f"{len(paths)} files ({names} ...)" if paths else "none",
            advice="give one stack a run",
        )
    return paths[0]


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


def write_outputs(output_dir: Path, stack: Stack, measurement: Measurement, bundle_id: str) -> None:
    """Write the mask volume, the frame number and the measurement, all of them or none.

    Args:
        output_dir: the folder that gets the three files, see `challenge`.
        stack: what was measured; the mask has its shape and geometry.
        measurement: the answer.
        bundle_id: the weights that gave it.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        with files.new_files(output_dir, ANSWER_FILES) as partial:
            _write_mask(partial / MASK_FILE, stack, measurement)
            described = describe(stack, measurement, bundle_id)
            files.write_json(partial / CIRCUMFERENCE_FILE, described)
            files.write_json(partial / FRAME_FILE, measurement.frame)
    except OSError as error:
        raise unwritable(output_dir, error) from error


def describe(stack: Stack, measurement: Measurement, bundle_id: str) -> dict[str, Any]:
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
    }


def _write_mask(path: Path, stack: Stack, measurement: Measurement) -> None:
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
