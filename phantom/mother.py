"""The mother on a frame: the wall in front of the uterus, and what lies around it.

Levels are dB relative to average soft tissue. All values were chosen by eye.
"""

from dataclasses import dataclass

import numpy as np

from phantom.canvas import (
    ANGLES_DEG,
    DEPTH_MM,
    DEPTH_STEP_MM,
    DEPTHS,
    LINES,
    WHOLE,
    Canvas,
    band,
    soft_inside,
)
from phantom.chance import Range
from phantom.scene import Mother
from phantom.shapes import Sections

# ---- the wall: from the probe on skin, fat, fascia, muscle and a second fascia

SKIN_DB = Range(4.0, 9.0)
SKIN_DEPTH_MM = 2.5  # over which the skin's echo falls by a factor e
FAT_DB = Range(-4.0, 1.0)
FASCIA_DB = Range(6.0, 16.0)
FASCIA_SD_MM = 0.9
SECOND_FASCIA = 0.6  # its echo beside the first one's
MUSCLE_DB = Range(-7.0, -2.0)
MUSCLE_TEXTURE_DB = 1.3
LAYER_EDGE_MM = 1.2
# Bright lines in the fat: amplitude, distance, and how far the texture bends them, in distances.
STRIAE_DB = Range(1.0, 3.5)
STRIAE_STEP_MM = 3.4
STRIAE_BEND = 0.15
# The thickness changes over the lines' angles, in radians: a slow wave, a quick one that is a share
# of it, and a slant, a share of the thickness. Their phases drift by so much a frame.
RIPPLE_MM = Range(0.4, 1.6)
SLOW_WAVE, SLOW_DRIFT_RAD = 3.1, 0.05
QUICK_WAVE, QUICK_DRIFT_RAD, QUICK_SHARE = 7.3, -0.07, 0.6
SLANT_PER_RAD, SLANT_DRIFT_RAD = 0.375, 0.03
LEAST_WALL_MM = 2.0

# ---- around the uterus

BEYOND_DB = Range(-3.0, 3.0)  # mean echo of what lies beyond the uterus, between scans
BEYOND_TEXTURE_DB, BEYOND_SWELL_DB = 3.0, 4.0
BEYOND_DB_MM = 0.09
BEYOND_EDGE_MM = 2.0
# The uterus's muscle, a band outside of its inner surface (see `band`), and its echo.
MUSCLE_COAT_MM, MUSCLE_COAT_WIDTH_MM, MUSCLE_COAT_TOP = 4.5, 3.0, 1.5
MUSCLE_COAT_DB = -2.0
MUSCLE_COAT_SMOOTHNESS = 0.6  # share by which it is less uneven than what lies beyond
MUSCLE_COAT_DB_MM = 0.07  # by which it attenuates less than what lies beyond
# The uterus's lining, a bright line; a part of it does not depend on the beam's direction.
LINING_MM, LINING_WIDTH_MM = 0.5, 1.3
LINING_DB, LINING_SWELL_DB = 8.5, 3.0
LINING_DIFFUSE = 0.25
LUMEN_SWELL_MM = 2.6  # how uneven the uterus's inner surface is


@dataclass(frozen=True, kw_only=True)
class Wall:
    """The wall over one scan: its thickness wanders from line to line and from frame to frame."""

    thickness_mm: float
    """Mean thickness of all layers together."""
    fat_share: float
    """Share of the thickness that is skin and fat, 0 to 1."""
    phase: np.ndarray
    """Phases of the slow wave, the quick one and the slant, (3,) rad."""
    ripple_mm: float
    """Amplitude of the slow wave."""
    skin_db: float
    """Echo that the skin adds."""
    fat_db: float
    """Mean echo of the fat."""
    fascia_db: float
    """Echo that the fascia between fat and muscle adds."""
    muscle_db: float
    """Mean echo of the muscle."""
    striae_db: float
    """Amplitude of the bright lines in the fat."""

    def depth_mm(self, frame: int, share: float) -> np.ndarray:
        """Depth of the layer boundary at a share of the wall (0 to 1), (LINES,)."""
        x = np.radians(ANGLES_DEG)
        slow, quick, slant = self.phase
        wander = np.sin(SLOW_WAVE * x + slow + SLOW_DRIFT_RAD * frame)
        wander = wander + QUICK_SHARE * np.sin(QUICK_WAVE * x + quick + QUICK_DRIFT_RAD * frame)
        tilt = SLANT_PER_RAD * x * np.sin(slant + SLANT_DRIFT_RAD * frame)
        depth = share * (self.thickness_mm * (1 + tilt) + self.ripple_mm * wander)
        return np.asarray(np.maximum(depth, LEAST_WALL_MM * share), np.float32)

    def paint(self, canvas: Canvas, frame: int) -> None:
        """Paint the wall over all that lies at its depth; the gain makes up for its attenuation."""
        fat, end = self.depth_mm(frame, self.fat_share), self.depth_mm(frame, 1.0)
        # Four rows more: the edge is soft, and int rounds down.
        rows = slice(0, int(end.max() / DEPTH_STEP_MM) + 4)
        depth, texture = DEPTH_MM[rows], canvas.texture[rows]
        striae = np.sin((depth / STRIAE_STEP_MM + STRIAE_BEND * texture) * 2 * np.pi)
        level = self.muscle_db + MUSCLE_TEXTURE_DB * texture
        level += soft_inside(depth - fat, LAYER_EDGE_MM) * (
            self.fat_db + striae * self.striae_db - self.muscle_db
        )
        level += self.fascia_db * _line(depth - fat)
        level += SECOND_FASCIA * self.fascia_db * _line(depth - end)
        level += self.skin_db * np.exp(-depth / SKIN_DEPTH_MM)
        inside = soft_inside(depth - end, LAYER_EDGE_MM)
        canvas.echo[rows] += inside * (level - canvas.echo[rows])
        canvas.attenuation[rows] *= 1 - inside


def sample_wall(rng: np.random.Generator, mother: Mother) -> Wall:
    """Draw the wall of one scan."""
    return Wall(
        thickness_mm=mother.wall_mm,
        fat_share=mother.fat_share,
        phase=rng.uniform(0, 2 * np.pi, 3),
        ripple_mm=rng.uniform(*RIPPLE_MM),
        skin_db=rng.uniform(*SKIN_DB),
        fat_db=rng.uniform(*FAT_DB),
        fascia_db=rng.uniform(*FASCIA_DB),
        muscle_db=rng.uniform(*MUSCLE_DB),
        striae_db=rng.uniform(*STRIAE_DB),
    )


def paint_beyond(
    canvas: Canvas, lumen: Sections, frame: int, beyond_db: float, lining_db: float = LINING_DB
) -> None:
    """Paint the uterus's muscle and all that lies beyond it.

    Args:
        canvas: the frame's grids.
        lumen: sections of the uterus's inside with the sweep's planes.
        frame: which of them.
        beyond_db: mean echo of what lies beyond.
        lining_db: echo that the uterus's lining adds.
    """
    if lumen.cut[frame]:
        distance, facing = canvas.distance(lumen, frame, WHOLE)
        distance += np.float32(LUMEN_SWELL_MM) * canvas.swell
        outside = soft_inside(-distance, BEYOND_EDGE_MM)
        muscle = band(distance, MUSCLE_COAT_MM, MUSCLE_COAT_WIDTH_MM, top=MUSCLE_COAT_TOP)
        lining = band(distance, LINING_MM, LINING_WIDTH_MM) * (LINING_DIFFUSE + facing)
    else:
        outside = np.ones((DEPTHS, LINES), np.float32)
        muscle = lining = np.zeros((DEPTHS, LINES), np.float32)
    rough = BEYOND_TEXTURE_DB * canvas.texture + BEYOND_SWELL_DB * canvas.swell
    coat = MUSCLE_COAT_DB - beyond_db - MUSCLE_COAT_SMOOTHNESS * rough
    level = beyond_db + rough + muscle * coat
    bright = lining * (lining_db + LINING_SWELL_DB * canvas.swell)
    echo, attenuation = canvas.echo, canvas.attenuation
    echo += outside * (level - echo) + bright
    attenuation += outside * (BEYOND_DB_MM - MUSCLE_COAT_DB_MM * muscle - attenuation)


def _line(distance: np.ndarray) -> np.ndarray:
    """A bright line where the distance is 0."""
    return np.asarray(np.exp(-0.5 * (distance / FASCIA_SD_MM) ** 2))
