"""Chance: a case's random streams, and the ranges and spreads that values are drawn from.

The order in which the values of a stream are drawn belongs to the seed: another order gives other
stacks.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Stream(IntEnum):
    """What a random stream is for; streams are independent of each other."""

    REPEATS = 0
    """Which cases show one subject, in a block of cases."""
    SUBJECT = 1
    """AC and mother of a subject."""
    FETUS = 2
    """All else of a subject's fetus."""
    SCAN = 3
    """Scene, sweeps and annotator of a case, for each attempt."""
    PICTURE = 4
    """Machine, tissue and speckle of a case; then, with a further number, each frame."""
    LOOK = 5
    """Whether a mixed case is random."""
    STYLE = 6
    """All that looks other than the plain one draw; then, with a further number, each frame."""
    SITE = 7
    """What a site's annotators overlook, and its look-alikes, for each site and attempt."""
    OBSERVER = 8
    """The annotators that the ideal observer of a case imagines."""


class Range(NamedTuple):
    """Two ends; between them all values are equally likely: `rng.uniform(*range)`."""

    low: float
    """The lower end."""
    high: float
    """The upper end."""


class Spread(NamedTuple):
    """A normal distribution: `rng.normal(*spread)`."""

    mean: float
    """The mean."""
    sd: float
    """The standard deviation."""


def stream(seed: int, number: int, purpose: Stream, *more: int) -> np.random.Generator:
    """Start the random stream for one purpose.

    Args:
        seed: the data set's seed.
        number: of the case, the subject or the block of cases.
        purpose: what is drawn from the stream.
        more: further numbers, such as the attempt's or the frame's.
    """
    return np.random.default_rng([seed, number, int(purpose), *more])
