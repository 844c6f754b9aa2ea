"""The platform's side: which file is the input; the output's files, all whole or none there."""

import tempfile
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


def find_input(input_dir: Path) -> Path:
    """The one stack below the input folder.

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


def prepare_output(output_dir: Path) -> None:
    """Find out before the work, not after it, whether results can be written.

    Raises:
        OutputError: they cannot.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise _unwritable(output_dir, error) from error
    folder = output_dir / MASK_FOLDER
    strangers = [path.name for path in folder.glob("*") if path.name != MASK_FILE.name]
    if strangers:
        raise OutputError(
            expected=f"an empty {folder}, as the platform takes exactly one file from it",
            found=f"{strangers[0]}",
            advice="move it away",
        )


def write_outputs(output_dir: Path, stack: Stack, measurement: Measurement, bundle_id: str) -> None:
    """Write the mask volume, the frame number and the measurement, all of them or none.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        with files.new_files(output_dir, (MASK_FILE, CIRCUMFERENCE_FILE, FRAME_FILE)) as partial:
            _write_mask(partial / MASK_FILE, stack, measurement)
            described = describe(stack, measurement, bundle_id)
            files.write_json(partial / CIRCUMFERENCE_FILE, described)
            files.write_json(partial / FRAME_FILE, measurement.frame)
    except OSError as error:
        raise _unwritable(output_dir, error) from error


def describe(stack: Stack, measurement: Measurement, bundle_id: str) -> dict[str, Any]:
    """The measurement in plain JSON types."""
    ellipse, spacing_mm = measurement.ellipse, stack.geometry.spacing_mm[0]
    return {
        "ac_mm": measurement.ac_mm,
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
        "bundle_id": bundle_id,
    }


def _write_mask(path: Path, stack: Stack, measurement: Measurement) -> None:
    empty = np.zeros(stack.frames.shape[1:], np.uint8)
    frames = range(len(stack.frames))
    masks = (measurement.mask if frame == measurement.frame else empty for frame in frames)
    write_frames(path, masks, stack.geometry)


def _unwritable(output_dir: Path, error: Exception) -> OutputError:
    return OutputError(
        expected=f"a folder {output_dir} that can be written",
        found=str(error).strip().splitlines()[-1],
        advice="let the user that runs this own it, and leave 10 MB free",
    )
