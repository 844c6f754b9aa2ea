"""The parts a fetus is painted from, and how a table's row becomes one of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from phantom.materials import Material
from phantom.shapes import Ellipsoid, ellipsoid

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is painted at once: one ellipsoid of one material."""

    shape: Ellipsoid
    """Place and size in fetal axes, mm."""
    material: Material
    """How it looks."""
    name: str = ""
    """The landmark it belongs to, such as "stomach"; empty if it is none."""


@dataclass(frozen=True, kw_only=True)
class Girth:
    """The size of a fetus: its standard plane's ellipse, by which all its organs scale."""

    half_width_mm: float
    """Semi-axis from side to side."""
    half_depth_mm: float
    """Semi-axis from back to front."""

    @property
    def radius_mm(self) -> float:
        """Mean of the two semi-axes."""
        return (self.half_width_mm + self.half_depth_mm) / 2

    @property
    def axes_mm(self) -> np.ndarray:
        """The units along x, y and z in which places in the trunk are given, (3,)."""
        return np.array([self.half_width_mm, self.half_depth_mm, self.radius_mm])


@dataclass(frozen=True, kw_only=True)
class Organ:
    """A row in a table of organs: one ellipsoid that is alike in all fetuses."""

    at: Triple
    """Its centre, in its region's units along x, y and z."""
    semi: Triple
    """Its semi-axes, in its region's units."""
    material: Material
    """How it looks."""
    name: str = ""
    """The landmark it belongs to; empty if it is none."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where a table of organs holds: its zero, its directions and its units."""

    place_mm: np.ndarray | float
    """Units of places: one for all directions, or one for each (3,)."""
    size_mm: np.ndarray | float
    """Units of semi-axes: one for all directions, or one for each (3,)."""
    centre_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Its zero in fetal axes, (3,)."""
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    """The columns are its directions in fetal axes, (3, 3)."""

    def shape(self, at: Triple, semi: Triple | np.ndarray) -> Ellipsoid:
        """An ellipsoid whose centre and semi-axes are given in the region's units."""
        centre = self.centre_mm + self.rotation @ (np.array(at) * self.place_mm)
        return ellipsoid(centre, np.asarray(semi) * self.size_mm, self.rotation)

    def placed(self, organs: Iterable[Organ]) -> list[Part]:
        """A table's organs in this region."""
        return [
            Part(shape=self.shape(organ.at, organ.semi), material=organ.material, name=organ.name)
            for organ in organs
        ]


def both_sides(*organs: Organ) -> tuple[Organ, ...]:
    """Rows for the fetus's left, then the same for its right, for which they are written."""
    left = tuple(replace(o, at=(-o.at[0], o.at[1], o.at[2])) for o in organs)
    return (*left, *organs)
