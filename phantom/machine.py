"""The machine's settings in one scan, and the gray level that they give to average tissue."""

from dataclasses import dataclass, replace

import numpy as np

from phantom.canvas import ANGLES_DEG, DEPTH_STEP_MM, DEPTHS
from phantom.chance import Range, Spread

# Between scans. The speckle was fitted to two real frames, all others were chosen by eye.
GRAY_PER_DB = Range(2.5, 3.3)
GAIN_GRAY, GAIN_LIMITS_GRAY = Spread(87.0, 11.0), Range(58.0, 114.0)
LOSS_DB_MM = Range(0.08, 0.17)
NEAR_BOOST_GRAY = Range(5.0, 25.0)
SPECKLE_GRAY = Range(10.5, 13.5)
EDGE_LOSS_DB = Range(2.0, 8.0)
CLUTTER_DB = Range(-20.0, -11.0)
REVERBERATION_GRAY = Range(3.0, 9.0)
KNEE_GRAY = Range(8.0, 16.0)

# What a haze of 1 changes; chosen by eye.
HAZY_CONTRAST_LOSS = 0.25  # share of the gray levels per dB
HAZY_LOSS_DB_MM = 0.05
HAZY_CLUTTER_DB = -5.0
HAZY_SPECKLE_GAIN = 0.2  # share of the speckle

# Gray level by depth and line; chosen by eye.
GAIN_FLAT_MM = 25.0  # down to here the gain makes up for all that is lost
FAR_BOOST_GRAY = Range(0.0, 16.0)
FAR_BOOST_FROM_MM, FAR_BOOST_OVER_MM = 95.0, 30.0
NEAR_BOOST_MM = 4.0  # the boost falls by a factor e over this depth
RING_MM, RING_FADE_MM = Range(1.6, 3.2), 5.0  # from ring to ring; they fade by a factor e over this
# Lines near the fan's edges are darker. The loss begins at EDGE_FROM half angles from the middle,
# and grows with the square of what is more, divided by EDGE_DIVISOR. It grows with depth as well:
# it is full at EDGE_FULL_MM, and EDGE_MOST times as much at last.
EDGE_FROM, EDGE_DIVISOR = 0.45, 0.3
EDGE_FULL_MM, EDGE_MOST = 40.0, 1.5
SLANT_SD_GRAY = 5.0  # at the fan's right edge; the left one changes as much the other way
RIPPLE_SD_GRAY = 2.0  # of a random walk from line to line
_LEAST_SD = 1e-6  # of a random walk, so that nothing divides by 0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Settings of one scan."""

    gray_per_db: float
    """Contrast: gray levels per dB."""
    gain_gray: float
    """Gray level of average tissue near the probe."""
    loss_db_mm: float
    """What the gain curve does not make up for below GAIN_FLAT_MM."""
    near_boost_gray: float
    """What is added at the probe's surface."""
    speckle_gray: float
    """Standard deviation of the speckle."""
    edge_loss_db: float
    """Scale of what lines near the fan's edges lose."""
    clutter_db: float
    """Echo that side lobes and reverberation put into fluid at the probe."""
    reverberation_gray: float
    """Amplitude of the rings below the probe."""
    knee_gray: float
    """Width over which gray levels bend into the black."""


def sample_machine(rng: np.random.Generator, haze: float) -> Machine:
    """Draw the settings of one scan.

    Args:
        rng: the picture's stream.
        haze: 0 to 1; it fills the fluid with clutter, flattens contrast and costs depth.
    """
    clear = Machine(
        gray_per_db=rng.uniform(*GRAY_PER_DB),
        gain_gray=float(np.clip(rng.normal(*GAIN_GRAY), *GAIN_LIMITS_GRAY)),
        loss_db_mm=rng.uniform(*LOSS_DB_MM),
        near_boost_gray=rng.uniform(*NEAR_BOOST_GRAY),
        speckle_gray=rng.uniform(*SPECKLE_GRAY),
        edge_loss_db=rng.uniform(*EDGE_LOSS_DB),
        clutter_db=rng.uniform(*CLUTTER_DB),
        reverberation_gray=rng.uniform(*REVERBERATION_GRAY),
        knee_gray=rng.uniform(*KNEE_GRAY),
    )
    return replace(
        clear,
        gray_per_db=clear.gray_per_db * (1 - HAZY_CONTRAST_LOSS * haze),
        loss_db_mm=clear.loss_db_mm + HAZY_LOSS_DB_MM * haze,
        clutter_db=clear.clutter_db + haze * (HAZY_CLUTTER_DB - clear.clutter_db),
        speckle_gray=clear.speckle_gray * (1 + HAZY_SPECKLE_GAIN * haze),
    )


def sample_profile(rng: np.random.Generator, machine: Machine) -> np.ndarray:
    """Draw the gray level of average tissue by depth and line, (DEPTHS, LINES) float32."""
    depth = np.arange(DEPTHS)[:, None] * DEPTH_STEP_MM
    across = (ANGLES_DEG / ANGLES_DEG[-1])[None]
    lost = machine.gray_per_db * machine.loss_db_mm * np.maximum(depth - GAIN_FLAT_MM, 0)
    profile = machine.gain_gray - lost
    # The last sliders of the gain curve stand a little higher: the far field comes up again.
    far = np.clip((depth - FAR_BOOST_FROM_MM) / FAR_BOOST_OVER_MM, 0, 1)
    profile = profile + rng.uniform(*FAR_BOOST_GRAY) * far
    profile = profile + machine.near_boost_gray * np.exp(-depth / NEAR_BOOST_MM)
    rings = np.sin(2 * np.pi * depth / rng.uniform(*RING_MM)) * np.exp(-depth / RING_FADE_MM)
    profile = profile + machine.reverberation_gray * rings
    edge = np.clip(np.abs(across) - EDGE_FROM, 0, 1) ** 2
    edge = -machine.edge_loss_db * machine.gray_per_db * edge / EDGE_DIVISOR
    profile = profile + edge * np.clip(depth / EDGE_FULL_MM, 0, EDGE_MOST)
    profile = profile + rng.normal(0, SLANT_SD_GRAY) * across
    return np.asarray(profile + _sample_ripple(rng), np.float32)


def _sample_ripple(rng: np.random.Generator) -> np.ndarray:
    walk = np.cumsum(rng.normal(0, 1, ANGLES_DEG.size))
    ripple = RIPPLE_SD_GRAY * (walk - walk.mean())[None]
    return np.asarray(ripple / max(float(walk.std()), _LEAST_SD))
