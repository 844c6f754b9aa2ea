"""Finding and reading the truth of every case, in the evaluator's or the training set's layout.

Evaluator:    <uuid>/fetal_abdomen_stacked_masks/<uuid>.mha and
              <uuid>/fetal_abdominal_circumference.json
Training set: masks/stacked_fetal_abdomen/<uuid>.mha and
              circumferences/fetal_abdominal_circumferences_per_sweep.csv
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from acouslic.errors import InputError
from acouslic.fan import SWEEPS

EVALUATOR_MASKS = "fetal_abdomen_stacked_masks"
EVALUATOR_CIRCUMFERENCES = "fetal_abdominal_circumference.json"
TRAINING_MASKS = Path("masks/stacked_fetal_abdomen")
TRAINING_IMAGES = Path("images/stacked_fetal_ultrasound")
TRAINING_CIRCUMFERENCES = Path("circumferences/fetal_abdominal_circumferences_per_sweep.csv")
# What the project's phantoms leave in a data set.
SIMULATED = "phantoms.json"
AC_KEYS = tuple(f"sweep_{sweep}_ac_mm" for sweep in range(1, SWEEPS + 1))
# No fetus has this abdomen; version 1.0 of the public data has every AC exactly twice too large.
LARGEST_AC_MM = 500.0


@dataclass(frozen=True)
class TruthCase:
    """Where a case's truth lies; `references_mm` are the AC of sweeps 1 to 6, None without one."""

    case: str
    subject_id: str
    mask_path: Path
    references_mm: tuple[float | None, ...]
    image_path: Path | None


def find_truth(folder: Path) -> dict[str, TruthCase]:
    """All cases with truth below a folder, by name, in either layout.

    In the evaluator's layout nothing says who is who: every case counts as a subject of its own.

    Raises:
        InputError: no truth, a case without its circumferences, or data of version 1.0.
    """
    if (folder / TRAINING_MASKS).is_dir():
        cases = _training_cases(folder)
    else:
        cases = [_evaluator_case(path) for path in sorted(folder.glob(f"*/{EVALUATOR_MASKS}"))]
    if not cases:
        raise InputError(
            expected=f"truth in {folder}, as <uuid>/{EVALUATOR_MASKS} or as {TRAINING_MASKS}",
            found="neither",
            advice="give the evaluator's ground truth or a data set in the training set's layout",
        )
    for case in cases:
        _refuse_doubled(case)
    return {case.case: case for case in cases}


def read_subjects(path: Path) -> dict[str, str]:
    """Subject of every case from a csv with the columns uuid and subject_id.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    return {row["uuid"]: row["subject_id"] for row in _read_csv(path, ("uuid", "subject_id"))}


def read_fan_mask(path: Path) -> np.ndarray:
    """A field of view (H, W) bool from an image file, such as the official tool's.

    Raises:
        InputError: the file cannot be read or is not one frame.
    """
    try:
        mask = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    except RuntimeError as error:
        raise InputError(
            expected=f"an image of the field of view in {path}",
            found=str(error).strip().splitlines()[-1].strip(),
            advice="give the official tool's fov_mask.mha, or leave --fov-mask away",
        ) from error
    if mask.ndim != 2:
        raise InputError(
            expected=f"one frame in {path}", found=f"shape {mask.shape}", advice="give a 2-D mask"
        )
    return np.asarray(mask != 0)


def _training_cases(folder: Path) -> list[TruthCase]:
    table = folder / TRAINING_CIRCUMFERENCES
    rows = {row["uuid"]: row for row in _read_csv(table, ("uuid", "subject_id", *AC_KEYS))}
    return [
        _training_case(path, folder, table, rows.get(path.stem))
        for path in sorted((folder / TRAINING_MASKS).glob("*.mha"))
    ]


def _training_case(
    mask_path: Path, folder: Path, table: Path, row: Mapping[str, str] | None
) -> TruthCase:
    if row is None:
        raise InputError(
            expected=f"a line for case {mask_path.stem} in {table}",
            found="none",
            advice="use masks and circumferences of one version of the data",
        )
    image_path = folder / TRAINING_IMAGES / mask_path.name
    return TruthCase(
        case=mask_path.stem,
        subject_id=row["subject_id"] or mask_path.stem,
        mask_path=mask_path,
        references_mm=tuple(_reference(row[key], table, mask_path.stem) for key in AC_KEYS),
        image_path=image_path if image_path.is_file() else None,
    )


def _evaluator_case(mask_folder: Path) -> TruthCase:
    case, table = mask_folder.parent.name, mask_folder.parent / EVALUATOR_CIRCUMFERENCES
    mask_path = mask_folder / f"{case}.mha"
    try:
        values = json.loads(table.read_text())
        references = [values[key] for key in AC_KEYS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            expected=f"the keys {AC_KEYS[0]} .. {AC_KEYS[-1]} in {table} for case {case}",
            found=f"{type(error).__name__} ({error})",
            advice="copy the ground truth again",
        ) from error
    if not mask_path.is_file():
        raise InputError(
            expected=f"{mask_path} for case {case}",
            found="no such file",
            advice="copy the ground truth again",
        )
    return TruthCase(
        case=case,
        subject_id=case,
        mask_path=mask_path,
        references_mm=tuple(_reference(value, table, case) for value in references),
        image_path=None,
    )


def _reference(value: str | float | None, table: Path, case: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        reference_mm = float(value)
    except (TypeError, ValueError):
        reference_mm = math.nan
    if not math.isfinite(reference_mm) or reference_mm <= 0:
        raise InputError(
            expected=f"an AC in mm or nothing for case {case} in {table}",
            found=repr(value),
            advice="leave the field blank (null in JSON) where a sweep has no reference",
        )
    return reference_mm


def _refuse_doubled(case: TruthCase) -> None:
    largest = max((value for value in case.references_mm if value is not None), default=0.0)
    if largest > LARGEST_AC_MM:
        raise InputError(
            expected=f"reference ACs up to {LARGEST_AC_MM:g} mm",
            found=f"{largest:.1f} mm for case {case.case}",
            advice="version 1.0 of the data has them twice too large: use version 1.1",
        )


def _read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            expected=f"a csv file {path}", found=str(error), advice="copy it again"
        ) from error
    missing = [name for name in columns if rows and name not in rows[0]]
    if not rows or missing:
        raise InputError(
            expected=f"the columns {', '.join(columns)} in {path}",
            found=f"no {missing[0]}" if missing else "no line",
            advice="give the csv of the data set's version 1.1",
        )
    return rows
