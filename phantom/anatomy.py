"""The fetus: a list of tissue parts, made of ellipsoids, scaled to its abdominal circumference.

Fetal axes: x to the fetus's right, y anterior, z cranial; zero is the centre of the standard
abdominal plane. Echo levels are dB relative to average soft tissue, attenuation is extra dB per mm
of path.
"""

from dataclasses import dataclass

import numpy as np

from acouslic.ellipse import ramanujan
from phantom.shapes import Ellipsoid, ellipsoid, rod, turn


@dataclass(frozen=True)
class Part:
    """A painted part: its inside, and a bright shell where the beam meets its surface squarely;
    landmarks have a name.
    """

    shape: Ellipsoid
    echo_db: float
    attenuation_db_mm: float = 0.0
    texture_db: float = 1.5
    shell_db: float = 0.0
    shell_mm: float = 1.6
    shell_attenuation_db_mm: float = 0.0
    diffuse: float = 0.15
    soft_mm: float = 1.4
    name: str = ""


@dataclass(frozen=True)
class Fetus:
    """Sizes in mm and the parts in painting order; `trunk` is (abdomen, chest, pelvis), painted as
    one body.
    """

    ac_mm: float
    radius_mm: float
    trunk: tuple[Ellipsoid, Ellipsoid, Ellipsoid]
    stomach: Ellipsoid
    vein: np.ndarray
    before_trunk: tuple[Part, ...]
    inside_trunk: tuple[Part, ...]
    rib_pitch_mm: float
    trunk_echo_db: float

    @property
    def abdomen(self) -> Ellipsoid:
        """The quadric that is the body's surface near the standard plane, so that its sections are
        ellipses.
        """
        return self.trunk[0]

    def landmarks(self) -> dict[str, tuple[Ellipsoid, ...]]:
        """The body and all that has a name, each of one or more ellipsoids."""
        found: dict[str, tuple[Ellipsoid, ...]] = {"body": self.trunk}
        for part in (*self.before_trunk, *self.inside_trunk):
            if part.name:
                found[part.name] = (*found.get(part.name, ()), part.shape)
        return found


FLUID_DB = -19.0


def sample_fetus(rng: np.random.Generator, ac_mm: float) -> Fetus:
    """A fetus whose standard plane has the circumference `ac_mm`."""
    ratio = rng.uniform(0.93, 1.12)
    scale = ac_mm / float(ramanujan(np.array(ratio), np.array(1.0)))
    a, b = ratio * scale, scale
    r = (a + b) / 2
    trunk = (
        ellipsoid([0, 0, 0], [a, b, 1.95 * r]),
        ellipsoid([0, 0, 1.10 * r], [0.87 * a, 0.87 * b, 0.80 * r]),
        ellipsoid([0, 0, -1.05 * r], [0.85 * a, 0.85 * b, 0.75 * r]),
    )
    stomach = _stomach(rng, a, b, r)
    vein = _vein(rng, a, b, r)
    inside = [
        *_chest(rng, r),
        *_belly(rng, a, b, r),
        *_spine(a, b, r),
        *_vein_parts(vein, r),
        Part(stomach, FLUID_DB, -0.10, 0.3, 5.0, 1.2, soft_mm=1.0, name="stomach"),
    ]
    return Fetus(
        ac_mm=ac_mm,
        radius_mm=r,
        trunk=trunk,
        stomach=stomach,
        vein=vein,
        before_trunk=(*_limbs(rng, r), *_head(rng, r, ac_mm)),
        inside_trunk=tuple(inside),
        rib_pitch_mm=0.23 * r,
        trunk_echo_db=float(rng.uniform(-7.0, -0.5)),
    )


def _stomach(rng: np.random.Generator, a: float, b: float, r: float) -> Ellipsoid:
    full = rng.uniform(0.85, 1.25) if rng.random() > 0.10 else rng.uniform(0.45, 0.65)
    centre = [
        -rng.uniform(0.40, 0.50) * a,
        rng.uniform(-0.12, 0.15) * b,
        rng.uniform(-0.05, 0.05) * r,
    ]
    semi = (
        np.array([rng.uniform(0.19, 0.25), rng.uniform(0.14, 0.19), rng.uniform(0.27, 0.35)])
        * r
        * full
    )
    return ellipsoid(centre, semi, turn(2, rng.uniform(-0.7, 0.7)))


def _vein(rng: np.random.Generator, a: float, b: float, r: float) -> np.ndarray:
    """The umbilical vein's course, (3, 3) points: cord insertion, entry into the liver, portal
    sinus.
    """
    return np.array(
        [
            [rng.uniform(-0.04, 0.04) * a, 0.93 * b, -rng.uniform(0.30, 0.40) * r],
            [rng.uniform(0.02, 0.10) * a, 0.46 * b, rng.uniform(-0.08, 0.0) * r],
            [rng.uniform(0.28, 0.40) * a, rng.uniform(0.12, 0.25) * b, rng.uniform(0.0, 0.08) * r],
        ]
    )


def _vein_parts(vein: np.ndarray, r: float) -> list[Part]:
    look = dict(echo_db=-16.0, attenuation_db_mm=-0.03, texture_db=0.3, shell_db=6.0, shell_mm=1.0)
    return [
        Part(rod(p, q, 0.085 * r), soft_mm=0.9, name="vein", **look)
        for p, q in ((vein[0], vein[1]), (vein[1], vein[2]))
    ]


def _belly(rng: np.random.Generator, a: float, b: float, r: float) -> list[Part]:
    parts = []
    for _ in range(9):
        centre = [
            rng.uniform(-0.5, 0.5) * a,
            rng.uniform(-0.1, 0.6) * b,
            rng.uniform(-1.15, -0.45) * r,
        ]
        semi = rng.uniform(0.08, 0.22, 3) * r
        parts.append(Part(ellipsoid(centre, semi), rng.uniform(-7, 6), 0.0, 2.0, soft_mm=2.5))
    for side in (-1, 1):
        kidney = [side * 0.40 * a, -0.42 * b, -0.68 * r]
        parts.append(
            Part(
                ellipsoid(kidney, [0.20 * r, 0.17 * r, 0.36 * r]),
                -7.0,
                0,
                1.5,
                5.0,
                1.5,
                name="kidney",
            )
        )
        parts.append(
            Part(ellipsoid(kidney, [0.06 * r, 0.05 * r, 0.15 * r]), -13.0, 0, 0.5, 4.0, 1.0)
        )
    if rng.random() < 0.7:
        bladder = rng.uniform(0.16, 0.28, 3) * r
        parts.append(
            Part(ellipsoid([0, 0.3 * b, -1.32 * r], bladder), FLUID_DB, -0.1, 0.3, 5.0, 1.2)
        )
    gall = ellipsoid([0.30 * a, 0.38 * b, -0.42 * r], [0.06 * r, 0.06 * r, 0.16 * r], turn(0, 0.5))
    parts.append(Part(gall, -14.0, 0.0, 0.3, 3.0, 1.0, soft_mm=1.0))
    for x, y in ((-0.05, -0.44), (0.12, -0.36)):
        vessel = rod(
            np.array([x * a, y * b, -1.2 * r]), np.array([x * a, y * b, 1.3 * r]), 0.048 * r
        )
        parts.append(Part(vessel, -12.0, 0.0, 0.3, 3.0, 1.0, soft_mm=0.9))
    return parts


def _chest(rng: np.random.Generator, r: float) -> list[Part]:
    parts = [
        Part(
            ellipsoid([s * 0.42 * r, -0.05 * r, 1.05 * r], [0.33 * r, 0.55 * r, 0.48 * r]),
            2.0,
            0,
            1.5,
            soft_mm=3,
        )
        for s in (-1, 1)
    ]
    heart, size = np.array([-0.17, 0.22, 0.92]) * r, rng.uniform(0.95, 1.15) * r
    parts.append(
        Part(
            ellipsoid(heart, np.array([0.36, 0.38, 0.33]) * size),
            -3.0,
            0,
            1.0,
            4.0,
            1.4,
            name="heart",
        )
    )
    for dx, dy, big in (
        (-0.15, 0.13, 0.12),
        (0.08, 0.17, 0.11),
        (-0.11, -0.13, 0.11),
        (0.13, -0.10, 0.12),
    ):
        centre = heart + np.array([dx, dy, 0.0]) * size
        chamber = np.array([big, big * 1.15, 0.19]) * size
        parts.append(Part(ellipsoid(centre, chamber), FLUID_DB + 3, 0, 0.3, 2.0, 1.0, soft_mm=1.0))
    return parts


def _spine(a: float, b: float, r: float) -> list[Part]:
    """Vertebral bodies and the two rows of laminae, with their shadow."""
    bone = dict(echo_db=15.0, attenuation_db_mm=1.3, texture_db=3.0, soft_mm=1.6)
    columns = ((0.0, -0.66, 0.095), (-0.15, -0.84, 0.06), (0.15, -0.84, 0.06))
    return [
        Part(
            rod(np.array([x * a, y * b, -1.5 * r]), np.array([x * a, y * b, 1.8 * r]), w * r),
            name="spine",
            **bone,
        )
        for x, y, w in columns
    ]


def _head(rng: np.random.Generator, r: float, ac_mm: float) -> list[Part]:
    """Skull, brain, midline and plexus; head to abdomen as in growth charts: larger early, smaller
    late.
    """
    radius = (
        r * float(np.interp(ac_mm, [140, 240, 350], [1.16, 1.06, 0.95])) * rng.uniform(0.96, 1.04)
    )
    flexion = turn(0, -rng.uniform(0.15, 0.7)) @ turn(2, rng.uniform(-0.4, 0.4))
    centre = np.array([0.0, rng.uniform(0.1, 0.45) * r, 1.75 * r + 0.78 * radius])
    half_bpd, half_ofd, half_height = 0.89 * radius, 1.11 * radius, 0.98 * radius

    def inside(at: tuple[float, float, float], semi: tuple[float, float, float]) -> Ellipsoid:
        size = np.array([half_bpd, half_ofd, half_height])
        return ellipsoid(centre + flexion @ (np.array(at) * size), np.array(semi) * size, flexion)

    neck = rod(np.array([0, -0.1 * r, 1.4 * r]), centre, 0.5 * r)
    skull = inside((0, 0, 0), (1, 1, 1))
    parts = [
        Part(neck, -3.0),
        Part(skull, -9.0, 0.02, 1.8, 21.0, 4.2, rng.uniform(0.3, 0.9), 0.30, 2.0, "skull"),
        Part(inside((0, 0, 0.1), (0.018, 0.82, 0.7)), 0.0, 0, 1.0, soft_mm=1.2),
    ]
    for side in (-1, 1):
        parts.append(Part(inside((side * 0.22, -0.1, -0.05), (0.17, 0.2, 0.2)), -12.0, 0, 0.8))
        parts.append(Part(inside((side * 0.33, -0.35, 0.2), (0.13, 0.28, 0.2)), 1.0, 0, 1.5))
        parts.append(Part(inside((side * 0.28, 0.35, 0.25), (0.09, 0.22, 0.15)), -16.0, 0, 0.5))
    parts.append(Part(inside((0, 0.45, 0.0), (0.06, 0.13, 0.1)), FLUID_DB, 0, 0.3, 4.0, 1.0))
    for x, y, z in ((-0.35, 0.75, -0.55), (0.35, 0.75, -0.55), (0.0, 0.9, -0.8)):
        parts.append(Part(inside((x, y, z), (0.18, 0.16, 0.16)), 9.0, 0.25, 3.0, soft_mm=2.0))
    return parts


def _limbs(rng: np.random.Generator, r: float) -> list[Part]:
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        hip = np.array([side * 0.55, 0.35, -1.35]) * r
        knee = hip + _direction(rng, [side * 0.35, 1.0, 0.75], 0.35) * 1.15 * r
        ankle = knee + _direction(rng, [-side * 0.45, -0.05, -1.0], 0.35) * 1.05 * r
        shoulder = np.array([side * 0.80, 0.05, 1.35]) * r
        elbow = shoulder + _direction(rng, [side * 0.45, 0.45, -0.8], 0.3) * 1.0 * r
        wrist = elbow + _direction(rng, [-side * 0.55, 0.65, 0.7], 0.35) * 0.9 * r
        for start, end, thick in (
            (hip, knee, 0.26),
            (knee, ankle, 0.20),
            (shoulder, elbow, 0.19),
            (elbow, wrist, 0.16),
        ):
            parts.append(Part(rod(start, end, thick * r), -3.0, 0.02, 1.5, 7.0, 1.4))
            bone = rod(start, end, max(0.055 * r, 1.4))
            parts.append(Part(bone, 17.0, 1.5, 2.0, soft_mm=1.5))
        for tip in (ankle, wrist):
            ball = ellipsoid(tip + rng.normal(0, 0.1 * r, 3), rng.uniform(0.12, 0.25, 3) * r)
            parts.append(Part(ball, 3.0, 0.1, 4.0, 8.0, 1.4))
    return parts


def _direction(rng: np.random.Generator, mean: list[float], spread: float) -> np.ndarray:
    vector = np.array(mean) / np.linalg.norm(mean) + rng.normal(0, spread, 3)
    return np.asarray(vector / np.linalg.norm(vector))
