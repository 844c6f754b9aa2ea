"""Two scored runs of the same cases, side by side and paired; differences are B minus A."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acouslic import files
from acouslic.errors import InputError
from evaluation.intervals import SEED, mean_intervals
from evaluation.score import SCORED_KEYS, read_score

COMPARISON_FILE = "comparison.json"
# Cases in the list of those that changed most: as many as one looks at.
MOST_CHANGED = 10
# Smaller differences come from the rounding of two computers.
SAME = 1e-9
LOWER_IS_BETTER = {"FalseNegativeError", "FalsePositiveError", "nae_circumference"}
# The sign tells over- from underestimation, or the neighbour's side: only the size is good or bad.
ZERO_IS_BEST = {"HausdorffDistance", "VolumeSimilarity"}


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`, in plain types, as comparison.json holds it."""

    a: str
    """Folder of the first run."""
    b: str
    """Folder of the second run."""
    n_cases: int
    """Number of cases, the same in both."""
    metrics: dict[str, dict[str, Any]]
    """Key to mean_a, mean_b, difference, ci95 (None below two subjects), better, worse, same."""
    changed: list[dict[str, Any]]
    """The cases whose score changed most: case, score_a, score_b, difference, frame_a, frame_b."""


def compare(folder_a: Path, folder_b: Path, *, seed: int = SEED) -> Comparison:
    """Compare two outputs of `score`.

    Where zero is best (HausdorffDistance, VolumeSimilarity) sizes are compared, without the sign.

    Args:
        folder_a: an --output of `score`.
        folder_b: another one, of the same cases.
        seed: of the bootstrap that gives the intervals.

    Returns:
        Means, paired differences and the cases that changed most.

    Raises:
        InputError: one is not there, or they are not of the same cases.
    """
    results = [read_score(folder) for folder in (folder_a, folder_b)]
    a, b = ({case["case"]: case for case in result["cases"]} for result in results)
    refuse_other_cases(a.keys(), b.keys(), folder_a, folder_b)
    names = sorted(a)
    subjects = [str(a[name]["subject_id"]) for name in names]
    values_a, values_b = (_columns(cases, names) for cases in (a, b))
    intervals = mean_intervals(values_b - values_a, subjects, seed=seed)
    metrics = {
        key: _paired(
            key, values_a[:, k], values_b[:, k], None if intervals is None else intervals[k]
        )
        for k, key in enumerate(SCORED_KEYS)
    }
    return Comparison(str(folder_a), str(folder_b), len(names), metrics, _most_changed(a, b))


def table(comparison: Comparison) -> str:
    """The comparison as text for people."""
    lines = [
        f"A: {comparison.a}",
        f"B: {comparison.b}",
        f"{comparison.n_cases} cases; better, worse, same: cases where B is so",
        f"{'':28}{'A':>12}{'B':>12}{'B - A':>12}{'better':>8}{'worse':>7}{'same':>6}"
        "   95 % interval",
    ]
    for key, row in comparison.metrics.items():
        name = f"|{key}|" if key in ZERO_IS_BEST else key
        ends = row["ci95"]
        interval = "-" if ends is None else f"{ends[0]:+.4f} .. {ends[1]:+.4f}"
        lines.append(
            f"{name:28}{row['mean_a']:12.4f}{row['mean_b']:12.4f}{row['difference']:+12.4f}"
            f"{row['better']:8}{row['worse']:7}{row['same']:6}   {interval}"
        )
    if comparison.changed:
        lines.append("cases whose score changed most:")
    for row in comparison.changed:
        lines.append(
            f"  {row['case']:40}{row['score_a']:8.4f} ->{row['score_b']:8.4f}  "
            f"{row['difference']:+.4f}  frame {row['frame_a']} -> {row['frame_b']}"
        )
    return "\n".join(lines)


def write_comparison(comparison: Comparison, output: Path) -> None:
    """Write comparison.json into a folder.

    Raises:
        OutputError: a file of that name is there that is no comparison.
    """
    path = output / COMPARISON_FILE
    files.refuse_foreign_file(path, '"mean_a"', "a comparison")
    files.write_json(path, vars(comparison))


def _columns(cases: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    rows = [
        [abs(cases[name][key]) if key in ZERO_IS_BEST else cases[name][key] for key in SCORED_KEYS]
        for name in names
    ]
    return np.array(rows, dtype=float)


def _paired(key: str, a: np.ndarray, b: np.ndarray, interval: np.ndarray | None) -> dict[str, Any]:
    gain = (a - b) if key in LOWER_IS_BETTER | ZERO_IS_BEST else (b - a)
    better, worse = int((gain > SAME).sum()), int((gain < -SAME).sum())
    return {
        "mean_a": float(a.mean()),
        "mean_b": float(b.mean()),
        "difference": float((b - a).mean()),
        "ci95": None if interval is None else interval.tolist(),
        "better": better,
        "worse": worse,
        "same": len(a) - better - worse,
    }


def _most_changed(
    a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    rows = [
        {
            "case": name,
            "score_a": a[name]["score"],
            "score_b": b[name]["score"],
            "difference": b[name]["score"] - a[name]["score"],
            "frame_a": a[name]["frame"],
            "frame_b": b[name]["frame"],
        }
        for name in a
    ]
    changed = [row for row in rows if abs(row["difference"]) > SAME]
    return sorted(changed, key=lambda row: (-abs(row["difference"]), row["case"]))[:MOST_CHANGED]


def refuse_other_cases(a: Set[str], b: Set[str], folder_a: Path, folder_b: Path) -> None:
    """Make sure that two runs are of the same cases.

    Raises:
        InputError: they are not.
    """
    for only, folder in ((sorted(a - b), folder_a), (sorted(b - a), folder_b)):
        if only:
            raise InputError(
                expected="the same cases in both",
                found=f"{len(only)} only in {folder}: {', '.join(only[:5])}",
                advice="score both on the same truth, or limit both with --cases",
            )
