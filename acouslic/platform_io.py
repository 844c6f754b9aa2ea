"""The platform's side: which file is the input; the output's files, all whole or none there."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from acouslic.errors import InputError, OutputError
from acouslic.pipeline import Measurement
from acouslic.stack import Stack

INPUT_FOLDER = Path("images/stacked-fetal-ultrasound")
MASK_FILE = Path("images/fetal-abdomen-segmentation/output.mha")
FRAME_FILE = Path("fetal-abdomen-frame-number.json")
CIRCUMFERENCE_FILE = Path("fetal-abdominal-circumference.json")


def find_input(input_dir: Path) -> Path:
    """The one stack below the input folder.

    Raises:
        InputError: there is none, or several.
    """
    folder = input_dir / INPUT_FOLDER
    files = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
    if len(files) != 1:
        names = ", ".join(path.name for path in files[:3])
        raise InputError(
            expected=f"one .mha file in {folder}",
            found=f"{len(files)} files ({names} ...)" if files else "none",
            advice="give one stack a run",
        )
    return files[0]


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
    folder = output_dir / MASK_FILE.parent
    strangers = [path.name for path in folder.glob("*") if path.name != MASK_FILE.name]
    if strangers:
        raise OutputError(
            expected=f"an empty {folder}, as the platform takes exactly one file from it",
            found=f"{strangers[0]}",
            advice="move it away",
        )


def write_outputs(output_dir: Path, stack: Stack, measurement: Measurement, bundle_id: str) -> None:
    """Write the mask volume, the frame number and the measurement.

    All are written beside their places first and moved there when all are whole.

    Raises:
        OutputError: the folder cannot be written.
    """
    partial = None
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=output_dir))
        _write_mask(partial / MASK_FILE, stack, measurement)
        _write_json(partial / FRAME_FILE, measurement.frame)
        _write_json(partial / CIRCUMFERENCE_FILE, describe(stack, measurement, bundle_id))
        for name in (MASK_FILE, CIRCUMFERENCE_FILE, FRAME_FILE):
            (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, output_dir / name)
    except (OSError, RuntimeError) as error:
        for name in (MASK_FILE, CIRCUMFERENCE_FILE, FRAME_FILE):
            (output_dir / name).unlink(missing_ok=True)
        raise _unwritable(output_dir, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


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
    volume = np.zeros(stack.frames.shape, np.uint8)
    volume[measurement.frame] = measurement.mask
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(stack.geometry.spacing_mm)
    image.SetOrigin(stack.geometry.origin_mm)
    image.SetDirection(stack.geometry.direction)
    path.parent.mkdir(parents=True)
    sitk.WriteImage(image, str(path), useCompression=True)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _unwritable(output_dir: Path, error: Exception) -> OutputError:
    return OutputError(
        expected=f"a folder {output_dir} that can be written",
        found=str(error).strip().splitlines()[-1],
        advice="let the user that runs this own it, and leave 10 MB free",
    )
