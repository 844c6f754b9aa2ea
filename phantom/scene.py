"""One case's scene: which fetus, how it lies in which uterus, and all that a scan of it draws by
chance.

Maternal axes: x to the mother's left, y posterior (into the image), z cranial; zero is the uterus's
centre. Everything is a function of (seed, case): a subject who comes twice brings the same fetus
and wall, but another scan.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from phantom.anatomy import Fetus, sample_fetus
from phantom.shapes import Ellipsoid, ellipsoid, frame_along, turn

BLOCK = (
    16  # one of sixteen cases is a repeat: 300 cases then have 281 subjects, as the real set has
)


class Stream(IntEnum):
    """Names of the independent random streams of a case."""

    REPEATS = 0
    SUBJECT = 1
    FETUS = 2
    SCAN = 3
    PICTURE = 4


@dataclass(frozen=True)
class Mother:
    """What of the mother stays the same between scans."""

    wall_mm: float
    fat_share: float
    breadth: float


@dataclass(frozen=True)
class Subject:
    """A fetus and its mother, who may be scanned more than once."""

    seed: int
    number: int
    ac_mm: float
    mother: Mother

    def fetus(self, size: float = 1.0) -> Fetus:
        """The subject's fetus, always the same one but for its size."""
        rng = stream(self.seed, self.number, Stream.FETUS)
        return sample_fetus(rng, self.ac_mm * size)


@dataclass(frozen=True)
class Scene:
    """Fetus, pose (`rotation` columns = fetal axes in maternal ones, `position` of its zero),
    uterus, placenta.
    """

    subject: Subject
    fetus: Fetus
    rotation: np.ndarray
    position: np.ndarray
    uterus: Ellipsoid
    placenta: Ellipsoid
    cord: tuple[Ellipsoid, ...]


def stream(seed: int, case: int, which: Stream, *more: int) -> np.random.Generator:
    """The random stream of one purpose of one case."""
    return np.random.default_rng([seed, case, int(which), *more])


def subject_of(seed: int, case: int) -> int:
    """The case that first showed this case's subject; in every block of sixteen one subject comes
    twice.
    """
    block = case // BLOCK
    rng = stream(seed, block, Stream.REPEATS)
    first, second = sorted(rng.choice(BLOCK, size=2, replace=False))
    return block * BLOCK + int(first) if case == block * BLOCK + second else case


def sample_subject(seed: int, number: int) -> Subject:
    """The subject that the case `number` of `seed` is the first to show."""
    rng = stream(seed, number, Stream.SUBJECT)
    ac_mm = _truncated_normal(rng, mean=220.0, sd=54.0, low=142.0, high=325.0)
    mother = Mother(
        wall_mm=float(rng.uniform(8, 22)),
        fat_share=float(rng.uniform(0.35, 0.7)),
        breadth=float(rng.uniform(0.95, 1.2)),
    )
    return Subject(seed, number, ac_mm, mother)


def stirred(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene in another sweep: fetus moved and turned a little, its size changed by breath and
    pressure.
    """
    fetus = scene.subject.fetus(size=float(np.exp(rng.normal(0, 0.036))))
    nudge = (
        turn(0, rng.normal(0, 0.05)) @ turn(1, rng.normal(0, 0.05)) @ turn(2, rng.normal(0, 0.08))
    )
    return replace(
        scene,
        fetus=fetus,
        rotation=nudge @ scene.rotation,
        position=scene.position + rng.normal(0, 2.0, 3),
    )


def sample_scene(rng: np.random.Generator, subject: Subject) -> Scene:
    """Lay the subject's fetus into a uterus."""
    fetus = subject.fetus()
    r = fetus.radius_mm
    rotation = _sample_lie(rng)
    along = np.abs(rotation[:, 2])
    room = rng.uniform(-0.12, 0.28)
    semi = np.array(
        [
            (1.15 * subject.mother.breadth + room + 1.5 * along[0]) * r + 6,
            (1.08 + room + 0.3 * along[1]) * r + 5,
            (1.25 + room + 1.55 * along[2]) * r + 6,
        ]
    )
    middle = np.array([rng.normal(0, 0.18), rng.normal(-0.05, 0.12), rng.normal(0, 0.30)]) * r
    position = middle - rotation[:, 2] * 1.0 * r
    position[1] = np.clip(position[1], -(semi[1] - 1.0 * r), semi[1] - 1.0 * r)
    return Scene(
        subject,
        fetus,
        rotation,
        position,
        uterus=ellipsoid([0, 0, 0], semi),
        placenta=_sample_placenta(rng, semi),
        cord=_sample_cord(rng, semi, r),
    )


def _sample_lie(rng: np.random.Generator) -> np.ndarray:
    """Fetal axes in maternal ones: cephalic, breech, transverse or oblique lie, any roll, some
    extra tilt.
    """
    kind = rng.choice(4, p=[0.47, 0.31, 0.15, 0.07])
    transverse, oblique = rng.choice([-1, 1]) * np.pi / 2, rng.choice([0.7, 2.4, -0.7, -2.4])
    heading = [np.pi, 0.0, transverse, oblique][kind]
    # The heading turns the fetus's cranial axis from the mother's about the line of sight.
    axis = turn(1, heading + rng.normal(0, 0.20)) @ np.array([0.0, 0.0, 1.0])
    axis[1] += rng.normal(0, 0.24)
    axis /= np.linalg.norm(axis)
    return np.asarray(frame_along(axis) @ turn(2, rng.uniform(0, 2 * np.pi)))


def _sample_placenta(rng: np.random.Generator, semi: np.ndarray) -> Ellipsoid:
    direction = rng.normal(0, 1, 3) * np.array([1.0, 1.2, 0.5])
    direction /= np.linalg.norm(direction)
    at = direction / np.linalg.norm(direction / semi)
    width, thick = rng.uniform(50, 75), rng.uniform(18, 32)
    outward = at / semi**2
    return ellipsoid(at, [width, width, thick], frame_along(outward / np.linalg.norm(outward)))


def _sample_cord(rng: np.random.Generator, semi: np.ndarray, r: float) -> tuple[Ellipsoid, ...]:
    loops = []
    for _ in range(6):
        direction = rng.normal(0, 1, 3)
        at = direction / np.linalg.norm(direction / semi) * rng.uniform(0.78, 0.95)
        axis = rng.normal(0, 1, 3)
        size = [0.13 * r, 0.13 * r, rng.uniform(0.4, 0.8) * r]
        loops.append(ellipsoid(at, size, frame_along(axis / np.linalg.norm(axis))))
    return tuple(loops)


def _truncated_normal(
    rng: np.random.Generator, *, mean: float, sd: float, low: float, high: float
) -> float:
    while True:
        value = float(rng.normal(mean, sd))
        if low <= value <= high:
            return value
