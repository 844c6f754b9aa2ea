"""Ellipsoids and their exact sections with image planes; every soft part of the phantom is made of
them.

Lengths are millimetres. A plane is an origin (the fan's apex) and two unit vectors, lateral and
depth; a point of it is `origin + u * lateral + v * depth`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acouslic.ellipse import ramanujan


@dataclass(frozen=True)
class Planes:
    """The image planes of N frames in one coordinate system: `origin`, `lateral`, `depth`, each (N,
    3).
    """

    origin: np.ndarray
    lateral: np.ndarray
    depth: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Unit normals, (N, 3)."""
        return np.cross(self.lateral, self.depth)

    def seen_from(self, rotation: np.ndarray, centre: np.ndarray) -> "Planes":
        """The same planes in the system whose axes are the columns of `rotation` and whose zero is
        `centre`.
        """
        return Planes(
            (self.origin - centre) @ rotation, self.lateral @ rotation, self.depth @ rotation
        )


@dataclass(frozen=True)
class Ellipsoid:
    """`centre` (3,), `semi` axes (3,), and `rotation` (3, 3), whose columns are the axes."""

    centre: np.ndarray
    semi: np.ndarray
    rotation: np.ndarray

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
        safe = np.where(level > 0, level, 1.0)
        return Sections(level, centre_u, centre_v, quu / safe, quv / safe, qvv / safe)


@dataclass(frozen=True)
class Sections:
    """N ellipses `quu du^2 + 2 quv du dv + qvv dv^2 = 1` about (centre_u, centre_v); real where
    `level` > 0.

    `level` is 1 for a plane through the ellipsoid's centre and falls to 0 where the plane touches
    it.
    """

    level: np.ndarray
    centre_u: np.ndarray
    centre_v: np.ndarray
    quu: np.ndarray
    quv: np.ndarray
    qvv: np.ndarray

    @property
    def cut(self) -> np.ndarray:
        """Whether the plane cuts the ellipsoid, (N,) bool."""
        return self.level > 0

    def semi_axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Major and minor semi-axes in mm, (N,) each; meaningless where `cut` is False."""
        middle, spread = (self.quu + self.qvv) / 2, np.hypot((self.quu - self.qvv) / 2, self.quv)
        return 1 / np.sqrt(np.maximum(middle - spread, 1e-12)), 1 / np.sqrt(middle + spread)

    def circumference_mm(self) -> np.ndarray:
        """Perimeters by Ramanujan's first formula, (N,)."""
        return ramanujan(*self.semi_axes())


def ellipsoid(
    centre: Sequence[float] | np.ndarray,
    semi: Sequence[float] | np.ndarray,
    rotation: np.ndarray | None = None,
) -> Ellipsoid:
    """An ellipsoid from plain numbers, along the coordinate axes unless rotated."""
    turned = np.eye(3) if rotation is None else rotation
    return Ellipsoid(np.asarray(centre, float), np.asarray(semi, float), turned)


def rod(start: np.ndarray, end: np.ndarray, radius_mm: float) -> Ellipsoid:
    """A long ellipsoid that reaches a little beyond both points: bones, vessels, limbs."""
    axis = end - start
    length = float(np.linalg.norm(axis))
    semi = [radius_mm, radius_mm, length / 2 + radius_mm]
    return ellipsoid((start + end) / 2, semi, frame_along(axis / length))


def frame_along(axis: np.ndarray) -> np.ndarray:
    """A right-handed rotation whose third column is `axis`."""
    other = np.eye(3)[int(np.argmin(np.abs(axis)))]
    first = np.cross(other, axis)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(axis, first), axis], axis=1)


def turn(axis: int, angle_rad: float) -> np.ndarray:
    """Rotation about a coordinate axis."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix
