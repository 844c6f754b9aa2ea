"""A data set in the challenge's training layout: where its files lie, and everything that can be
wrong with them.

Problems are collected, not raised one by one: whoever has 300 cases wants the whole list. AC is in
mm, per sweep.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from acouslic.errors import InputError
from acouslic.fan import SWEEPS

IMAGES = Path("images/stacked_fetal_ultrasound")
MASKS = Path("masks/stacked_fetal_abdomen")
AC_TABLE = Path("circumferences/fetal_abdominal_circumferences_per_sweep.csv")
AC_COLUMNS = tuple(f"sweep_{sweep}_ac_mm" for sweep in range(1, SWEEPS + 1))

# Label value in the masks -> index into acouslic's QUALITY (none, suboptimal, optimal).
QUALITY_OF_LABEL = {0: 0, 1: 2, 2: 1}

LEAST_AC_MM = 100.0
MOST_AC_MM = 500.0


class DatasetError(InputError):
    """The data set is not fit for training; the message counts the problems that were listed."""


@dataclass(frozen=True)
class Entry:
    """One case of a data set: its two files and its row of the AC table (NaN where a sweep has
    none).
    """

    uuid: str
    subject: str
    image: Path
    mask: Path
    ac_mm: tuple[float, ...]


def read_entries(root: Path) -> tuple[list[Entry], list[str]]:
    """The cases of the data set, in the table's order, and what is wrong with files, headers and
    the table.

    Reads no pixels. A case with problems is still returned, unless one of its files is missing.
    """
    if not (root / AC_TABLE).is_file():
        return [], [f"{AC_TABLE} is missing below {root}"]
    rows, problems = _read_table(root / AC_TABLE)
    entries = []
    for uuid, (subject, ac_mm) in rows.items():
        entry = Entry(
            uuid, subject, root / IMAGES / f"{uuid}.mha", root / MASKS / f"{uuid}.mha", ac_mm
        )
        missing = [path for path in (entry.image, entry.mask) if not path.is_file()]
        problems += [f"{uuid}: {path.relative_to(root)} is missing" for path in missing]
        if not missing:
            problems += _header_problems(entry)
            entries.append(entry)
    for folder in (IMAGES, MASKS):
        strays = sorted({path.stem for path in (root / folder).glob("*.mha")} - set(rows))
        problems += [f"{uuid}: is in {folder} but has no row in {AC_TABLE.name}" for uuid in strays]
    return entries, problems


def _read_table(path: Path) -> tuple[dict[str, tuple[str, tuple[float, ...]]], list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = {"uuid", "subject_id", *AC_COLUMNS} - set(reader.fieldnames or ())
        if lacking:
            return {}, [f"{path.name}: columns {sorted(lacking)} are missing"]
        lines = list(reader)
    rows: dict[str, tuple[str, tuple[float, ...]]] = {}
    problems: list[str] = []
    for line in lines:
        uuid = line["uuid"]
        if uuid in rows:
            problems.append(f"{uuid}: has two rows in {path.name}")
        if not line["subject_id"]:
            problems.append(f"{uuid}: has no subject_id in {path.name}")
        ac_mm, found = _parse_ac(line)
        problems += [f"{uuid}: {problem}" for problem in found]
        rows[uuid] = (line["subject_id"], ac_mm)
    return rows, problems


def _parse_ac(line: dict[str, str]) -> tuple[tuple[float, ...], list[str]]:
    values, problems = [], []
    for column in AC_COLUMNS:
        text = (line[column] or "").strip()
        try:
            value = float(text) if text else math.nan
        except ValueError:
            value = math.nan
            problems.append(f"{column} is no number: {text!r}")
        if value > MOST_AC_MM:
            problems.append(
                f"{column} is {value:.1f} mm, above {MOST_AC_MM:.0f}: this is version 1.0 of the"
                " data set, in which every AC is twice too large; use version 1.1"
            )
        elif value < LEAST_AC_MM:
            problems.append(f"{column} is {value:.1f} mm, below {LEAST_AC_MM:.0f}")
        values.append(value)
    return tuple(values), problems


def _header_problems(entry: Entry) -> list[str]:
    try:
        image, mask = _header(entry.image), _header(entry.mask)
    except RuntimeError as error:
        return [f"{entry.uuid}: cannot be read as an image: {str(error).strip().splitlines()[-1]}"]
    problems = []
    if image.GetSize() != mask.GetSize():
        problems.append(
            f"{entry.uuid}: the mask's size {mask.GetSize()} is not the image's {image.GetSize()}"
        )
    for name, header in (("image", image), ("mask", mask)):
        if header.GetPixelID() != SimpleITK.sitkUInt8 or header.GetNumberOfComponents() != 1:
            problems.append(f"{entry.uuid}: the {name} is not of single 8 bit unsigned pixels")
    return problems


def _header(path: Path) -> SimpleITK.ImageFileReader:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def read_labels(path: Path) -> np.ndarray:
    """The mask volume as stored, (T, H, W) uint8 with 0 none, 1 optimal, 2 suboptimal."""
    labels: np.ndarray = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return labels


def frame_labels(labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Each frame's label, (T,) uint8, from a mask volume (T, H, W), and what is wrong with it.

    A frame is empty or wholly of one label; where the two are mixed, the larger label is returned
    beside the problem.
    """
    found = np.array([labels_in(frame) for frame in labels])  # (T, 4): has 0, 1, 2, more
    problems = []
    if found[:, 3].any():
        problems.append(f"the mask has labels other than 0, 1, 2 on frames {_some(found[:, 3])}")
    mixed = found[:, 1] & found[:, 2]
    if mixed.any():
        problems.append(f"the mask mixes optimal and suboptimal on frames {_some(mixed)}")
    return np.where(found[:, 2], 2, found[:, 1].astype(np.uint8)).astype(np.uint8), problems


def labels_in(frame: np.ndarray) -> tuple[bool, bool, bool, bool]:
    """Whether a mask (H, W) has pixels of label 0, 1, 2, and of anything else."""
    counts = np.bincount(frame.ravel(), minlength=4)
    return bool(counts[0]), bool(counts[1]), bool(counts[2]), bool(counts[3:].any())


def _some(flags: np.ndarray) -> str:
    numbers = np.flatnonzero(flags)
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
