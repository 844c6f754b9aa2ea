"""All that the challenge fixes: frames, sweeps, the fan, labels, file names, limits.

Pixels are (row, column) in arrays and (x, y) = (column, row) in geometry. A number or name of the
challenge stands here and nowhere else; where a comment names no other source, it is from
acouslic-ai.grand-challenge.org and the training set (Zenodo 12697994, version 1.1).
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path

import numpy as np

# ---- frames and sweeps

ROWS = 562
COLUMNS = 744
FRAME_SHAPE = (ROWS, COLUMNS)
SPACING_MM = 0.28
# Headers hold decimal text; the official files differ from 0.28 by less than this.
SPACING_TOLERANCE_MM = 1e-3
SWEEPS = 6
SWEEP_DIRECTIONS = ("transverse",) * 3 + ("sagittal",) * 3
FRAMES_PER_SWEEP = 140
FRAMES = SWEEPS * FRAMES_PER_SWEEP

# ---- quality and labels


class Quality(IntEnum):
    """How well a frame suits the measurement; inside the program nothing else stands for it."""

    NONE = 0
    SUBOPTIMAL = 1
    OPTIMAL = 2

    @property
    def value_in_score(self) -> float:
        """What the frame is worth in the WFSS of a stack that has an optimal frame."""
        return (0.0, 0.6, 1.0)[self]

    @property
    def word(self) -> str:
        """The name for people and files: none, suboptimal, optimal."""
        return self.name.lower()


QUALITY_VALUES = tuple(quality.value_in_score for quality in Quality)
# What the pixels of an annotated frame's mask hold; 0 elsewhere.
LABELS = (1, 2)
_LABEL_OF_QUALITY = np.array([0, 2, 1], np.uint8)


def labels_of_quality(quality: np.ndarray) -> np.ndarray:
    """The labels of many qualities: uint8 of the same shape as `quality`."""
    return np.asarray(_LABEL_OF_QUALITY[quality])


def quality_of_labels(labels: np.ndarray) -> np.ndarray:
    """The qualities of many labels, 0 to 2: uint8 of the same shape as `labels`."""
    # Optimal and suboptimal change places, so the table is its own inverse.
    return np.asarray(_LABEL_OF_QUALITY[labels])


# ---- the score: 0.5 (1 - NAE of the AC) + 0.25 WFSS + 0.25 DSC_soft

AC_SHARE, FRAME_SHARE, MASK_SHARE = 0.5, 0.25, 0.25
# DSC_soft counts a mask on a frame that is less than this far from an annotated one.
NEAREST_FRAMES = 15

# ---- abdominal circumference (AC)

# The training set's ACs reach from 141 to 351 mm; less or more than these is a mistake in a table.
LEAST_AC_MM = 100.0
# Version 1.0 of the training set has every AC exactly twice too large, and so some above this.
MOST_AC_MM = 500.0
# As one guess for every fetus this has the least mean relative error on the training set (0.149).
TYPICAL_AC_MM = 236.0

# ---- the platform's sockets and files, below /input and /output

STACK_SLUG = "stacked-fetal-ultrasound"
MASK_SLUG = "fetal-abdomen-segmentation"
FRAME_SLUG = "fetal-abdomen-frame-number"
INPUT_FOLDER = Path("images", STACK_SLUG)
MASK_FOLDER = Path("images", MASK_SLUG)
MASK_FILE = MASK_FOLDER / "output.mha"
FRAME_FILE = Path(f"{FRAME_SLUG}.json")
# Ours, beside the challenge's own: AC, ellipse, confidence.
CIRCUMFERENCE_FILE = Path("fetal-abdominal-circumference.json")

# ---- the training set's layout, and the official evaluator's

IMAGES = Path("images", "stacked_fetal_ultrasound")
MASKS = Path("masks", "stacked_fetal_abdomen")
AC_TABLE = Path("circumferences", "fetal_abdominal_circumferences_per_sweep.csv")
AC_COLUMNS = tuple(f"sweep_{sweep}_ac_mm" for sweep in range(1, SWEEPS + 1))
TABLE_COLUMNS = ("uuid", "subject_id", *AC_COLUMNS)
EVALUATOR_MASKS = "fetal_abdomen_stacked_masks"
EVALUATOR_CIRCUMFERENCES = "fetal_abdominal_circumference.json"
# The mark of simulated data: not the challenge's, but whoever reads a data set has to know it.
SIMULATED = "phantoms.json"

# ---- the probe's field of view


@dataclass(frozen=True)
class Fan:
    """The sector between two radii around an apex above the frame, symmetric about the vertical."""

    apex_x_px: float
    """Column of the apex."""
    apex_y_px: float
    """Row of the apex; negative, as it lies above the frame."""
    near_px: float
    """Radius at which the image begins: the probe's surface."""
    far_px: float
    """Radius at which the image ends."""
    half_angle_deg: float
    """Angle between the vertical and either edge."""

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
