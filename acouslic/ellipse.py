"""The ellipse of a mask, and the abdominal circumference (AC) as the challenge's evaluator has it.

Points are (x, y) = (column, row) in pixels from the centre of the first one; axes are SEMI-axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

# The evaluator pads by this much before it fits. It shifts the points that cv2.fitEllipse sees, and
# so the last digits of what it returns: kept, although nothing else here needs the room.
_EVALUATOR_PADDING_PX = 200
# The evaluator widens the fan's outline by so many pixels, and drops what the mask has there.
_FAN_DILATIONS = 3
# Room around a cropped mask, so that no contour meets the crop's edge.
_MARGIN_PX = 2
# The evaluator fits nothing to so few points; five would be enough for cv2.fitEllipse.
_MOST_POINTS_WITHOUT_FIT = 5


def ramanujan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Perimeter of an ellipse of semi-axes a and b, by Ramanujan's first formula.

    Source: Modular equations and approximations to pi, Q. J. Math. 45, 1914, p. 350.
    """
    return np.asarray(np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b))))


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in a frame."""

    centre_x_px: float
    """Column of the centre."""
    centre_y_px: float
    """Row of the centre."""
    semi_major_px: float
    """Half of the longer axis."""
    semi_minor_px: float
    """Half of the shorter axis."""
    angle_deg: float
    """Angle of the longer axis, from +x towards +y, in [0, 180)."""

    @classmethod
    def from_opencv(
        cls, box: tuple[Sequence[float], Sequence[float], float], shift_px: float = 0.0
    ) -> "Ellipse":
        """Read what `cv2.fitEllipse` gives: FULL axes, and the angle of the one it calls width.

        Args:
            box: (centre, axes, angle in degrees).
            shift_px: taken off both coordinates of the centre, where the frame was padded.
        """
        (x, y), (width, height), angle_deg = box
        major_angle_deg = angle_deg if width >= height else angle_deg + 90.0
        return cls(
            centre_x_px=x - shift_px,
            centre_y_px=y - shift_px,
            semi_major_px=max(width, height) / 2,
            semi_minor_px=min(width, height) / 2,
            angle_deg=major_angle_deg % 180.0,
        )

    def resized(self, *, factor: float = 1.0, more_px: float = 0.0) -> "Ellipse":
        """The ellipse with both semi-axes multiplied by a factor, and then made longer."""
        return replace(
            self,
            semi_major_px=self.semi_major_px * factor + more_px,
            semi_minor_px=self.semi_minor_px * factor + more_px,
        )

    @property
    def circumference_px(self) -> float:
        """The perimeter."""
        return float(ramanujan(np.array(self.semi_major_px), np.array(self.semi_minor_px)))

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """The pixels whose centre lies in the ellipse, (H, W) bool; none where an axis is zero."""
        if self.semi_minor_px <= 0:
            return np.zeros(shape, dtype=bool)
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        x, y = columns - self.centre_x_px, rows - self.centre_y_px
        cosine = math.cos(math.radians(self.angle_deg))
        sine = math.sin(math.radians(self.angle_deg))
        along = (cosine * x + sine * y) / self.semi_major_px
        across = (cosine * y - sine * x) / self.semi_minor_px
        inside: np.ndarray = along**2 + across**2 <= 1.0
        return inside


def fit_ellipse(mask: np.ndarray, fan_mask: np.ndarray) -> Ellipse | None:
    """Fit an ellipse to the part of a mask's outline that the fan does not cut off.

    The procedure is the challenge evaluator's, to the last digit, on a crop instead of the whole
    padded frame. Its peculiarities are all kept:
    - Outlines of holes and of further components are drawn too.
    - Outline points within 3 px of the fan's own outline are dropped.
    - Of the pieces that remain only the one that encloses the largest area counts. An open arc
      encloses next to nothing, so a mask that is cut in two places is fitted to one of its arcs.
    - Five points or fewer give no ellipse.

    Args:
        mask: (H, W), non-zero where the abdomen is.
        fan_mask: (H, W), non-zero inside the field of view.

    Returns:
        The ellipse, or None where the evaluator finds none (an empty mask always).

    Raises:
        ValueError: the two shapes differ or are not two-dimensional.
    """
    if mask.ndim != 2 or mask.shape != fan_mask.shape:
        raise ValueError(f"mask {mask.shape} and fan {fan_mask.shape} must be one (H, W) shape")
    outline = _free_outline(mask, fan_mask)
    if outline is None or len(outline) <= _MOST_POINTS_WITHOUT_FIT:
        return None
    # Where all points lie on a line OpenCV jitters them at random: begin as a fresh process does.
    cv2.setRNGSeed(0)
    box = cv2.fitEllipse(outline)
    if any(math.isnan(axis) for axis in box[1]):
        return None
    return Ellipse.from_opencv(box, _EVALUATOR_PADDING_PX)


def circumference_mm(mask: np.ndarray, fan_mask: np.ndarray, spacing_mm: float) -> float | None:
    """Measure the AC of a mask as the evaluator does.

    Args:
        mask: (H, W), non-zero where the abdomen is.
        fan_mask: (H, W), non-zero inside the field of view.
        spacing_mm: side of the square pixels.

    Returns:
        The AC in mm, or None where the evaluator finds no ellipse.
    """
    ellipse = fit_ellipse(mask, fan_mask)
    return None if ellipse is None else ellipse.circumference_px * spacing_mm


def _free_outline(mask: np.ndarray, fan_mask: np.ndarray) -> np.ndarray | None:
    """The largest piece of outline off the fan's edge, (N, 1, 2) int32 in padded coordinates."""
    inside = (mask != 0) & (fan_mask != 0)
    rows = np.flatnonzero(inside.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(inside.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    drawn = _outlines(np.pad(inside[top:bottom, left:right].astype(np.uint8), _MARGIN_PX))
    # The fan's edge carries the same margin around the frame, so the crop starts at (top, left).
    edge = _fan_edge(fan_mask.shape, (fan_mask != 0).tobytes())
    cut = edge[top : bottom + 2 * _MARGIN_PX, left : right + 2 * _MARGIN_PX]
    drawn[cut != 0] = 0
    shift = _EVALUATOR_PADDING_PX - _MARGIN_PX
    pieces, _ = cv2.findContours(
        drawn, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(int(left) + shift, int(top) + shift)
    )
    return max(pieces, key=cv2.contourArea, default=None)


def _outlines(image: np.ndarray) -> np.ndarray:
    """All outlines of an image, holes' too, drawn 1 px wide: (H, W) uint8, 255 on a line."""
    contours, _ = cv2.findContours(image, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    drawn = np.zeros_like(image)
    cv2.drawContours(drawn, contours, -1, 255, 1)
    return drawn


@lru_cache(maxsize=4)
def _fan_edge(shape: tuple[int, int], fan_bytes: bytes) -> np.ndarray:
    """The fan's outline, widened by 3 px: uint8, with `_MARGIN_PX` around the frame."""
    fan = np.frombuffer(fan_bytes, dtype=np.uint8).reshape(shape)
    room_px = _FAN_DILATIONS + _MARGIN_PX
    edge = cv2.dilate(
        _outlines(np.pad(fan, room_px)), np.ones((3, 3), np.uint8), iterations=_FAN_DILATIONS
    )
    return edge[_FAN_DILATIONS:-_FAN_DILATIONS, _FAN_DILATIONS:-_FAN_DILATIONS]
