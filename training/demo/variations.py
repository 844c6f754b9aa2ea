"""What each variation of the frames is worth, by a fractional factorial design.

Left out one at a time, eight variations take nine networks a seed, and each gain is the difference
of two of them. Here each of sixteen networks has about half of the variations, and each gain is the
difference of eight networks and eight others: intervals half as wide as eighteen networks of two
seeds would give, where gains add up. The design has resolution IV (Box, Hunter & Hunter, Statistics
for Experimenters, 2nd edition, chapter 6): no gain is mixed up with what two variations do
together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import hadamard
from scipy.stats import t

from evaluation.intervals import LEVEL_PERCENT
from training.augment import NONE
from training.options import Augmentation

# The variations that are switched as one, and their options.
GROUPS = {
    "turns, scale, mirror images": ("angle_deg", "scale_ratio", "flip"),
    "gain, gamma, dynamic range, grey map": ("gain_ratio", "gamma_ratio", "floor", "curve"),
    "attenuation, gain by depth in bands": ("depth", "bands"),
    "blur": ("blur",),
    "grain": ("grain",),
    "shadow": ("shadow",),
    "lost contact": ("contact",),
    "rings": ("rings",),
}
NETWORKS = 16


class Switched(NamedTuple):
    """Which groups a network varies."""

    names: tuple[str, ...]
    """Keys of GROUPS."""
    augmentation: Augmentation
    """The same as options."""
    half: int
    """0 or 1: in both halves of the networks each group is switched on as often as off."""


class Gain(NamedTuple):
    """What a group brings, with both ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def design() -> Iterator[Switched]:
    """The networks, NETWORKS of them."""
    signs = hadamard(NETWORKS)
    # The products of one or three of four columns; two of them make one of the others.
    odd = [column for column in range(NETWORKS) if column.bit_count() % 2]
    defaults = asdict(Augmentation())
    for row, last in zip(signs[:, odd], signs[:, -1], strict=True):
        names = tuple(name for name, sign in zip(GROUPS, row, strict=True) if sign > 0)
        options = {option: defaults[option] for name in names for option in GROUPS[name]}
        yield Switched(names, replace(NONE, **options), int(last < 0))


def gains(
    varied: Sequence[Sequence[str]], seeds: Sequence[int], values: Sequence[float] | np.ndarray
) -> dict[str, Gain]:
    """What each group brings, by least squares: a mean for each seed and a term for each group.

    Args:
        varied: the groups that each network varies.
        seeds: its seed.
        values: what it is worth.

    Returns:
        The gains by group. Their intervals are of Student's t, of what the terms leave unexplained.
    """
    on = np.array([[name in names for name in GROUPS] for names in varied], float)
    of_seed = np.asarray(seeds)[:, None] == np.unique(seeds)
    terms = np.hstack([on, of_seed])
    worth, *_ = np.linalg.lstsq(terms, np.asarray(values))
    free = len(terms) - terms.shape[1]
    variance = ((values - terms @ worth) ** 2).sum() / free
    error = np.sqrt(variance * np.diag(np.linalg.inv(terms.T @ terms)))
    reach = t.ppf((1 + LEVEL_PERCENT / 100) / 2, free) * error
    return {
        name: Gain(float(mean), float(mean - width), float(mean + width))
        for name, mean, width in zip(GROUPS, worth, reach, strict=False)
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """One row a group, in Markdown.

    Args:
        results: of `ablation`, each with "varied", the names of its groups.
    """
    columns = {"phantoms: gain in Dice [95 %]": "phantom_dice"}
    if masks := len(results[0]["dice"]):
        columns[f"labelled frames: gain in mean Dice of {masks} masks [95 %]"] = "mean_dice"
    varied, seeds = ([result[key] for result in results] for key in ("varied", "seed"))
    found = [gains(varied, seeds, [result[key] for result in results]) for key in columns.values()]
    rows = [
        ["variation", *columns],
        ["---"] * (1 + len(columns)),
        *([name, *(_text(of_group[name]) for of_group in found)] for name in GROUPS),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _text(gain: Gain) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}..{gain.high:+.3f}]"
