"""One case's scene: which fetus, and how it lies in which uterus.

Maternal axes: x to the mother's left, y posterior (into the image), z cranial; zero is the uterus's
centre. Everything is a function of (seed, case): a subject who comes twice brings the same fetus
and wall, but another scan.

Unless a comment says otherwise, lengths are in units of the fetus's abdominal radius.
"""

from dataclasses import dataclass, replace

import numpy as np

from phantom.anatomy import Fetus, sample_fetus
from phantom.chance import Range, Spread, Stream, stream
from phantom.organ import Part
from phantom.shapes import Ellipsoid, ellipsoid, frame_along, turn, unit

# ---- subjects

# In every block of so many cases one subject comes twice: 300 cases then have 281 subjects, as the
# real set has.
BLOCK = 16
# AC of subjects: a normal distribution between limits. Fitted to the training set's statistics.
AC_MM = Spread(220.0, 54.0)
AC_LIMITS_MM = Range(142.0, 325.0)
# The mother; chosen by eye.
WALL_MM = Range(8.0, 22.0)
FAT_SHARE = Range(0.35, 0.7)
BREADTH = Range(0.95, 1.2)

# ---- lie: the angle between the two cranial axes, about the line of sight

# Cephalic, breech, transverse and oblique; fitted to the training set's statistics.
LIE_PROBABILITIES = (0.47, 0.31, 0.15, 0.07)
CEPHALIC_RAD, BREECH_RAD, TRANSVERSE_RAD = np.pi, 0.0, np.pi / 2
OBLIQUE_RAD = (0.7, 2.4, -0.7, -2.4)  # chosen by eye
HEADING_SD_RAD = 0.20  # about these angles; chosen by eye
# Added to the fetus's cranial axis, of length 1, along the line of sight; chosen by eye.
TILT_SD = 0.24

# ---- uterus: semi-axes along x, y and z; chosen by eye

UTERUS = (1.15, 1.08, 1.25)  # the first one times the mother's breadth
UTERUS_ROOM = Range(-0.12, 0.28)  # added to all three
UTERUS_STRETCH = (1.5, 0.3, 1.55)  # added as far as the fetus's axis lies along them
UTERUS_FLUID_MM = (6.0, 5.0, 6.0)  # added whatever the fetus's size
# The middle of the fetus, one radius cranial of its standard plane, lies about the uterus's centre.
MIDDLE = (0.0, -0.05, 0.0)
MIDDLE_SD = (0.18, 0.12, 0.30)

# ---- placenta and cord; chosen by eye

PLACENTA_PREFERENCE = (1.0, 1.2, 0.5)  # for the uterus's sides, front and back, top and bottom
PLACENTA_WIDTH_MM = Range(50.0, 75.0)
PLACENTA_THICKNESS_MM = Range(18.0, 32.0)
CORD_LOOPS = 6
CORD_PLACE = Range(0.78, 0.95)  # share of the way from the uterus's centre to its wall
CORD_RADIUS = 0.13
CORD_HALF_LENGTH = Range(0.4, 0.8)

# ---- between sweeps

# Logarithm of the factor on the fetus's size: pressure, breath, and the spread between real
# annotations of one fetus. Fitted to the training set's statistics.
SIZE_LOG_SD = 0.036
# The fetus turns about x, y and z, and moves; chosen by eye.
STIR_SD_RAD = (0.05, 0.05, 0.08)
STIR_SD_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class Mother:
    """What stays the same of a mother between scans."""

    wall_mm: float
    """Thickness of the wall in front of the uterus."""
    fat_share: float
    """Share of the wall that is fat, 0 to 1."""
    breadth: float
    """Factor on the uterus's breadth."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A fetus and its mother, who may be scanned more than once."""

    seed: int
    """The data set's seed."""
    number: int
    """The case that first shows this subject."""
    ac_mm: float
    """Abdominal circumference."""
    mother: Mother
    """Whose uterus the fetus lies in."""

    def fetus(self, size: float = 1.0) -> Fetus:
        """The subject's fetus, always the same one but for a factor on its size."""
        rng = stream(self.seed, self.number, Stream.FETUS)
        return sample_fetus(rng, self.ac_mm * size)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A fetus in a uterus."""

    subject: Subject
    """Who is scanned."""
    fetus: Fetus
    """The subject's fetus as large as it is now."""
    rotation: np.ndarray
    """The columns are the fetus's axes in maternal ones, (3, 3)."""
    position: np.ndarray
    """The fetus's zero, the centre of its standard plane, in maternal axes, (3,) mm."""
    uterus: Ellipsoid
    """The inside of the uterus."""
    placenta: Ellipsoid
    """The placenta; what of it lies outside the uterus is not painted."""
    cord: tuple[Ellipsoid, ...]
    """Loops of the umbilical cord."""
    look_alike: tuple[Part, ...] = ()
    """A round structure that looks like an abdomen, in maternal axes: its body, then its hole."""


def subject_of(seed: int, case: int) -> int:
    """The number of a case's subject: of the case that first shows it."""
    block = case // BLOCK
    rng = stream(seed, block, Stream.REPEATS)
    first, second = sorted(rng.choice(BLOCK, size=2, replace=False))
    return block * BLOCK + int(first) if case == block * BLOCK + second else case


def sample_subject(seed: int, number: int) -> Subject:
    """Draw the subject that the case `number` of `seed` is the first to show."""
    rng = stream(seed, number, Stream.SUBJECT)
    ac_mm = _sample_ac_mm(rng)
    mother = Mother(
        wall_mm=rng.uniform(*WALL_MM),
        fat_share=rng.uniform(*FAT_SHARE),
        breadth=rng.uniform(*BREADTH),
    )
    return Subject(seed=seed, number=number, ac_mm=ac_mm, mother=mother)


def stirred(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene in another sweep: the fetus moved, turned and changed in size a little."""
    fetus = scene.subject.fetus(size=float(np.exp(rng.normal(0, SIZE_LOG_SD))))
    x, y, z = (turn(axis, rng.normal(0, sd)) for axis, sd in enumerate(STIR_SD_RAD))
    return replace(
        scene,
        fetus=fetus,
        rotation=x @ y @ z @ scene.rotation,
        position=scene.position + rng.normal(0, STIR_SD_MM, 3),
    )


def sample_scene(rng: np.random.Generator, subject: Subject) -> Scene:
    """Lay the subject's fetus into a uterus."""
    fetus = subject.fetus()
    rotation = _sample_lie(rng)
    semi_mm = _sample_uterus_mm(rng, subject, fetus, cranial=rotation[:, 2])
    return Scene(
        subject=subject,
        fetus=fetus,
        rotation=rotation,
        position=_sample_position(rng, semi_mm, fetus, cranial=rotation[:, 2]),
        uterus=ellipsoid([0, 0, 0], semi_mm),
        placenta=_sample_placenta(rng, semi_mm),
        cord=tuple(_sample_loop(rng, semi_mm, fetus.radius_mm) for _ in range(CORD_LOOPS)),
    )


def _sample_ac_mm(rng: np.random.Generator) -> float:
    while True:
        ac_mm = rng.normal(*AC_MM)
        if AC_LIMITS_MM.low <= ac_mm <= AC_LIMITS_MM.high:
            return ac_mm


def _sample_lie(rng: np.random.Generator) -> np.ndarray:
    """The fetus's axes in maternal ones, (3, 3): any lie, any roll, and a little tilt."""
    lie = rng.choice(len(LIE_PROBABILITIES), p=LIE_PROBABILITIES)
    transverse, oblique = rng.choice([-1, 1]) * TRANSVERSE_RAD, rng.choice(OBLIQUE_RAD)
    heading = [CEPHALIC_RAD, BREECH_RAD, transverse, oblique][lie]
    axis = turn(1, heading + rng.normal(0, HEADING_SD_RAD)) @ np.array([0.0, 0.0, 1.0])
    axis[1] += rng.normal(0, TILT_SD)
    return np.asarray(frame_along(unit(axis)) @ turn(2, rng.uniform(0, 2 * np.pi)))


def _sample_uterus_mm(
    rng: np.random.Generator, subject: Subject, fetus: Fetus, *, cranial: np.ndarray
) -> np.ndarray:
    """The uterus's semi-axes, wider where the fetus's axis lies along them, (3,)."""
    semi = np.array(UTERUS) * [subject.mother.breadth, 1.0, 1.0]
    stretch = np.array(UTERUS_STRETCH) * np.abs(cranial)
    semi = semi + rng.uniform(*UTERUS_ROOM) + stretch
    return np.asarray(semi * fetus.radius_mm + np.array(UTERUS_FLUID_MM))


def _sample_position(
    rng: np.random.Generator, semi_mm: np.ndarray, fetus: Fetus, *, cranial: np.ndarray
) -> np.ndarray:
    """Where the fetus's zero lies, (3,) mm; from front to back its abdomen stays in the uterus."""
    middle = rng.normal(MIDDLE, MIDDLE_SD) * fetus.radius_mm
    position = middle - cranial * fetus.radius_mm
    room_mm = semi_mm[1] - fetus.radius_mm
    position[1] = np.clip(position[1], -room_mm, room_mm)
    return np.asarray(position)


def _sample_placenta(rng: np.random.Generator, semi_mm: np.ndarray) -> Ellipsoid:
    direction = unit(rng.normal(0, 1, 3) * np.array(PLACENTA_PREFERENCE))
    at = direction / np.linalg.norm(direction / semi_mm)
    width, thickness = rng.uniform(*PLACENTA_WIDTH_MM), rng.uniform(*PLACENTA_THICKNESS_MM)
    outward = at / semi_mm**2
    return ellipsoid(at, [width, width, thickness], frame_along(unit(outward)))


def _sample_loop(rng: np.random.Generator, semi_mm: np.ndarray, r: float) -> Ellipsoid:
    direction = rng.normal(0, 1, 3)
    at = direction / np.linalg.norm(direction / semi_mm) * rng.uniform(*CORD_PLACE)
    axis = rng.normal(0, 1, 3)
    size = [CORD_RADIUS * r, CORD_RADIUS * r, rng.uniform(*CORD_HALF_LENGTH) * r]
    return ellipsoid(at, size, frame_along(unit(axis)))
