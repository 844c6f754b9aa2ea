"""Ellipsoids and their exact sections with image planes; the whole phantom is made of them.

Lengths are millimetres. A plane is an origin (the fan's apex) and two unit vectors, lateral and
depth; a point of it is `origin + u * lateral + v * depth`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acouslic.ellipse import ramanujan

# Far below every square of an inverse length here: keeps roots and quotients defined.
_TINY = 1e-12


@dataclass(frozen=True)
class Planes:
    """The image planes of N frames in one coordinate system."""

    origin: np.ndarray
    """The fan's apex, (N, 3)."""
    lateral: np.ndarray
    """Unit vector to the image's right, (N, 3)."""
    depth: np.ndarray
    """Unit vector down the image's middle, (N, 3)."""

    @cached_property
    def normal(self) -> np.ndarray:
        """Unit normals, (N, 3)."""
        return np.cross(self.lateral, self.depth)

    def seen_from(self, rotation: np.ndarray, centre: np.ndarray) -> "Planes":
        """The same planes in another coordinate system.

        Args:
            rotation: (3, 3), its columns are the system's axes.
            centre: (3,), the system's zero.
        """
        return Planes(
            (self.origin - centre) @ rotation, self.lateral @ rotation, self.depth @ rotation
        )


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in one coordinate system."""

    centre: np.ndarray
    """Its centre, (3,)."""
    semi: np.ndarray
    """Its semi-axes, (3,)."""
    rotation: np.ndarray
    """The columns are the directions of the semi-axes, (3, 3)."""

    def sections(self, planes: Planes) -> "Sections":
        """The ellipses in which N planes cut this ellipsoid."""
        local = planes.seen_from(self.rotation, self.centre)
        o, u, v = (x / self.semi for x in (local.origin, local.lateral, local.depth))
        quu, quv, qvv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
        gu, gv, constant = (o * u).sum(-1), (o * v).sum(-1), (o * o).sum(-1) - 1
        determinant = quu * qvv - quv**2
        centre_u = (quv * gv - qvv * gu) / determinant
        centre_v = (quv * gu - quu * gv) / determinant
        level = -(constant + gu * centre_u + gv * centre_v)
        divisor = np.where(level > 0, level, 1.0)
        return Sections(level, centre_u, centre_v, quu / divisor, quv / divisor, qvv / divisor)


@dataclass(frozen=True)
class Sections:
    """N ellipses `quu du^2 + 2 quv du dv + qvv dv^2 = 1` about their centres; fields are (N,)."""

    level: np.ndarray
    """1 if the plane passes the ellipsoid's centre, 0 if it touches, less than 0 if it misses."""
    centre_u: np.ndarray
    """Lateral place of the centre, mm."""
    centre_v: np.ndarray
    """Depth of the centre below the fan's apex, mm."""
    quu: np.ndarray
    """Coefficient of du^2, mm^-2."""
    quv: np.ndarray
    """Coefficient of du dv, halved, mm^-2."""
    qvv: np.ndarray
    """Coefficient of dv^2, mm^-2."""

    @property
    def cut(self) -> np.ndarray:
        """Whether the plane cuts the ellipsoid, (N,) bool."""
        return self.level > 0

    def semi_axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Major and minor semi-axes in mm, (N,) each; meaningless where `cut` is False."""
        middle, spread = (self.quu + self.qvv) / 2, np.hypot((self.quu - self.qvv) / 2, self.quv)
        return 1 / np.sqrt(np.maximum(middle - spread, _TINY)), 1 / np.sqrt(middle + spread)

    def circumference_mm(self) -> np.ndarray:
        """Perimeters by Ramanujan's first formula, (N,)."""
        return ramanujan(*self.semi_axes())

    def stretched(self, circle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the unit disc, taken to every ellipse.

        Args:
            circle: (K, 2), coordinates of the points.

        Returns:
            Their lateral places and depths in mm, (N, K) each.
        """
        # Cholesky of the ellipse's matrix turns the unit circle into the ellipse.
        l11 = np.sqrt(np.maximum(self.quu, _TINY))
        l21 = self.quv / l11
        l22 = np.sqrt(np.maximum(self.qvv - l21**2, _TINY))
        dv = circle[:, 1] / l22[:, None]
        du = (circle[:, 0] - l21[:, None] * dv) / l11[:, None]
        return self.centre_u[:, None] + du, self.centre_v[:, None] + dv


def ellipsoid(
    centre: Sequence[float] | np.ndarray,
    semi: Sequence[float] | np.ndarray,
    rotation: np.ndarray | None = None,
) -> Ellipsoid:
    """An ellipsoid from plain numbers, along the coordinate axes unless rotated."""
    turned = np.eye(3) if rotation is None else rotation
    return Ellipsoid(np.asarray(centre, float), np.asarray(semi, float), turned)


def rod(start: np.ndarray, end: np.ndarray, radius_mm: float) -> Ellipsoid:
    """A long ellipsoid that reaches a little beyond both points: a bone, a vessel or a limb."""
    axis = end - start
    length = float(np.linalg.norm(axis))
    semi = [radius_mm, radius_mm, length / 2 + radius_mm]
    return ellipsoid((start + end) / 2, semi, frame_along(axis / length))


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector's direction: the same vector with length 1."""
    return np.asarray(vector / np.linalg.norm(vector))


def frame_along(axis: np.ndarray) -> np.ndarray:
    """A right-handed rotation whose third column is `axis`, a unit vector."""
    other = np.eye(3)[int(np.argmin(np.abs(axis)))]
    first = unit(np.cross(other, axis))
    return np.stack([first, np.cross(axis, first), axis], axis=1)


def turn(axis: int, angle_rad: float) -> np.ndarray:
    """Rotation about a coordinate axis (0, 1 or 2), (3, 3)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix
