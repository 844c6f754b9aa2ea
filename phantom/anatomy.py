"""The fetus: parts made of ellipsoids and scaled to its abdominal circumference.

Fetal axes: x to the fetus's right, y anterior, z cranial; zero is the centre of the standard
abdominal plane.
"""

from dataclasses import dataclass

import numpy as np

from acouslic.ellipse import ramanujan
from phantom import materials
from phantom.chance import Range
from phantom.head import sample_head
from phantom.limbs import sample_limbs
from phantom.materials import Material
from phantom.organ import Girth, Part
from phantom.shapes import Ellipsoid, ellipsoid
from phantom.trunk import sample_inside, sample_stomach, sample_vein

WIDTH_TO_DEPTH = Range(0.93, 1.12)  # of the standard plane's ellipse; chosen by eye
# Abdomen, chest and pelvis: the centre's place along the trunk in abdominal radii, and semi-axes in
# units of the standard plane's and, along the trunk, of their mean. Chosen by eye.
TRUNK = (
    (0.0, (1.0, 1.0, 1.95)),
    (1.10, (0.87, 0.87, 0.80)),
    (-1.05, (0.85, 0.85, 0.75)),
)


@dataclass(frozen=True, kw_only=True)
class Fetus:
    """A fetus in its own axes; lengths are mm."""

    ac_mm: float
    """Circumference of the standard plane."""
    radius_mm: float
    """Mean semi-axis of the standard plane."""
    trunk: tuple[Ellipsoid, Ellipsoid, Ellipsoid]
    """Abdomen, chest and pelvis, painted as one body."""
    trunk_material: Material
    """What the trunk is made of where it holds no organ."""
    stomach: Ellipsoid
    """The stomach, also among `inside_trunk`."""
    vein: np.ndarray
    """The umbilical vein's course, (3, 3): navel, bend in the liver, portal sinus."""
    before_trunk: tuple[Part, ...]
    """What is painted before the trunk, in this order."""
    inside_trunk: tuple[Part, ...]
    """What is painted into the trunk, in this order."""

    @property
    def abdomen(self) -> Ellipsoid:
        """The trunk's surface near the standard plane: one ellipsoid, so sections are ellipses."""
        return self.trunk[0]

    def landmarks(self) -> dict[str, tuple[Ellipsoid, ...]]:
        """The body and all parts that have a name: one or more ellipsoids each, by name."""
        shapes: dict[str, tuple[Ellipsoid, ...]] = {"body": self.trunk}
        for part in (*self.before_trunk, *self.inside_trunk):
            if part.name:
                shapes[part.name] = (*shapes.get(part.name, ()), part.shape)
        return shapes


def sample_fetus(rng: np.random.Generator, ac_mm: float) -> Fetus:
    """Draw a fetus.

    Args:
        rng: its stream.
        ac_mm: the circumference that its standard plane shall have.
    """
    girth = _sample_girth(rng, ac_mm)
    stomach, vein = sample_stomach(rng, girth), sample_vein(rng, girth)
    inside = sample_inside(rng, girth, stomach, vein)
    before = (*sample_limbs(rng, girth), *sample_head(rng, girth, ac_mm))
    return Fetus(
        ac_mm=ac_mm,
        radius_mm=girth.radius_mm,
        trunk=_trunk(girth),
        trunk_material=materials.TRUNK.with_echo(rng.uniform(*materials.TRUNK_ECHO_DB)),
        stomach=stomach,
        vein=vein,
        before_trunk=before,
        inside_trunk=inside,
    )


def _sample_girth(rng: np.random.Generator, ac_mm: float) -> Girth:
    ratio = rng.uniform(*WIDTH_TO_DEPTH)
    half_depth_mm = ac_mm / float(ramanujan(np.array(ratio), np.array(1.0)))
    return Girth(half_width_mm=ratio * half_depth_mm, half_depth_mm=half_depth_mm)


def _trunk(girth: Girth) -> tuple[Ellipsoid, Ellipsoid, Ellipsoid]:
    abdomen, chest, pelvis = (
        ellipsoid([0, 0, z * girth.radius_mm], np.array(semi) * girth.axes_mm) for z, semi in TRUNK
    )
    return abdomen, chest, pelvis
