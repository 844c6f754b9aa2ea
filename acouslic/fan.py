"""What the challenge fixes about its frames: size, spacing, six sweeps, the probe's fan.

Pixels are (row, column) in arrays and (x, y) = (column, row) in geometry; this is the one place
with these numbers.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ROWS = 562
COLUMNS = 744
FRAME_SHAPE = (ROWS, COLUMNS)
SPACING_MM = 0.28
SWEEPS = 6
FRAMES_PER_SWEEP = 140


@dataclass(frozen=True)
class Fan:
    """The sector between two radii around an apex above the frame, symmetric about the vertical."""

    apex_x_px: float
    apex_y_px: float
    near_px: float
    far_px: float
    half_angle_deg: float

    def mask(self, shape: tuple[int, int] = FRAME_SHAPE) -> np.ndarray:
        """The pixels inside the fan, (H, W) bool, read-only as callers share it."""
        return _fan_mask(self, shape)


@lru_cache(maxsize=8)
def _fan_mask(fan: Fan, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape)
    x, y = columns - fan.apex_x_px, rows - fan.apex_y_px
    radius = np.hypot(x, y)
    in_depth = (radius >= fan.near_px) & (radius <= fan.far_px)
    inside: np.ndarray = in_depth & (np.abs(np.degrees(np.arctan2(x, y))) <= fan.half_angle_deg)
    inside.flags.writeable = False
    return inside


# Fitted to the field of view that the challenge's evaluator uses: 57 of 418,128 pixels differ.
CHALLENGE_FAN = Fan(
    apex_x_px=371.99, apex_y_px=-184.84, near_px=212.76, far_px=747.85, half_angle_deg=29.880
)
