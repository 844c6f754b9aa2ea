"""The six blind sweeps: where the probe is in every frame, and which of its lines touch the skin.

Sweeps 0-2 are transverse, caudal to cranial; 3-5 sagittal, left to right. Positions are millimetres
in maternal axes (x left, y posterior, z cranial); line angles are degrees, positive to the image's
right.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from acouslic.challenge import CHALLENGE_FAN, FRAMES_PER_SWEEP, SPACING_MM, SWEEPS
from phantom.scene import Scene, stirred
from phantom.shapes import Planes

NEAR_MM = CHALLENGE_FAN.near_px * SPACING_MM
FAR_MM = CHALLENGE_FAN.far_px * SPACING_MM
DARK_DB = -42.0


@dataclass(frozen=True)
class Sweep:
    """The N real frames of a sweep: the scene in it, their planes, the contact's edges and a hole
    in it.

    `contact` is (N, 5): left edge, right edge, hole's centre, hole's half width (degrees), hole's
    depth (dB).
    """

    scene: Scene
    planes: Planes
    contact: np.ndarray

    def __len__(self) -> int:
        return len(self.contact)

    def contact_db(self, frames: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
        """Gain of lines in dB, 0 where the probe touches: `frames` (N,) with `angles_deg` (N, K)
        gives (N, K).
        """
        left, right, centre, half, deep = (self.contact[frames, i, None] for i in range(5))
        edges = _step((left - angles_deg) / 1.5) + _step((angles_deg - right) / 1.5)
        hole = _step((half - np.abs(angles_deg - centre)) / 1.2)
        return np.asarray(np.maximum(DARK_DB * edges + deep * hole, DARK_DB))


def sample_sweeps(rng: np.random.Generator, scene: Scene) -> tuple[Sweep, ...]:
    """The six sweeps of one scan, between which the fetus stirs a little."""
    return tuple(_sample_sweep(rng, stirred(rng, scene), index) for index in range(SWEEPS))


def _step(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))


def _sample_sweep(rng: np.random.Generator, scene: Scene, index: int) -> Sweep:
    n = int(np.clip(round(rng.normal(110, 9)), 80, FRAMES_PER_SWEEP - 4))
    belly = scene.uterus.semi * np.array([1.35, 1.0, 1.35])
    belly[1] += scene.subject.mother.wall_mm
    x, z = _track(rng, scene, index, n)
    u = np.minimum((x / belly[0]) ** 2 + (z / belly[2]) ** 2, 0.93)
    skin = np.stack([x, -belly[1] * np.sqrt(1 - u), z], axis=1)
    planes = _planes(rng, skin, belly, transverse=index < 3)
    return Sweep(scene, planes, _contact(rng, n, u))


def _track(
    rng: np.random.Generator, scene: Scene, index: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The probe's course over the belly, x and z (N,) each."""
    semi = scene.uterus.semi
    speed = np.exp(gaussian_filter1d(rng.normal(0, 1, n), 10, mode="nearest") * 2.6)
    passed = np.cumsum(speed)
    passed = (passed - passed[0]) / (passed[-1] - passed[0])
    sway = _tremor(rng, n, 1.5, 14) + _tremor(rng, n, 0.4, 2)
    if index < 3:
        aside = [rng.normal(0, 8), -rng.normal(60, 22), rng.normal(75, 22)][index]
        start, end = -semi[2] * rng.uniform(0.55, 1.05), semi[2] * rng.uniform(0.90, 1.30)
        return aside + sway + np.linspace(-1, 1, n) * rng.normal(0, 8), start + passed * (
            end - start
        )
    level = [-0.75, 0.05, 1.1][index - 3] * semi[2] + rng.normal(0, 14)
    start, end = semi[0] * rng.uniform(0.6, 1.15), -semi[0] * rng.uniform(0.6, 1.15)
    return start + passed * (end - start), level + sway + np.linspace(-1, 1, n) * rng.normal(0, 8)


def _tremor(rng: np.random.Generator, n: int, sd: float, smooth: float) -> np.ndarray:
    noise = gaussian_filter1d(rng.normal(0, 1, n + 80), smooth)[40 : 40 + n]
    return np.asarray(noise * sd * np.sqrt(2 * np.sqrt(np.pi) * smooth))


def _planes(
    rng: np.random.Generator, skin: np.ndarray, belly: np.ndarray, *, transverse: bool
) -> Planes:
    """Held between plumb and square to the skin, with a tilt that drifts and trembles."""
    n = len(skin)
    inward = -skin / belly**2
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    follow = rng.uniform(0.15, 0.65, 3)
    depth = np.array([0.0, 1.0, 0.0]) * (1 - follow) + inward * follow
    drift = np.linspace(-1, 1, n)
    for axis, constant_deg, drift_deg in ((0, 5.0, 5.0), (2, 5.0, 4.0)):
        lean = (
            rng.normal(0, constant_deg) + drift * rng.normal(0, drift_deg) + _tremor(rng, n, 1.2, 6)
        )
        depth[:, axis] += np.tan(np.radians(lean))
    depth /= np.linalg.norm(depth, axis=1, keepdims=True)
    twist = np.radians(rng.normal(0, 5) + drift * rng.normal(0, 4) + _tremor(rng, n, 1.2, 6))
    zero = np.zeros(n)
    lateral = (
        np.stack([np.cos(twist), zero, np.sin(twist)], axis=1)
        if transverse
        else np.stack([np.sin(twist), zero, -np.cos(twist)], axis=1)
    )
    lateral -= depth * (lateral * depth).sum(1, keepdims=True)
    lateral /= np.linalg.norm(lateral, axis=1, keepdims=True)
    return Planes(skin - NEAR_MM * depth, lateral, depth)


def _contact(rng: np.random.Generator, n: int, u: np.ndarray) -> np.ndarray:
    """Edges lift where the belly falls away and in a few spells; a hole (hair, air, navel) comes
    and goes.
    """
    half = CHALLENGE_FAN.half_angle_deg
    lift = 22 * np.clip((u - 0.55) / 0.4, 0, 1) ** 1.5
    left = -half - 4 + lift * rng.uniform(0.2, 1.0) + _spells(rng, n, 0.8, 38)
    right = half + 4 - lift * rng.uniform(0.2, 1.0) - _spells(rng, n, 0.8, 38)
    centre = rng.uniform(-22, 22) + _tremor(rng, n, 3, 10)
    hole = _spells(rng, n, 0.5, 1.0)
    deep = -hole * rng.uniform(12, 40)
    return np.stack([left, right, centre, np.full(n, rng.uniform(1.5, 7)), deep], axis=1)


def _spells(rng: np.random.Generator, n: int, often: float, height: float) -> np.ndarray:
    """A sum of a few smooth bumps over the sweep, (N,)."""
    bumps = np.zeros(n)
    frames = np.arange(n)
    for _ in range(rng.poisson(often)):
        centre, width = rng.uniform(0, n), rng.uniform(4, 14)
        bumps += rng.uniform(0.3, 1.0) * height * np.exp(-0.5 * ((frames - centre) / width) ** 2)
    return np.minimum(bumps, height)
