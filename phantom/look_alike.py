"""Look-alikes: round structures of an abdomen's size, with a rim and a dark hole, but no abdomens.

They have neither spine nor ribs nor vein. A fibroid with a cyst may look so. All values were chosen
by eye; lengths without a unit are in abdominal radii.
"""

from dataclasses import replace

import numpy as np

from phantom.chance import Range, Spread
from phantom.materials import STOMACH, TRUNK
from phantom.organ import Part, Triple
from phantom.probe import NEAR_MM
from phantom.shapes import ellipsoid
from phantom.sweep import Sweep

RADIUS = Range(0.75, 1.0)
ROUNDNESS = Range(0.85, 1.0)  # of the section, and along the sweep
DEEPER = Range(0.9, 1.5)  # its centre below the mother's wall
ASIDE_MM = Spread(0.0, 15.0)
HOLE_RADIUS = Range(0.15, 0.28)
HOLE_AT = Range(0.3, 0.5)  # share of the way from its centre to its rim
# It lies where so many frames on either side show no abdomen, and not at a sweep's ends.
FREE_FRAMES, FROM_ENDS = 6, 0.15


def with_look_alike(rng: np.random.Generator, sweep: Sweep, is_free: np.ndarray) -> Sweep:
    """The sweep with a look-alike where no abdomen is; without one if there is no room.

    Args:
        rng: the site's stream.
        sweep: any.
        is_free: (N,) bool, the frames that show nothing of an abdomen.
    """
    width = 2 * FREE_FRAMES + 1
    room = np.convolve(is_free, np.ones(width), mode="same") == width
    margin = round(FROM_ENDS * len(sweep))
    places = np.flatnonzero(room[margin : len(sweep) - margin]) + margin
    if not len(places):
        return sweep
    look_alike = _sample(rng, sweep, int(rng.choice(places)))
    return replace(sweep, scene=replace(sweep.scene, look_alike=look_alike))


def _sample(rng: np.random.Generator, sweep: Sweep, frame: int) -> tuple[Part, Part]:
    """Body and hole, with the frame's plane through their middle."""
    planes, scene = sweep.planes, sweep.scene
    axes = np.stack([x[frame] for x in (planes.lateral, planes.depth, planes.normal)], axis=1)
    radius_mm = scene.fetus.radius_mm * rng.uniform(*RADIUS)
    depth_mm = NEAR_MM + scene.subject.mother.wall_mm + radius_mm * rng.uniform(*DEEPER)
    centre = planes.origin[frame] + axes @ np.array([rng.normal(*ASIDE_MM), depth_mm, 0.0])
    semi: Triple = (1.0, rng.uniform(*ROUNDNESS), rng.uniform(*ROUNDNESS))
    turn_rad, out = rng.uniform(0, 2 * np.pi), radius_mm * rng.uniform(*HOLE_AT)
    beside = axes @ np.array([np.cos(turn_rad), np.sin(turn_rad), 0.0])
    hole_mm = radius_mm * rng.uniform(*HOLE_RADIUS)
    return (
        Part(shape=ellipsoid(centre, np.array(semi) * radius_mm, axes), material=TRUNK),
        Part(shape=ellipsoid(centre + out * beside, [hole_mm] * 3), material=STOMACH),
    )
