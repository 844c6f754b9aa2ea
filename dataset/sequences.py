"""What annotators said of every frame of many stacks: label sequences, without any pixels.

They come from a data set in the challenge's layout, or from two small public tables of the training
set: its circumferences, and a table of the annotated runs of every case.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acouslic.challenge import AC_COLUMNS, AC_TABLE, FRAMES, TABLE_COLUMNS, Quality
from acouslic.errors import InputError
from dataset.entries import parse_ac, read_rows
from dataset.labels import read_labels
from dataset.truth import find_truth

RUNS_FILE = "annotated_frames_per_case.csv"
_RUNS = {"subopt_seq": Quality.SUBOPTIMAL, "opt_seq": Quality.OPTIMAL}


@dataclass(frozen=True)
class LabelSequence:
    """One case."""

    case: str
    """Its uuid."""
    subject: str
    """Whose it is."""
    quality: np.ndarray
    """(T,) uint8, values of `Quality`."""
    ac_mm: np.ndarray
    """(6,), NaN where a sweep has no reference."""


def read_sequences(folder: Path) -> list[LabelSequence]:
    """The label sequences of a data set, or of the two tables where a folder holds those.

    Raises:
        InputError: there is neither.
    """
    if (folder / RUNS_FILE).is_file():
        return read_tables(folder)
    return [
        LabelSequence(
            case=case.case,
            subject=case.subject_id,
            quality=read_labels(case.mask_path).quality(),
            ac_mm=np.array([np.nan if ac is None else ac for ac in case.references_mm]),
        )
        for case in find_truth(folder).values()
    ]


def read_tables(folder: Path) -> list[LabelSequence]:
    """The label sequences of the two public tables in a folder.

    Raises:
        InputError: one of them cannot be read, or is not what it should be.
    """
    rows = {row["uuid"]: row for row in read_rows(folder / AC_TABLE.name, TABLE_COLUMNS)}
    sequences = []
    for runs in read_rows(folder / RUNS_FILE, ("filestem", *_RUNS)):
        row = rows.get(runs["filestem"])
        if row is None:
            raise InputError(
                expected=f"a line for case {runs['filestem']} in {folder / AC_TABLE.name}",
                found="none",
                advice="use both tables of one version of the data",
            )
        quality = np.zeros(FRAMES, np.uint8)
        try:
            for column, value in _RUNS.items():
                for first, last in ast.literal_eval(runs[column]):
                    quality[first : last + 1] = value
            ac_mm = np.array([parse_ac(row[column]) for column in AC_COLUMNS])
        except (SyntaxError, TypeError, ValueError) as error:
            raise InputError(
                expected=f"lists of (first, last) frame in {RUNS_FILE}, ACs in {AC_TABLE.name}",
                found=f"{error}, for case {runs['filestem']}",
                advice="copy both tables again",
            ) from error
        sequences.append(LabelSequence(row["uuid"], row["subject_id"], quality, ac_mm))
    return sequences
