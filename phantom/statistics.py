"""Counts what a set's truth looks like, beside the real training set, without rendering a frame.

Both come down to the same two tables: every frame's quality (cases, 6, 140) and every sweep's AC
(cases, 6).
"""

import ast
import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acouslic.challenge import AC_COLUMNS, AC_TABLE, FRAMES, FRAMES_PER_SWEEP, SWEEPS, Quality
from phantom.truth import truth

RUNS_FILE = "annotated_frames_per_case.csv"


@dataclass(frozen=True)
class Labels:
    """A set's truth: `quality` (C, 6, 140) uint8, `ac_mm` (C, 6) with NaN for none, and its
    subjects' number.
    """

    quality: np.ndarray
    ac_mm: np.ndarray
    subjects: int


def phantom_labels(seed: int, cases: Iterable[int]) -> Labels:
    """The truth of phantom cases."""
    known = [truth(seed, case) for case in cases]
    quality = np.stack([k.quality().reshape(SWEEPS, FRAMES_PER_SWEEP) for k in known])
    ac_mm = [[np.nan if s.ac_mm is None else s.ac_mm for s in k.labels] for k in known]
    return Labels(quality, np.array(ac_mm, float), len({k.subject for k in known}))


def reference_labels(folder: Path) -> Labels:
    """The real set's truth from its AC table and its table of annotated runs.

    Raises FileNotFoundError where one of the two files is missing.
    """
    with (folder / AC_TABLE.name).open(newline="") as file:
        acs = list(csv.DictReader(file))
    with (folder / RUNS_FILE).open(newline="") as file:
        runs = list(csv.DictReader(file))
    quality = np.zeros((len(runs), FRAMES), np.uint8)
    for case, row in zip(quality, runs, strict=True):
        for column, value in (("subopt_seq", Quality.SUBOPTIMAL), ("opt_seq", Quality.OPTIMAL)):
            for first, last in ast.literal_eval(row[column]):
                case[first : last + 1] = value
    ac_mm = np.array([[float(row[c]) if row[c] else np.nan for c in AC_COLUMNS] for row in acs])
    return Labels(
        quality.reshape(-1, SWEEPS, FRAMES_PER_SWEEP),
        ac_mm,
        len({row["subject_id"] for row in acs}),
    )


def summary(labels: Labels) -> dict[str, str]:
    """The figures of one set, by name."""
    quality, ac = labels.quality, labels.ac_mm
    cases, annotated = len(quality), (quality > 0).sum((1, 2))
    known = ac[~np.isnan(ac)]
    with_ac = ~np.isnan(ac)
    lengths, runs = _runs(quality > 0)
    optimal = (quality == Quality.OPTIMAL).sum(2)
    optimal = optimal[optimal > 0]
    position = np.nonzero(quality)[2]
    spread = [np.nanstd(row) / np.nanmean(row) for row in ac if (~np.isnan(row)).sum() > 1]
    return {
        "cases (subjects)": f"{cases} ({labels.subjects})",
        "AC mean ± SD, mm": f"{known.mean():.1f} ± {known.std(ddof=1):.1f}",
        "AC range, mm": f"{known.min():.0f} to {known.max():.0f}",
        "AC percentiles 5/25/50/75/95, mm": _percentiles(known, (5, 25, 50, 75, 95)),
        "AC between a case's sweeps, SD/mean": f"{100 * float(np.mean(spread)):.1f} %",
        "annotated frames a case: mean": f"{annotated.mean():.1f}",
        "annotated frames a case: percentiles 5/50/95": _percentiles(annotated, (5, 50, 95)),
        "annotated frames a case: range": f"{annotated.min()} to {annotated.max()}",
        "optimal, suboptimal frames a case": f"{(quality == Quality.OPTIMAL).sum() / cases:.1f}, "
        f"{(quality == Quality.SUBOPTIMAL).sum() / cases:.1f}",
        "cases without an optimal frame": _share(~(quality == Quality.OPTIMAL).any((1, 2))),
        "cases without a suboptimal frame": _share(~(quality == Quality.SUBOPTIMAL).any((1, 2))),
        "sweeps with an AC, by sweep 1..6": " / ".join(f"{x:.0%}" for x in with_ac.mean(0)),
        "cases with 1/2/3/4+ such sweeps": " / ".join(
            f"{x:.0%}" for x in np.bincount(np.minimum(with_ac.sum(1), 4), minlength=5)[1:] / cases
        ),
        "runs a case": f"{runs / cases:.2f}",
        "run length, percentiles 5/50/95": _percentiles(lengths, (5, 50, 95)),
        "optimal frames in a sweep that has any": f"{optimal.mean():.1f}",
        "position in the sweep, percentiles 5/50/95": _percentiles(position, (5, 50, 95)),
    }


def comparison(seed: int, cases: range, reference: Path | None) -> str:
    """A Markdown table of the phantom's figures, beside the real set's where `reference` holds its
    two files.
    """
    columns = [(f"phantom, seed {seed}", summary(phantom_labels(seed, cases)))]
    if reference is not None:
        columns.append(("real training set", summary(reference_labels(reference))))
    lines = [
        "| | " + " | ".join(name for name, _ in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    lines += [
        f"| {key} | " + " | ".join(figures[key] for _, figures in columns) + " |"
        for key in columns[0][1]
    ]
    return "\n".join(lines)


def _percentiles(values: np.ndarray, at: tuple[int, ...]) -> str:
    return " / ".join(f"{x:.0f}" for x in np.percentile(values, at))


def _share(flags: np.ndarray) -> str:
    return f"{flags.sum()} ({flags.mean():.0%})"


def _runs(flags: np.ndarray) -> tuple[np.ndarray, int]:
    """Lengths of all runs of True along the last axis, and their number."""
    padded = np.zeros((*flags.shape[:-1], flags.shape[-1] + 2), np.int8)
    padded[..., 1:-1] = flags
    edges = np.diff(padded, axis=-1)
    starts, ends = np.nonzero(edges == 1)[-1], np.nonzero(edges == -1)[-1]
    return ends - starts, len(starts)
