"""The score by kinds of cases: by the AC, the sweep, the subject, and by what a table tells.

A case is an entry of `cases` in metrics.json.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acouslic.challenge import SWEEP_DIRECTIONS
from acouslic.errors import InputError
from dataset.entries import read_rows
from evaluation.intervals import SEED, mean_intervals

Case = Mapping[str, Any]
KEYS = ("score", "nae_circumference", "wfss", "DiceCoefficientSoft")
TERTILES = ("small", "middle", "large")
KEY_COLUMN = "uuid"


@dataclass(frozen=True)
class Subgroup:
    """Some of the cases, and how well they were answered."""

    kind: str
    """What the cases are divided by."""
    name: str
    """What these have in common."""
    n_cases: int
    """How many there are."""
    n_subjects: int
    """Of how many subjects they are."""
    means: Mapping[str, float]
    """Means by KEYS."""
    ci95: tuple[float, float] | None
    """The score's 95 % interval; None where there are no two subjects."""


def read_groups(path: Path) -> dict[str, dict[str, str]]:
    """What a csv says of each case, such as its site.

    Args:
        path: a file with the column uuid; the values of every further column make subgroups.

    Returns:
        By case, the values by column; blank ones are left out.

    Raises:
        InputError: the file cannot be read, or has no further column.
    """
    rows = read_rows(path, (KEY_COLUMN,))
    groups = {
        row[KEY_COLUMN]: {
            column: text
            for column, text in row.items()
            if column not in (KEY_COLUMN, "subject_id") and text
        }
        for row in rows
    }
    if not any(groups.values()):
        raise InputError(
            expected=f"a column beside {KEY_COLUMN} in {path}, such as site",
            found="none that says anything",
            advice="name what the cases are to be divided by in the first line",
        )
    return groups


def subgroups(
    cases: Sequence[Case], told: Mapping[str, Mapping[str, str]], *, seed: int = SEED
) -> list[Subgroup]:
    """Divide the cases in every way that is known; ways that do not divide them are left out.

    Args:
        cases: all cases.
        told: what `read_groups` gives; empty where nothing is told.
        seed: of the bootstrap over subjects.
    """
    divided: list[Subgroup] = []
    for kind, names in _divisions(cases, told).items():
        values = sorted({name for name in names if name}, key=_in_order)
        if len(values) < 2:
            continue
        for value in values:
            members = [case for case, name in zip(cases, names, strict=True) if name == value]
            divided.append(_summary(kind, value, members, seed))
    return divided


def _divisions(
    cases: Sequence[Case], told: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """For each kind the name of every case's group, "" where it has none."""
    repeats = Counter(str(case["subject_id"]) for case in cases)
    columns = dict.fromkeys(column for values in told.values() for column in values)
    return {
        "true AC": _tertiles(cases),
        "chosen sweep": [_direction(case) for case in cases],
        "subject's stacks": [
            "several" if repeats[str(case["subject_id"])] > 1 else "one" for case in cases
        ],
        **{
            column: [told.get(str(case["case"]), {}).get(column, "") for case in cases]
            for column in columns
        },
    }


def _tertiles(cases: Sequence[Case]) -> list[str]:
    """Thirds of the cases by the mean of their reference ACs."""
    acs = np.array([_true_ac_mm(case) for case in cases])
    known = np.isfinite(acs)
    if known.sum() < len(TERTILES):
        return [""] * len(cases)
    low, high = np.quantile(acs[known], [1 / 3, 2 / 3])
    names = (
        f"{TERTILES[0]}: up to {low:.0f} mm",
        f"{TERTILES[1]}: {low:.0f} to {high:.0f} mm",
        f"{TERTILES[2]}: above {high:.0f} mm",
    )
    return [
        names[int(ac > low) + int(ac > high)] if is_known else ""
        for ac, is_known in zip(acs, known, strict=True)
    ]


def _true_ac_mm(case: Case) -> float:
    known = [ac_mm for ac_mm in case["references_mm"] if ac_mm is not None]
    return float(np.mean(known)) if known else float("nan")


def _direction(case: Case) -> str:
    return "" if case["sweep"] is None else SWEEP_DIRECTIONS[case["sweep"] - 1]


def _in_order(name: str) -> tuple[int, str]:
    """Tertiles by size, all else by name; transverse before sagittal, as in a stack."""
    word = name.partition(":")[0]
    order = (*TERTILES, *dict.fromkeys(SWEEP_DIRECTIONS))
    return (order.index(word) if word in order else len(order), name)


def _summary(kind: str, name: str, members: Sequence[Case], seed: int) -> Subgroup:
    values = np.array([[case[key] for key in KEYS] for case in members], float)
    subjects = [str(case["subject_id"]) for case in members]
    ends = mean_intervals(values[:, :1], subjects, seed=seed)
    return Subgroup(
        kind=kind,
        name=name,
        n_cases=len(members),
        n_subjects=len(set(subjects)),
        means=dict(zip(KEYS, values.mean(axis=0).tolist(), strict=True)),
        ci95=None if ends is None else (float(ends[0, 0]), float(ends[0, 1])),
    )
