"""The fetus's arms and legs: two rods each, with a bone inside, and a ball for a hand or foot.

Lengths are in units of the abdominal radius; directions are written for the fetus's right side. All
values were chosen by eye.
"""

from dataclasses import dataclass

import numpy as np

from phantom import materials
from phantom.chance import Range
from phantom.organ import Girth, Part, Triple
from phantom.shapes import ellipsoid, rod, unit


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A row in the table of limbs: thigh, lower leg, upper arm or forearm."""

    towards: Triple
    """Its mean direction; the length does not matter."""
    spread: float
    """Standard deviation of the direction's components."""
    length: float
    """From joint to joint."""
    radius: float
    """Of the flesh."""


@dataclass(frozen=True, kw_only=True)
class Limb:
    """A row in the table of limbs: a leg or an arm."""

    start: Triple
    """Hip or shoulder."""
    upper: Segment
    """Thigh or upper arm."""
    lower: Segment
    """Lower leg or forearm."""


LEG = Limb(
    start=(0.55, 0.35, -1.35),
    upper=Segment(towards=(0.35, 1.0, 0.75), spread=0.35, length=1.15, radius=0.26),
    lower=Segment(towards=(-0.45, -0.05, -1.0), spread=0.35, length=1.05, radius=0.20),
)
ARM = Limb(
    start=(0.80, 0.05, 1.35),
    upper=Segment(towards=(0.45, 0.45, -0.8), spread=0.3, length=1.0, radius=0.19),
    lower=Segment(towards=(-0.55, 0.65, 0.7), spread=0.35, length=0.9, radius=0.16),
)
BONE_RADIUS = 0.055
LEAST_BONE_RADIUS_MM = 1.4
# A hand or foot lies about the limb's end.
END_SD = 0.1
END_SEMI = Range(0.12, 0.25)


def sample_limbs(rng: np.random.Generator, girth: Girth) -> list[Part]:
    """Draw arms and legs, in painting order.

    Args:
        rng: the fetus's stream.
        girth: the fetus's size.
    """
    organs: list[Part] = []
    for side in (-1.0, 1.0):  # left, right
        courses = [(limb, _course(rng, limb, side, girth.radius_mm)) for limb in (LEG, ARM)]
        for limb, (start, middle, end) in courses:
            organs += _segment(limb.upper, start, middle, girth.radius_mm)
            organs += _segment(limb.lower, middle, end, girth.radius_mm)
        organs += [_hand_or_foot(rng, course[-1], girth.radius_mm) for _, course in courses]
    return organs


def _course(
    rng: np.random.Generator, limb: Limb, side: float, r: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hip, knee and ankle, or shoulder, elbow and wrist, (3,) each in mm."""
    mirror = np.array([side, 1.0, 1.0])
    start = np.array(limb.start) * mirror * r
    middle = start + _direction(rng, limb.upper, mirror) * limb.upper.length * r
    return start, middle, middle + _direction(rng, limb.lower, mirror) * limb.lower.length * r


def _direction(rng: np.random.Generator, segment: Segment, mirror: np.ndarray) -> np.ndarray:
    return unit(unit(np.array(segment.towards) * mirror) + rng.normal(0, segment.spread, 3))


def _segment(segment: Segment, start: np.ndarray, end: np.ndarray, r: float) -> list[Part]:
    bone_mm = max(BONE_RADIUS * r, LEAST_BONE_RADIUS_MM)
    return [
        Part(shape=rod(start, end, segment.radius * r), material=materials.LIMB),
        Part(shape=rod(start, end, bone_mm), material=materials.LIMB_BONE),
    ]


def _hand_or_foot(rng: np.random.Generator, end: np.ndarray, r: float) -> Part:
    centre = end + rng.normal(0, END_SD * r, 3)
    return Part(
        shape=ellipsoid(centre, rng.uniform(*END_SEMI, 3) * r), material=materials.HAND_OR_FOOT
    )
