"""The six blind sweeps: the course of the probe over the belly, and with it all of its planes.

Sweeps 0-2 are transverse, caudal to cranial; 3-5 sagittal, left to right. Positions are millimetres
in maternal axes (x left, y posterior, z cranial).
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from acouslic.challenge import FRAMES_PER_SWEEP, SWEEPS
from phantom.chance import Range, Spread
from phantom.probe import Contact, Tremor, drift, sample_contact, sample_planes
from phantom.scene import Scene, stirred
from phantom.shapes import Planes

TRANSVERSE_SWEEPS = 3  # the challenge's protocol: these first, then as many sagittal ones

# Frames that are not black; chosen by eye.
SWEEP_FRAMES = Spread(110.0, 9.0)
SWEEP_FRAMES_LIMITS = Range(80, FRAMES_PER_SWEEP - 4)
# The speed's logarithm is noise of SD 1, smoothed, times a factor. Chosen by eye.
SPEED_SMOOTH_FRAMES = 10
SPEED_LOG_FACTOR = 2.6

# The belly's semi-axes in the uterus's; in front comes the wall. Chosen by eye.
BELLY = (1.35, 1.0, 1.35)
# How far down its side the probe goes at most: 0 on top, 1 where the skin is plumb. Chosen by eye.
FARTHEST_DOWN = 0.93

# Transverse sweeps: middle, right, left. Start and end are in the uterus's semi-axis along z.
# Fitted to the training set's statistics.
ASIDE_MM, ASIDE_SD_MM, ASIDE_SIGN = (0.0, 60.0, 75.0), (8.0, 22.0, 22.0), (1.0, -1.0, 1.0)
TRANSVERSE_START, TRANSVERSE_END = Range(0.55, 1.05), Range(0.90, 1.30)
# Sagittal sweeps: low, middle, high, in the uterus's semi-axis along z; start and end along x.
# Fitted to the training set's statistics.
LEVEL, LEVEL_SD_MM = (-0.75, 0.05, 1.1), 14.0
SAGITTAL_START, SAGITTAL_END = Range(0.6, 1.15), Range(0.6, 1.15)
# The course is not straight: slow and quick sway, and a slant, given at the ends. Chosen by eye.
SWAY_MM = (Tremor(sd=1.5, smooth_frames=14), Tremor(sd=0.4, smooth_frames=2))
SLANT_SD_MM = 8.0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The N real frames of a sweep."""

    scene: Scene
    """What the probe is moved over: the case's scene, stirred."""
    planes: Planes
    """The image planes in maternal axes."""
    contact: Contact
    """Which lines touch the skin."""

    def __len__(self) -> int:
        """The number of frames that are not black, N."""
        return len(self.planes.origin)


@dataclass(frozen=True, kw_only=True)
class _Hand:
    """How the hand moves along a sweep; both fields are (N,)."""

    passed: np.ndarray
    """Share of the way, 0 at the start and 1 at the end."""
    sway_mm: np.ndarray
    """How far the hand sways to a side."""


def sample_sweeps(rng: np.random.Generator, scene: Scene) -> tuple[Sweep, ...]:
    """Draw the six sweeps of one scan, between which the fetus stirs a little."""
    return tuple(_sample_sweep(rng, stirred(rng, scene), index) for index in range(SWEEPS))


def _sample_sweep(rng: np.random.Generator, scene: Scene, index: int) -> Sweep:
    n = int(np.clip(round(rng.normal(*SWEEP_FRAMES)), *SWEEP_FRAMES_LIMITS))
    belly = scene.uterus.semi * np.array(BELLY)
    belly[1] += scene.subject.mother.wall_mm
    is_transverse = index < TRANSVERSE_SWEEPS
    sample_course = _sample_transverse if is_transverse else _sample_sagittal
    x, z = sample_course(rng, _sample_hand(rng, n), scene.uterus.semi, index % TRANSVERSE_SWEEPS)
    down = np.minimum((x / belly[0]) ** 2 + (z / belly[2]) ** 2, FARTHEST_DOWN)
    skin = np.stack([x, -belly[1] * np.sqrt(1 - down), z], axis=1)
    planes = sample_planes(rng, skin, belly, transverse=is_transverse)
    return Sweep(scene=scene, planes=planes, contact=sample_contact(rng, down))


def _sample_hand(rng: np.random.Generator, n: int) -> _Hand:
    noise = gaussian_filter1d(rng.normal(0, 1, n), SPEED_SMOOTH_FRAMES, mode="nearest")
    passed = np.cumsum(np.exp(noise * SPEED_LOG_FACTOR))
    passed = (passed - passed[0]) / (passed[-1] - passed[0])
    slow, quick = (sway.draw(rng, n) for sway in SWAY_MM)
    return _Hand(passed=passed, sway_mm=slow + quick)


def _sample_transverse(
    rng: np.random.Generator, hand: _Hand, semi: np.ndarray, which: int
) -> tuple[np.ndarray, np.ndarray]:
    """The course of a transverse sweep, x and z (N,) each."""
    aside = (np.array(ASIDE_SIGN) * rng.normal(ASIDE_MM, ASIDE_SD_MM))[which]
    start, end = -semi[2] * rng.uniform(*TRANSVERSE_START), semi[2] * rng.uniform(*TRANSVERSE_END)
    slant = drift(len(hand.passed)) * rng.normal(0, SLANT_SD_MM)
    return aside + hand.sway_mm + slant, start + hand.passed * (end - start)


def _sample_sagittal(
    rng: np.random.Generator, hand: _Hand, semi: np.ndarray, which: int
) -> tuple[np.ndarray, np.ndarray]:
    """The course of a sagittal sweep, x and z (N,) each."""
    level = LEVEL[which] * semi[2] + rng.normal(0, LEVEL_SD_MM)
    start, end = semi[0] * rng.uniform(*SAGITTAL_START), -semi[0] * rng.uniform(*SAGITTAL_END)
    slant = drift(len(hand.passed)) * rng.normal(0, SLANT_SD_MM)
    return start + hand.passed * (end - start), level + hand.sway_mm + slant
