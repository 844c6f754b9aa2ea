"""What lies inside the fetus's trunk: tables of its organs, and how those are drawn that vary.

Unless a table says otherwise, places are in units of the standard plane's semi-axes (from side to
side along x, from back to front along y) and of their mean along z. Sizes are in units of that
mean, the abdominal radius. All values were chosen by eye.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from phantom import materials
from phantom.chance import Range
from phantom.materials import Material
from phantom.organ import Girth, Organ, Part, Region, both_sides
from phantom.shapes import Ellipsoid, ellipsoid, rod, turn


@dataclass(frozen=True, kw_only=True)
class Column:
    """A row in a table of rods along the trunk."""

    x: float
    """Place from side to side."""
    y: float
    """Place from back to front."""
    bottom: float
    """Caudal end."""
    top: float
    """Cranial end."""
    radius: float
    """Its radius."""
    material: Material
    """How it looks."""
    name: str = ""
    """The landmark it belongs to; empty if it is none."""


# ---- abdomen

STOMACH_LEFT = Range(0.40, 0.50)
STOMACH_Y = Range(-0.12, 0.15)
STOMACH_Z = Range(-0.05, 0.05)
STOMACH_SEMI = (Range(0.19, 0.25), Range(0.14, 0.19), Range(0.27, 0.35))
STOMACH_TURN_RAD = Range(-0.7, 0.7)  # about the trunk's axis
# Factors on the stomach's size, and how many fetuses have drunk little.
STOMACH_FULL = Range(0.85, 1.25)
STOMACH_EMPTY = Range(0.45, 0.65)
STOMACH_EMPTY_SHARE = 0.10

# The umbilical vein enters at the navel, bends inside the liver and ends in the portal sinus.
NAVEL_X, NAVEL_Y, NAVEL_DOWN = Range(-0.04, 0.04), 0.93, Range(0.30, 0.40)
BEND_X, BEND_Y, BEND_Z = Range(0.02, 0.10), 0.46, Range(-0.08, 0.0)
SINUS_X, SINUS_Y, SINUS_Z = Range(0.28, 0.40), Range(0.12, 0.25), Range(0.0, 0.08)
VEIN_RADIUS = 0.085

BOWEL_LOOPS = 9
BOWEL_X, BOWEL_Y, BOWEL_Z = Range(-0.5, 0.5), Range(-0.1, 0.6), Range(-1.15, -0.45)
BOWEL_SEMI = Range(0.08, 0.22)

KIDNEY_AT = (0.40, -0.42, -0.68)
KIDNEYS = both_sides(
    Organ(at=KIDNEY_AT, semi=(0.20, 0.17, 0.36), material=materials.KIDNEY, name="kidney"),
    Organ(at=KIDNEY_AT, semi=(0.06, 0.05, 0.15), material=materials.KIDNEY_PELVIS),
)

BLADDER_AT, BLADDER_SEMI = (0.0, 0.3, -1.32), Range(0.16, 0.28)
BLADDER_SHARE = 0.7  # of fetuses whose bladder holds something

GALL_BLADDER_AT, GALL_BLADDER_SEMI = (0.30, 0.38, -0.42), (0.06, 0.06, 0.16)
GALL_BLADDER_TURN_RAD = 0.5  # about x

# ---- along the trunk

GREAT_VESSELS = tuple(
    Column(x=x, y=y, bottom=-1.2, top=1.3, radius=0.048, material=materials.GREAT_VESSEL)
    for x, y in ((-0.05, -0.44), (0.12, -0.36))
)
# The vertebral bodies and the two rows of laminae behind them.
SPINE = tuple(
    Column(x=x, y=y, bottom=-1.5, top=1.8, radius=w, material=materials.SPINE, name="spine")
    for x, y, w in ((0.0, -0.66, 0.095), (-0.15, -0.84, 0.06), (0.15, -0.84, 0.06))
)

# ---- chest; places are in units of the abdominal radius along all three axes

LUNGS = both_sides(Organ(at=(0.42, -0.05, 1.05), semi=(0.33, 0.55, 0.48), material=materials.LUNG))
HEART_AT = (-0.17, 0.22, 0.92)
HEART_SIZE = Range(0.95, 1.15)
# The heart's own tables: from its centre, in units of its size times the abdominal radius.
HEART = Organ(at=(0, 0, 0), semi=(0.36, 0.38, 0.33), material=materials.HEART, name="heart")
CHAMBERS = tuple(
    Organ(at=(x, y, 0.0), semi=(w, w * 1.15, 0.19), material=materials.HEART_CHAMBER)
    for x, y, w in (
        (-0.15, 0.13, 0.12),
        (0.08, 0.17, 0.11),
        (-0.11, -0.13, 0.11),
        (0.13, -0.10, 0.12),
    )
)


def sample_stomach(rng: np.random.Generator, girth: Girth) -> Ellipsoid:
    """Draw the stomach."""
    is_full = rng.random() > STOMACH_EMPTY_SHARE
    filling = rng.uniform(*(STOMACH_FULL if is_full else STOMACH_EMPTY))
    # x points to the fetus's right.
    place = [-rng.uniform(*STOMACH_LEFT), rng.uniform(*STOMACH_Y), rng.uniform(*STOMACH_Z)]
    semi = np.array([rng.uniform(*axis) for axis in STOMACH_SEMI]) * girth.radius_mm * filling
    return ellipsoid(np.array(place) * girth.axes_mm, semi, turn(2, rng.uniform(*STOMACH_TURN_RAD)))


def sample_vein(rng: np.random.Generator, girth: Girth) -> np.ndarray:
    """Draw the umbilical vein's course: navel, bend and portal sinus, (3, 3) in mm."""
    course = [
        [rng.uniform(*NAVEL_X), NAVEL_Y, -rng.uniform(*NAVEL_DOWN)],
        [rng.uniform(*BEND_X), BEND_Y, rng.uniform(*BEND_Z)],
        [rng.uniform(*SINUS_X), rng.uniform(*SINUS_Y), rng.uniform(*SINUS_Z)],
    ]
    return np.asarray(np.array(course) * girth.axes_mm)


def sample_inside(
    rng: np.random.Generator, girth: Girth, stomach: Ellipsoid, vein: np.ndarray
) -> tuple[Part, ...]:
    """Draw all that lies inside the trunk, in painting order.

    Args:
        rng: the fetus's stream.
        girth: the fetus's size.
        stomach: as `sample_stomach` gives it.
        vein: as `sample_vein` gives it.
    """
    return (
        *_chest(rng, girth),
        *_belly(rng, girth),
        *_columns(girth, GREAT_VESSELS),
        *_columns(girth, SPINE),
        *_vein(girth, vein),
        Part(shape=stomach, material=materials.STOMACH, name="stomach"),
    )


def _chest(rng: np.random.Generator, girth: Girth) -> list[Part]:
    chest = Region(place_mm=girth.radius_mm, size_mm=girth.radius_mm)
    size_mm = rng.uniform(*HEART_SIZE) * girth.radius_mm
    centre_mm = np.array(HEART_AT) * girth.radius_mm
    heart = Region(place_mm=size_mm, size_mm=size_mm, centre_mm=centre_mm)
    return [*chest.placed(LUNGS), *heart.placed([HEART, *CHAMBERS])]


def _belly(rng: np.random.Generator, girth: Girth) -> list[Part]:
    belly = Region(place_mm=girth.axes_mm, size_mm=girth.radius_mm)
    organs = [_bowel_loop(rng, belly) for _ in range(BOWEL_LOOPS)] + belly.placed(KIDNEYS)
    if rng.random() < BLADDER_SHARE:
        shape = belly.shape(BLADDER_AT, rng.uniform(*BLADDER_SEMI, 3))
        organs.append(Part(shape=shape, material=materials.BLADDER))
    gall_bladder = ellipsoid(
        np.array(GALL_BLADDER_AT) * girth.axes_mm,
        np.array(GALL_BLADDER_SEMI) * girth.radius_mm,
        turn(0, GALL_BLADDER_TURN_RAD),
    )
    return [*organs, Part(shape=gall_bladder, material=materials.GALL_BLADDER)]


def _bowel_loop(rng: np.random.Generator, belly: Region) -> Part:
    place = (rng.uniform(*BOWEL_X), rng.uniform(*BOWEL_Y), rng.uniform(*BOWEL_Z))
    shape = belly.shape(place, rng.uniform(*BOWEL_SEMI, 3))
    echo_db = rng.uniform(*materials.BOWEL_ECHO_DB)
    return Part(shape=shape, material=materials.BOWEL.with_echo(echo_db))


def _columns(girth: Girth, columns: tuple[Column, ...]) -> list[Part]:
    return [
        Part(
            shape=rod(
                np.array([column.x, column.y, column.bottom]) * girth.axes_mm,
                np.array([column.x, column.y, column.top]) * girth.axes_mm,
                column.radius * girth.radius_mm,
            ),
            material=column.material,
            name=column.name,
        )
        for column in columns
    ]


def _vein(girth: Girth, course: np.ndarray) -> list[Part]:
    radius_mm = VEIN_RADIUS * girth.radius_mm
    return [
        Part(shape=rod(start, end, radius_mm), material=materials.UMBILICAL_VEIN, name="vein")
        for start, end in pairwise(course)
    ]
