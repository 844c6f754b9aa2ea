"""The truth of every case, in the evaluator's or the training set's layout.

Evaluator:    <uuid>/fetal_abdomen_stacked_masks/<uuid>.mha and
              <uuid>/fetal_abdominal_circumference.json
Training set: masks/stacked_fetal_abdomen/<uuid>.mha and
              circumferences/fetal_abdominal_circumferences_per_sweep.csv
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acouslic import files
from acouslic.challenge import (
    AC_COLUMNS,
    AC_TABLE,
    EVALUATOR_CIRCUMFERENCES,
    EVALUATOR_MASKS,
    IMAGES,
    MASKS,
    TABLE_COLUMNS,
)
from acouslic.errors import InputError
from dataset.entries import parse_ac, read_rows


@dataclass(frozen=True)
class TruthCase:
    """The truth of one case."""

    case: str
    """The case's name."""
    subject_id: str
    """Whose case it is; the case's own name where that is not known."""
    mask_path: Path
    """The labels' file."""
    references_mm: tuple[float | None, ...]
    """The AC of sweeps 1 to 6, None where a sweep has none."""
    image_path: Path | None
    """The stack's file, if it is there."""


def find_truth(folder: Path) -> dict[str, TruthCase]:
    """All cases with truth below a folder, by name, in either layout.

    In the evaluator's layout nothing tells whose a case is: each counts as a subject of its own.

    Args:
        folder: the evaluator's ground truth, or a data set in the training set's layout.

    Raises:
        InputError: no truth, a case without its circumferences, or data of version 1.0.
    """
    if (folder / MASKS).is_dir():
        cases = _training_cases(folder)
    else:
        cases = [_evaluator_case(path) for path in sorted(folder.glob(f"*/{EVALUATOR_MASKS}"))]
    if not cases:
        raise InputError(
            expected=f"truth in {folder}, as <uuid>/{EVALUATOR_MASKS} or as {MASKS}",
            found="neither",
            advice="give the evaluator's ground truth or a data set in the training set's layout",
        )
    return {case.case: case for case in cases}


def read_subjects(path: Path) -> dict[str, str]:
    """Subject of every case from a csv with the columns uuid and subject_id.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    return {row["uuid"]: row["subject_id"] for row in read_rows(path, ("uuid", "subject_id"))}


def read_fan_mask(path: Path) -> np.ndarray:
    """A field of view (H, W) bool from an image file, such as the official tool's.

    That one is of floats, so SimpleITK reads it. It is the file of whoever scores, and no answer.

    Raises:
        InputError: the file cannot be read or is not one frame.
    """
    try:
        # The image has no SimpleITK, and makes phantoms, which need no more of this than names.
        import SimpleITK as sitk

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
    table = folder / AC_TABLE
    rows = {row["uuid"]: row for row in read_rows(table, TABLE_COLUMNS)}
    return [
        _training_case(path, folder, table, rows.get(path.stem))
        for path in sorted((folder / MASKS).glob("*.mha"))
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
    image_path = folder / IMAGES / mask_path.name
    return TruthCase(
        case=mask_path.stem,
        subject_id=row["subject_id"] or mask_path.stem,
        mask_path=mask_path,
        references_mm=tuple(_reference(row[key], table, mask_path.stem) for key in AC_COLUMNS),
        image_path=image_path if image_path.is_file() else None,
    )


def _evaluator_case(mask_folder: Path) -> TruthCase:
    case, table = mask_folder.parent.name, mask_folder.parent / EVALUATOR_CIRCUMFERENCES
    mask_path = mask_folder / f"{case}.mha"
    try:
        values = files.read_json(table)
        references = [values[key] for key in AC_COLUMNS]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(
            expected=f"the keys {AC_COLUMNS[0]} .. {AC_COLUMNS[-1]} in {table} for case {case}",
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
    try:
        ac_mm = parse_ac(value)
    except ValueError as error:
        raise InputError(
            expected=f"an AC in mm or nothing for case {case} in {table}",
            found=f"one that {error}",
            advice="leave the field blank (null in JSON) where a sweep has no reference",
        ) from error
    return None if math.isnan(ac_mm) else ac_mm
