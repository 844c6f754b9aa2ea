"""Check an output folder against the challenge's format, and against the truth where there is one.

Written apart from the code that writes the output, as the check of it: NumPy only.
Arrays are (frame, row, column); frames count from 0, sweeps from 1. A check answers with a list of
problems, in words.
"""

import argparse
import csv
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from volume import Header, Volume, read_header, read_volume

SWEEPS = 6
INPUT_FOLDER = "images/stacked-fetal-ultrasound"
MASK_FOLDER = "images/fetal-abdomen-segmentation"
FRAME_FILE = "fetal-abdomen-frame-number.json"
CIRCUMFERENCE_FILE = "fetal-abdominal-circumference.json"
AC_TOLERANCE = 0.08
# Farther from the AC beside it, an ellipse has full axes for semi-axes, or other units.
ELLIPSE_TOLERANCE = 0.10
QUALITY = {0: "not annotated", 1: "optimal", 2: "suboptimal"}


class NotStrictJsonError(ValueError):
    """NaN and the infinities, which Python reads and the platform refuses."""


def only_file(folder: Path) -> tuple[Path | None, list[str]]:
    """The one image in a socket's folder; the platform refuses none and several."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        return None, [f"{folder}: expected exactly one file, found {names}"]
    if files[0].suffix != ".mha":
        return None, [f"{files[0]}: expected an .mha file"]
    return files[0], []


def read_json(path: Path) -> tuple[Any, list[str]]:
    """A strict JSON value, with no NaN and no infinity."""

    def refuse(constant: str) -> None:
        raise NotStrictJsonError(f"{constant} is not JSON")

    try:
        return json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse), []
    except (OSError, ValueError) as error:
        return None, [f"{path}: expected strict JSON, found {error}"]


def is_finite_number(value: Any) -> bool:
    """A JSON number; `True` is none, though Python takes it for 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_frame_number(value: Any, n_frames: int) -> list[str]:
    """A plain integer that names a frame; -1 would poison the challenge's mean."""
    if not isinstance(value, int) or isinstance(value, bool):
        return [f"{FRAME_FILE}: expected an integer, found {value!r}"]
    if not 0 <= value < n_frames:
        return [f"{FRAME_FILE}: expected a frame in 0..{n_frames - 1}, found {value}"]
    return []


def check_geometry(mask: Header, stack: Header) -> list[str]:
    """Size exactly, the rest to within rounding in the file's decimal numbers."""
    problems = []
    if mask.size != stack.size:
        problems.append(f"mask: expected size {stack.size} as the input, found {mask.size}")
    for name in ("spacing", "origin", "direction"):
        found, expected = getattr(mask, name), getattr(stack, name)
        if len(found) != len(expected) or not np.allclose(found, expected, rtol=1e-6, atol=1e-6):
            problems.append(f"mask: expected {name} {expected} as the input, found {found}")
    return problems


def check_pixels(mask: Volume, frame: int | None) -> list[str]:
    """uint8, only 0 and 1, and something on the chosen frame and nowhere else."""
    if mask.kind != "MET_UCHAR":
        return [f"mask: expected pixels of 8-bit unsigned integer, found {mask.kind}"]
    if mask.pixels.ndim != 3:
        return [f"mask: expected three dimensions, found {mask.pixels.ndim}"]
    problems = []
    if mask.pixels.max() > 1:
        problems.append(f"mask: expected values 0 and 1, found up to {mask.pixels.max()}")
    filled = [int(k) for k in np.flatnonzero(mask.pixels.any(axis=(1, 2)))]
    if frame is not None and filled != [frame]:
        problems.append(f"mask: expected only frame {frame} filled, found {filled[:5] or 'none'}")
    return problems


def check_measurement(value: Any, frame: int | None, n_frames: int) -> list[str]:
    """Plain finite numbers that agree with one another and with the frame number."""
    if not isinstance(value, dict):
        return [f"{CIRCUMFERENCE_FILE}: expected an object, found {type(value).__name__}"]
    problems = []
    if not is_finite_number(value.get("ac_mm")) or value["ac_mm"] <= 0:
        problems.append(f"ac_mm: expected a length above 0, found {value.get('ac_mm')!r}")
    for name in ("confidence", "p_annotated"):
        if not is_finite_number(value.get(name)) or not 0 <= value[name] <= 1:
            problems.append(f"{name}: expected 0..1, found {value.get(name)!r}")
    problems += check_interval(value.get("ac_interval_mm"), value.get("ac_mm"))
    if not isinstance(value.get("bundle_id"), str) or not value["bundle_id"]:
        problems.append(f"bundle_id: expected a name, found {value.get('bundle_id')!r}")
    if frame is not None:
        for name, expected in (("frame", frame), ("sweep", sweep_of(frame, n_frames))):
            found = value.get(name)
            if found != expected or not isinstance(found, int) or isinstance(found, bool):
                problems.append(f"{name}: expected {expected}, found {found!r}")
    return problems + check_ellipse(value.get("ellipse"), value.get("ac_mm"))


def check_interval(value: Any, ac_mm: Any) -> list[str]:
    """Two lengths with the AC between them."""
    ends = value if isinstance(value, list) and len(value) == 2 else [None, None]
    if not all(is_finite_number(end) for end in (*ends, ac_mm)) or not ends[0] <= ac_mm <= ends[1]:
        return [f"ac_interval_mm: expected two lengths around the AC, found {value!r}"]
    return []


def check_ellipse(value: Any, ac_mm: Any) -> list[str]:
    """Semi-axes in their order, and a circumference (Ramanujan's first formula) near the AC."""
    names = ("centre_x_px", "centre_y_px", "semi_major_mm", "semi_minor_mm", "angle_deg")
    if not isinstance(value, dict) or not all(is_finite_number(value.get(name)) for name in names):
        return [f"ellipse: expected finite numbers for {', '.join(names)}, found {value!r}"]
    a, b = value["semi_major_mm"], value["semi_minor_mm"]
    if not a >= b > 0:
        return [f"ellipse: expected semi-major >= semi-minor > 0, found {a} and {b}"]
    circumference = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))
    if is_finite_number(ac_mm) and abs(circumference - ac_mm) > ELLIPSE_TOLERANCE * ac_mm:
        return [f"ellipse: its circumference {circumference:.1f} mm is far from the AC {ac_mm:.1f}"]
    return []


def sweep_of(frame: int, n_frames: int) -> int:
    """The sweep, from 1, that holds a frame."""
    return frame // (n_frames // SWEEPS) + 1


def read_reference(data_set: Path, name: str) -> list[float | None]:
    """The reference AC of each sweep of one stack in mm, None where the table has none.

    Raises:
        KeyError: the table does not know the stack.
    """
    table = data_set / "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["uuid"] == name:
                cells = [row[f"sweep_{k}_ac_mm"].strip() for k in range(1, SWEEPS + 1)]
                return [float(cell) if cell else None for cell in cells]
    raise KeyError(name)


def read_quality(data_set: Path, name: str, frame: int) -> int:
    """The annotation of one frame: 0 none, 1 optimal, 2 suboptimal."""
    mask = read_volume(data_set / f"masks/stacked_fetal_abdomen/{name}.mha")
    return int(mask.pixels[frame].max())


def check_truth(
    quality: int, reference_mm: float | None, frame: int, sweep: int, ac_mm: float
) -> list[str]:
    """The chosen frame is annotated, and the AC is near the reference of its sweep."""
    problems = []
    if quality == 0:
        problems.append(f"frame {frame}: expected an annotated frame, found one that is not")
    if reference_mm is None:
        problems.append(f"sweep {sweep}: expected one with a reference AC, found one without")
    elif abs(ac_mm / reference_mm - 1) > AC_TOLERANCE:
        problems.append(
            f"AC: expected {reference_mm:.1f} mm within {AC_TOLERANCE:.0%}, found {ac_mm:.1f} mm"
        )
    return problems


def check_format(input_dir: Path, output_dir: Path) -> tuple[list[str], int | None, float | None]:
    """All that needs no truth: problems, frame and AC in mm, the latter None where wrong."""
    stack_path, problems = only_file(input_dir / INPUT_FOLDER)
    if stack_path is None:
        return problems, None, None
    stack = read_header(stack_path)
    n_frames = stack.size[2]

    frame, problems = read_json(output_dir / FRAME_FILE)
    problems = problems or check_frame_number(frame, n_frames)
    frame = None if problems else frame

    mask_path, mask_problems = only_file(output_dir / MASK_FOLDER)
    problems += mask_problems
    if mask_path is not None:
        problems += check_mask(mask_path, stack, frame)

    value, json_problems = read_json(output_dir / CIRCUMFERENCE_FILE)
    measurement_problems = json_problems or check_measurement(value, frame, n_frames)
    ac_mm = None if measurement_problems else float(value["ac_mm"])
    return problems + measurement_problems, frame, ac_mm


def check_mask(path: Path, stack: Header, frame: int | None) -> list[str]:
    """The mask volume's file: readable, the stack's geometry, and the right pixels."""
    try:
        mask = read_volume(path)
    except (OSError, ValueError, zlib.error) as error:
        return [f"{path}: expected an image, found {error}"]
    return check_geometry(mask.header, stack) + check_pixels(mask, frame)


def report_truth(data_set: Path, name: str, frame: int, ac_mm: float, sweep: int) -> list[str]:
    """Compare with the truth, and print frame, AC and reference beside each other."""
    try:
        reference_mm = read_reference(data_set, name)[sweep - 1]
        quality = read_quality(data_set, name, frame)
    except (KeyError, OSError, ValueError, zlib.error) as error:
        return [f"{data_set}: expected the truth of {name}, found none ({error!r})"]
    print(f"frame's truth: {QUALITY.get(quality, quality)}")
    if reference_mm is None:
        print(f"reference AC: none for sweep {sweep}")
    else:
        error_percent = 100 * (ac_mm / reference_mm - 1)
        print(f"reference AC: {reference_mm:.1f} mm, error {error_percent:+.1f} %")
    return check_truth(quality, reference_mm, frame, sweep, ac_mm)


def validate(
    input_dir: Path, output_dir: Path, data_set: Path | None, *, format_only: bool = False
) -> list[str]:
    """Print what was found, and answer with all problems; none means that the output is right.

    With `format_only` what differs from the truth is printed, and is no problem.
    """
    problems, frame, ac_mm = check_format(input_dir, output_dir)
    if frame is None or ac_mm is None:
        return problems
    stack_path, _ = only_file(input_dir / INPUT_FOLDER)
    assert stack_path is not None  # else there were no frame
    sweep = sweep_of(frame, read_header(stack_path).size[2])
    print(f"frame {frame} (sweep {sweep}), AC {ac_mm:.1f} mm")
    if data_set is not None:
        differences = report_truth(data_set, stack_path.stem, frame, ac_mm, sweep)
        if not format_only:
            return problems + differences
        for difference in differences:
            print(f"not counted: {difference}")
    return problems


def main() -> int:
    """Exit code 0: the output is right; 1: each problem stands on a line of stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--truth", type=Path, help="a data set in the layout of the training set")
    parser.add_argument(
        "--format-only", action="store_true", help="tell what differs from the truth, but pass"
    )
    options = parser.parse_args()
    problems = validate(
        options.input, options.output, options.truth, format_only=options.format_only
    )
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
