"""The fetus's head and neck: a skull with what ultrasound shows inside it.

All values were chosen by eye.
"""

from dataclasses import replace

import numpy as np

from phantom import materials
from phantom.chance import Range
from phantom.organ import Girth, Organ, Part, Region, both_sides
from phantom.shapes import ellipsoid, rod, turn

# Radius of the head in abdominal radii, by abdominal circumference (AC): as in growth charts large
# early and small late. The numbers themselves are from no chart.
AC_MM = (140.0, 240.0, 350.0)
HEAD_RADIUS = (1.16, 1.06, 0.95)
HEAD_RADIUS_FACTOR = Range(0.96, 1.04)  # between fetuses of one AC

# The neck, in abdominal radii from the standard plane's centre, ends at the head's centre.
NECK_START, NECK_RADIUS = (0.0, -0.1, 1.4), 0.5
# The head's centre: in abdominal radii, and above the neck also in head radii.
CENTRE_Y = Range(0.1, 0.45)
CENTRE_Z, CENTRE_Z_HEAD = 1.75, 0.78
NOD_RAD = Range(0.15, 0.7)  # chin to chest
SHAKE_RAD = Range(-0.4, 0.4)  # to a side
# Half of biparietal and occipitofrontal diameter and of height, in head radii.
HALF_BPD, HALF_OFD, HALF_HEIGHT = 0.89, 1.11, 0.98

# Places, from the head's centre, and sizes are in units of the three above.
INSIDE = (
    Organ(at=(0.0, 0.0, 0.1), semi=(0.018, 0.82, 0.7), material=materials.MIDLINE),
    *both_sides(
        Organ(at=(0.22, -0.1, -0.05), semi=(0.17, 0.2, 0.2), material=materials.THALAMUS),
        Organ(at=(0.33, -0.35, 0.2), semi=(0.13, 0.28, 0.2), material=materials.PLEXUS),
        Organ(at=(0.28, 0.35, 0.25), semi=(0.09, 0.22, 0.15), material=materials.VENTRICLE),
    ),
    Organ(at=(0.0, 0.45, 0.0), semi=(0.06, 0.13, 0.1), material=materials.CAVUM),
)
FACE_SEMI = (0.18, 0.16, 0.16)
FACE = (
    *both_sides(Organ(at=(0.35, 0.75, -0.55), semi=FACE_SEMI, material=materials.FACE)),  # eyes
    Organ(at=(0.0, 0.9, -0.8), semi=FACE_SEMI, material=materials.FACE),  # jaw
)


def sample_head(rng: np.random.Generator, girth: Girth, ac_mm: float) -> list[Part]:
    """Draw neck and head, in painting order.

    Args:
        rng: the fetus's stream.
        girth: the fetus's size.
        ac_mm: its abdominal circumference.
    """
    r = girth.radius_mm
    radius_mm = r * float(np.interp(ac_mm, AC_MM, HEAD_RADIUS)) * rng.uniform(*HEAD_RADIUS_FACTOR)
    rotation = turn(0, -rng.uniform(*NOD_RAD)) @ turn(2, rng.uniform(*SHAKE_RAD))
    centre_mm = np.array(
        [0.0, rng.uniform(*CENTRE_Y) * r, CENTRE_Z * r + CENTRE_Z_HEAD * radius_mm]
    )
    semi_mm = np.array([HALF_BPD, HALF_OFD, HALF_HEIGHT]) * radius_mm
    head = Region(centre_mm=centre_mm, rotation=rotation, place_mm=semi_mm, size_mm=semi_mm)
    neck = rod(np.array(NECK_START) * r, centre_mm, NECK_RADIUS * r)
    skull = ellipsoid(centre_mm, semi_mm, rotation)
    rim = replace(materials.SKULL_RIM, attenuation_db_mm=rng.uniform(*materials.SKULL_RIM_DB_MM))
    return [
        Part(shape=neck, material=materials.NECK),
        Part(shape=skull, material=replace(materials.BRAIN, shell=rim), name="skull"),
        *head.placed((*INSIDE, *FACE)),
    ]
