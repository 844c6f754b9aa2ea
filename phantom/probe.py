"""The probe: its fan in millimetres, how a hand holds it, and which of its lines touch the skin.

Angles of lines are degrees, positive to the image's right. All values that are not the challenge's
were chosen by eye.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from acouslic.challenge import CHALLENGE_FAN, SPACING_MM
from phantom.chance import Range
from phantom.shapes import Planes

NEAR_MM = CHALLENGE_FAN.near_px * SPACING_MM
FAR_MM = CHALLENGE_FAN.far_px * SPACING_MM


@dataclass(frozen=True, kw_only=True)
class Tremor:
    """Smoothed noise from frame to frame."""

    sd: float
    """Its standard deviation."""
    smooth_frames: float
    """Standard deviation of the Gaussian that smooths it."""

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw it for the n frames of a sweep, (n,)."""
        noise = rng.normal(0, 1, n + 2 * TREMOR_MARGIN_FRAMES)
        smooth = gaussian_filter1d(noise, self.smooth_frames)
        smooth = smooth[TREMOR_MARGIN_FRAMES : TREMOR_MARGIN_FRAMES + n]
        # Smoothing has left a variance of 1 / (2 sqrt(pi) smooth_frames).
        return np.asarray(smooth * self.sd * np.sqrt(2 * np.sqrt(np.pi) * self.smooth_frames))


@dataclass(frozen=True, kw_only=True)
class Lean:
    """How an angle of the probe strays in a sweep."""

    constant_deg: float
    """Standard deviation of its mean."""
    drift_deg: float
    """Standard deviation of what is added from the sweep's middle to its end."""
    tremor_deg: Tremor
    """What is added in each frame."""

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw it for the n frames of a sweep, (n,) degrees."""
        straight = rng.normal(0, self.constant_deg) + drift(n) * rng.normal(0, self.drift_deg)
        return np.asarray(straight + self.tremor_deg.draw(rng, n))


# Noise is longer than the sweep at either end, so that smoothing knows no end.
TREMOR_MARGIN_FRAMES = 40
ANGLE_TREMOR = Tremor(sd=1.2, smooth_frames=6)
# The beam's lean along the mother's x and z, and the probe's turn about the beam.
LEAN_X = Lean(constant_deg=5.0, drift_deg=5.0, tremor_deg=ANGLE_TREMOR)
LEAN_Z = Lean(constant_deg=5.0, drift_deg=4.0, tremor_deg=ANGLE_TREMOR)
TWIST = Lean(constant_deg=5.0, drift_deg=4.0, tremor_deg=ANGLE_TREMOR)
# How far the hand follows the belly along x, y and z: from plumb (0) to square to the skin (1).
FOLLOWING = Range(0.15, 0.65)

# Gain of a line without contact: so little that nothing is seen.
DARK_DB = -42.0
# Over so many degrees contact is lost at an edge, and at a hole's.
EDGE_WIDTH_DEG, HOLE_WIDTH_DEG = 1.5, 1.2
# Where the belly falls away the edges lift: from a share of the way down, over a further share.
LIFT_DEG = 22.0
LIFT_FROM, LIFT_OVER, LIFT_POWER = 0.55, 0.4, 1.5
LIFT_FACTOR = Range(0.2, 1.0)  # of one edge in one sweep
EDGE_MARGIN_DEG = 4.0  # beyond the fan, where nothing lifts them
# A spell: so many a sweep on average, each a bump of a width and a share of the full height.
EDGE_SPELLS, EDGE_SPELL_DEG = 0.8, 38.0
HOLE_SPELLS = 0.5
SPELL_FRAMES = Range(4.0, 14.0)
SPELL_SHARE = Range(0.3, 1.0)
# A hole (hair, air, the navel): place, how that trembles, half width, and depth.
HOLE_DEG = Range(-22.0, 22.0)
HOLE_TREMOR_DEG = Tremor(sd=3.0, smooth_frames=10)
HOLE_HALF_WIDTH_DEG = Range(1.5, 7.0)
HOLE_DEPTH_DB = Range(12.0, 40.0)
# Beyond it a logistic step is 0 or 1 to thirteen digits; far beyond it exp would overflow.
STEP_LIMIT = 30.0


@dataclass(frozen=True, kw_only=True)
class Contact:
    """Which lines touch the skin in the N frames of a sweep; each field is (N,)."""

    left_deg: np.ndarray
    """The left edge; lines farther left have no contact."""
    right_deg: np.ndarray
    """The right edge; lines farther right have no contact."""
    hole_deg: np.ndarray
    """Middle of a hole between them."""
    hole_half_width_deg: np.ndarray
    """Half width of the hole."""
    hole_db: np.ndarray
    """Gain inside the hole, 0 or negative."""

    def gain_db(self, frames: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
        """Gain of lines: 0 dB with contact, DARK_DB without.

        Args:
            frames: (K,), which frames.
            angles_deg: (K, L), the lines of each; (1, L) if they are the same for all.

        Returns:
            (K, L) in dB.
        """
        left, right, hole, half_width, hole_db = (
            values[frames, None]
            for values in (
                self.left_deg,
                self.right_deg,
                self.hole_deg,
                self.hole_half_width_deg,
                self.hole_db,
            )
        )
        edges = _step((left - angles_deg) / EDGE_WIDTH_DEG)
        edges = edges + _step((angles_deg - right) / EDGE_WIDTH_DEG)
        in_hole = _step((half_width - np.abs(angles_deg - hole)) / HOLE_WIDTH_DEG)
        return np.asarray(np.maximum(DARK_DB * edges + hole_db * in_hole, DARK_DB))


def drift(n: int) -> np.ndarray:
    """What changes evenly over a sweep's n frames, from -1 to 1, (n,)."""
    return np.linspace(-1, 1, n)


def sample_planes(
    rng: np.random.Generator, skin: np.ndarray, belly: np.ndarray, *, transverse: bool
) -> Planes:
    """Hold the probe on the belly, with leans that drift and tremble.

    Args:
        rng: the scan's stream.
        skin: (N, 3), where the probe touches, in maternal axes, mm.
        belly: (3,), the belly's semi-axes, mm.
        transverse: whether the image lies across the mother or along her.
    """
    n = len(skin)
    inward = _normalised(-skin / belly**2)
    following = rng.uniform(*FOLLOWING, 3)
    depth = np.array([0.0, 1.0, 0.0]) * (1 - following) + inward * following
    for axis, lean in ((0, LEAN_X), (2, LEAN_Z)):
        depth[:, axis] += np.tan(np.radians(lean.draw(rng, n)))
    depth = _normalised(depth)
    twist, zero = np.radians(TWIST.draw(rng, n)), np.zeros(n)
    across, along = np.cos(twist), np.sin(twist)
    lateral = np.stack([across, zero, along] if transverse else [along, zero, -across], axis=1)
    lateral = _normalised(lateral - depth * (lateral * depth).sum(1, keepdims=True))
    return Planes(skin - NEAR_MM * depth, lateral, depth)


def sample_contact(rng: np.random.Generator, down: np.ndarray) -> Contact:
    """Lift the edges where the belly falls away and in a few spells; let a hole come and go.

    Args:
        rng: the scan's stream.
        down: (N,), how far down the belly's side the probe is, 0 to 1.
    """
    n, half_deg = len(down), CHALLENGE_FAN.half_angle_deg
    lift = LIFT_DEG * np.clip((down - LIFT_FROM) / LIFT_OVER, 0, 1) ** LIFT_POWER
    left = -half_deg - EDGE_MARGIN_DEG + lift * rng.uniform(*LIFT_FACTOR)
    left = left + _spells(rng, n, often=EDGE_SPELLS, height=EDGE_SPELL_DEG)
    right = half_deg + EDGE_MARGIN_DEG - lift * rng.uniform(*LIFT_FACTOR)
    right = right - _spells(rng, n, often=EDGE_SPELLS, height=EDGE_SPELL_DEG)
    hole = rng.uniform(*HOLE_DEG) + HOLE_TREMOR_DEG.draw(rng, n)
    hole_db = -_spells(rng, n, often=HOLE_SPELLS, height=1.0) * rng.uniform(*HOLE_DEPTH_DB)
    return Contact(
        left_deg=left,
        right_deg=right,
        hole_deg=hole,
        hole_half_width_deg=np.full(n, rng.uniform(*HOLE_HALF_WIDTH_DEG)),
        hole_db=hole_db,
    )


def _spells(rng: np.random.Generator, n: int, *, often: float, height: float) -> np.ndarray:
    """A sum of a few smooth bumps over the sweep, at most `height`, (n,)."""
    bumps, frames = np.zeros(n), np.arange(n)
    for _ in range(rng.poisson(often)):
        middle, width = rng.uniform(0, n), rng.uniform(*SPELL_FRAMES)
        share = rng.uniform(*SPELL_SHARE)
        bumps += share * height * np.exp(-0.5 * ((frames - middle) / width) ** 2)
    return np.minimum(bumps, height)


def _step(x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 to 1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -STEP_LIMIT, STEP_LIMIT))))


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """The same directions with length 1, (N, 3)."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
