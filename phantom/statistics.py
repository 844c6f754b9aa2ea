"""Counts what the truth of a set looks like, beside the real training set; renders no frame.

Both come down to the same two tables: every frame's quality and every sweep's AC.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acouslic.challenge import FRAMES_PER_SWEEP, SWEEPS, Quality
from dataset.sequences import read_tables
from phantom.site import Site
from phantom.truth import truth

PERCENTILES, FEW_PERCENTILES = (5, 25, 50, 75, 95), (5, 50, 95)
# Cases with so many annotated sweeps or more are counted together.
MANY_SWEEPS = 4


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The truth of a set of C cases."""

    quality: np.ndarray
    """Quality of each frame, (C, SWEEPS, FRAMES_PER_SWEEP) uint8."""
    ac_mm: np.ndarray
    """AC of each sweep, (C, SWEEPS); NaN where no frame is annotated."""
    subjects: int
    """How many different subjects there are."""


def phantom_labels(seed: int, cases: Iterable[int], site: Site | None = None) -> Labels:
    """The truth of phantom cases, of a site or of none."""
    known = [truth(seed, case, site) for case in cases]
    ac_mm = [[np.nan if s.ac_mm is None else s.ac_mm for s in k.labels] for k in known]
    return Labels(
        quality=np.stack([k.quality().reshape(SWEEPS, FRAMES_PER_SWEEP) for k in known]),
        ac_mm=np.array(ac_mm, float),
        subjects=len({k.subject for k in known}),
    )


def reference_labels(folder: Path) -> Labels:
    """The real set's truth, from its table of circumferences and the one of annotated runs.

    Raises:
        InputError: one of the two files cannot be read, or is not what it should be.
    """
    cases = read_tables(folder)
    return Labels(
        quality=np.stack([case.quality for case in cases]).reshape(-1, SWEEPS, FRAMES_PER_SWEEP),
        ac_mm=np.stack([case.ac_mm for case in cases]),
        subjects=len({case.subject for case in cases}),
    )


def summary(labels: Labels) -> dict[str, str]:
    """The figures of one set, by name; nan where so few cases have nothing to count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means over nothing
        return {
            "cases (subjects)": f"{len(labels.quality)} ({labels.subjects})",
            **_circumferences(labels.ac_mm),
            **_annotated_frames(labels.quality),
            **_annotated_sweeps(~np.isnan(labels.ac_mm)),
            **_annotated_runs(labels.quality),
        }


def comparison(seed: int, cases: range, reference: Path | None, site: Site | None = None) -> str:
    """The phantom's figures as a Markdown table, beside the real set's where that is at hand.

    Args:
        seed: the phantom's seed.
        cases: numbers of its cases.
        reference: folder with the real set's two tables, if any.
        site: where the cases are scanned and annotated.
    """
    name = f"phantom, seed {seed}" + ("" if site is None else f", site {site.value}")
    columns = [(name, summary(phantom_labels(seed, cases, site)))]
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


def _circumferences(ac_mm: np.ndarray) -> dict[str, str]:
    known = ac_mm[~np.isnan(ac_mm)]
    several = ac_mm[(~np.isnan(ac_mm)).sum(1) > 1]
    spread = np.nanstd(several, axis=1) / np.nanmean(several, axis=1)
    return {
        "AC mean ± SD, mm": f"{known.mean():.1f} ± {known.std(ddof=1):.1f}",
        "AC range, mm": f"{known.min():.0f} to {known.max():.0f}",
        f"AC percentiles {_joined(PERCENTILES)}, mm": _percentiles(known, PERCENTILES),
        "AC between a case's sweeps, SD/mean": f"{100 * spread.mean():.1f} %",
    }


def _annotated_frames(quality: np.ndarray) -> dict[str, str]:
    annotated = (quality != Quality.NONE).sum((1, 2))
    optimal, suboptimal = quality == Quality.OPTIMAL, quality == Quality.SUBOPTIMAL
    return {
        "annotated frames a case: mean": f"{annotated.mean():.1f}",
        f"annotated frames a case: percentiles {_joined(FEW_PERCENTILES)}": _percentiles(
            annotated, FEW_PERCENTILES
        ),
        "annotated frames a case: range": f"{annotated.min()} to {annotated.max()}",
        "optimal, suboptimal frames a case": f"{optimal.sum() / len(quality):.1f}, "
        f"{suboptimal.sum() / len(quality):.1f}",
        "cases without an optimal frame": _share(~optimal.any((1, 2))),
        "cases without a suboptimal frame": _share(~suboptimal.any((1, 2))),
    }


def _annotated_sweeps(is_annotated: np.ndarray) -> dict[str, str]:
    sweeps = np.minimum(is_annotated.sum(1), MANY_SWEEPS)
    shares = np.bincount(sweeps, minlength=MANY_SWEEPS + 1)[1:] / len(sweeps)
    return {
        f"sweeps with an AC, by sweep 1..{SWEEPS}": " / ".join(
            f"{x:.0%}" for x in is_annotated.mean(0)
        ),
        f"cases with {_joined(range(1, MANY_SWEEPS + 1))}+ such sweeps": " / ".join(
            f"{x:.0%}" for x in shares
        ),
    }


def _annotated_runs(quality: np.ndarray) -> dict[str, str]:
    lengths = _run_lengths(quality != Quality.NONE)
    optimal = (quality == Quality.OPTIMAL).sum(2)
    position = np.nonzero(quality)[2]
    return {
        "runs a case": f"{len(lengths) / len(quality):.2f}",
        f"run length, percentiles {_joined(FEW_PERCENTILES)}": _percentiles(
            lengths, FEW_PERCENTILES
        ),
        "optimal frames in a sweep that has any": f"{optimal[optimal > 0].mean():.1f}",
        f"position in the sweep, percentiles {_joined(FEW_PERCENTILES)}": _percentiles(
            position, FEW_PERCENTILES
        ),
    }


def _joined(numbers: Iterable[int]) -> str:
    return "/".join(str(number) for number in numbers)


def _percentiles(values: np.ndarray, at: tuple[int, ...]) -> str:
    return " / ".join(f"{x:.0f}" for x in np.percentile(values, at))


def _share(flags: np.ndarray) -> str:
    return f"{flags.sum()} ({flags.mean():.0%})"


def _run_lengths(flags: np.ndarray) -> np.ndarray:
    """Lengths of all runs of True along the last axis, (N,)."""
    padded = np.zeros((*flags.shape[:-1], flags.shape[-1] + 2), np.int8)
    padded[..., 1:-1] = flags
    edges = np.diff(padded, axis=-1)
    starts, ends = np.nonzero(edges == 1)[-1], np.nonzero(edges == -1)[-1]
    return np.asarray(ends - starts)
