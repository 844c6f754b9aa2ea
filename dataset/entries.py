"""A data set in the challenge's training layout: its files, and all that can be wrong with them.

Problems are collected, not raised one by one: whoever has 300 cases wants the whole list.
"""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from acouslic.challenge import (
    AC_COLUMNS,
    AC_TABLE,
    IMAGES,
    LEAST_AC_MM,
    MASKS,
    MOST_AC_MM,
    TABLE_COLUMNS,
)
from acouslic.errors import InputError
from acouslic.metaimage import LengthError, read_header


class DatasetError(InputError):
    """The data set cannot be trained on; the message counts the problems that were listed."""


@dataclass(frozen=True)
class Entry:
    """One case of a data set: its files and its row of the AC table."""

    uuid: str
    """The case's name."""
    subject: str
    """Whose case it is."""
    image: Path
    """The stack's file."""
    mask: Path
    """The labels' file."""
    ac_mm: tuple[float, ...]
    """One value a sweep, NaN where a sweep has none."""


def read_entries(root: Path) -> tuple[list[Entry], list[str]]:
    """Read the table and all headers of a data set, but no pixels.

    Args:
        root: the data set's folder.

    Returns:
        The cases, in the table's order, and a line for each problem of files, headers and table. A
        case with problems is among the cases, unless one of its files is missing.
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


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a csv file, by column.

    Args:
        path: the file.
        columns: those that it must have.

    Raises:
        InputError: the file cannot be read, lacks a column, or has no row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            expected=f"a csv file {path}", found=str(error), advice="copy it again"
        ) from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if not rows or missing:
        raise InputError(
            expected=f"the columns {', '.join(columns)} in {path}",
            found=f"no {missing[0]}" if missing else "no line",
            advice="give the csv of the data set's version 1.1",
        )
    return rows


def parse_ac(value: str | float | None) -> float:
    """A reference AC in mm from a cell of the table; NaN where it is blank.

    Raises:
        ValueError: it is no AC, or one of version 1.0 of the data set; the message says so.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        ac_mm = float(value)
    except (TypeError, ValueError):
        ac_mm = math.nan
    if not math.isfinite(ac_mm) or ac_mm <= 0:
        raise ValueError(f"is no number of millimetres: {value!r}")
    if ac_mm > MOST_AC_MM:
        raise ValueError(
            f"is {ac_mm:.1f} mm, above {MOST_AC_MM:.0f}: this is version 1.0 of the data set, in"
            " which every AC is twice too large; use version 1.1"
        )
    return ac_mm


def _read_table(path: Path) -> tuple[dict[str, tuple[str, tuple[float, ...]]], list[str]]:
    try:
        lines = read_rows(path, TABLE_COLUMNS)
    except InputError as error:
        return {}, [str(error)]
    rows: dict[str, tuple[str, tuple[float, ...]]] = {}
    problems: list[str] = []
    for line in lines:
        uuid = line["uuid"]
        if uuid in rows:
            problems.append(f"{uuid}: has two rows in {path.name}")
        if not line["subject_id"]:
            problems.append(f"{uuid}: has no subject_id in {path.name}")
        ac_mm, wrong = _parse_acs(line)
        problems += [f"{uuid}: {problem}" for problem in wrong]
        rows[uuid] = (line["subject_id"], ac_mm)
    return rows, problems


def _parse_acs(line: dict[str, str]) -> tuple[tuple[float, ...], list[str]]:
    values, problems = [], []
    for column in AC_COLUMNS:
        value = math.nan
        try:
            value = parse_ac(line[column])
        except ValueError as error:
            problems.append(f"{column} {error}")
        if value < LEAST_AC_MM:
            problems.append(f"{column} is {value:.1f} mm, below {LEAST_AC_MM:.0f}")
        values.append(value)
    return tuple(values), problems


def _header_problems(entry: Entry) -> list[str]:
    try:
        image, mask = read_header(entry.image), read_header(entry.mask)
    except LengthError:
        return []  # Whoever reads the pixels reports it; the other cases need not wait for that.
    except InputError as error:
        return [f"{entry.uuid}: {error}"]
    if image.shape != mask.shape:
        return [f"{entry.uuid}: the mask's shape {mask.shape} is not the image's {image.shape}"]
    return []
