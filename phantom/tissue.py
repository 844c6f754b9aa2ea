"""What the planes of one sweep cut: mother and fetus, painted frame by frame in beam space.

Levels are dB relative to average soft tissue; attenuation is dB per mm of path beyond what the
machine's own gain curve makes up for. All values were chosen by eye.
"""

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import gaussian_filter

from phantom.canvas import (
    DEPTHS,
    LINES,
    Canvas,
    U,
    V,
    Window,
    band,
    is_thin,
    soft_inside,
    union,
    window_of,
)
from phantom.materials import AMNIOTIC_FLUID_DB_MM, CORD, FLUID_DB, PLACENTA, Material
from phantom.mother import Wall, paint_beyond
from phantom.organ import Part
from phantom.scene import Scene
from phantom.shapes import Planes, Sections

# ---- texture: noise fixed in the mother's space, in voxels; it repeats after NOISE_SIZE of them

NOISE_SIZE = 96
NOISE_STEP_MM = 1.6
FINE_VOXELS, BROAD_VOXELS = 1.2, 5.0  # standard deviations of the Gaussians that smooth it
FINE_SHARE, BROAD_SHARE = 0.6, 0.8
# Keeps the voxels' numbers above 0, so that to cut off their decimals is to round them down.
_WHOLE_VOLUMES = 64 * NOISE_SIZE

# ---- the fetus's trunk; what it is made of stands in `phantom.materials`

OUTLINE_ROUGHNESS_MM = 0.35  # for one standard deviation of the texture
TRUNK_SWELL_DB = 1.6
# The skin: a bright rim, brighter where the beam meets it squarely.
SKIN_MM, SKIN_HALF_WIDTH_MM = -0.9, 1.3
SKIN_DB, SKIN_SQUARE_DB = 1.0, 13.0
# Where the beam grazes the skin, below this squared cosine, the skin casts a shadow.
GRAZING_COS2 = 0.25
GRAZING_DB_MM = 0.9

# ---- ribs: in units of the abdominal radius, but where a unit is given

RIB_PITCH = 0.23  # from one to the next
RIB_DEPTH = 0.075  # under the skin
RIB_HALF_WIDTH_MM = 1.9
RIBS_FROM, RIBS_TO = 0.30, 1.65  # along the trunk
RIBS_FRONT = 0.62  # none farther to the front
RIB_SLOPE = 0.35  # by which they fall from back to front
# Along the trunk a rib is RIB_STEEPNESS times a cosine, less RIB_GAP, clipped to 0 and 1.
RIB_STEEPNESS, RIB_GAP = 1.6, 0.1
RIB_DB, RIB_DB_MM = 15.0, 1.6


class SweepTissue:
    """Echo and attenuation of any frame of one sweep."""

    rib_db, rib_db_mm, skin_half_width_mm = RIB_DB, RIB_DB_MM, SKIN_HALF_WIDTH_MM

    def __init__(
        self, scene: Scene, planes: Planes, texture: np.ndarray, wall: Wall, beyond_db: float
    ) -> None:
        """Cut all that there is with all planes.

        Args:
            scene: what is scanned.
            planes: the sweep's, in maternal axes.
            texture: the scan's, as `sample_texture` gives it.
            wall: the scan's.
            beyond_db: mean echo of what lies beyond the uterus.
        """
        fetal = planes.seen_from(scene.rotation, scene.position)
        self._planes, self._fetal, self._fetus = planes, fetal, scene.fetus
        self._texture, self._wall, self._beyond_db = texture, wall, beyond_db
        self._lumen = scene.uterus.sections(planes)
        self._before = [
            (PLACENTA, scene.placenta.sections(planes)),
            *((CORD, loop.sections(planes)) for loop in scene.cord),
            *_cut(scene.fetus.before_trunk, fetal),
        ]
        self._trunk = [shape.sections(fetal) for shape in scene.fetus.trunk]
        self._inside = _cut(scene.fetus.inside_trunk, fetal)

    def grids(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Echo in dB and attenuation in dB per mm of one frame, (DEPTHS, LINES) float32 each."""
        texture, swell = self._texture_of(frame)
        canvas = Canvas(
            echo=np.full((DEPTHS, LINES), FLUID_DB, np.float32),
            attenuation=np.full((DEPTHS, LINES), AMNIOTIC_FLUID_DB_MM, np.float32),
            texture=texture,
            swell=swell,
        )
        self._paint(canvas, frame)
        return canvas.echo, canvas.attenuation

    def _paint(self, canvas: Canvas, frame: int) -> None:
        """Paint all that the plane cuts, from the farthest to the nearest."""
        for material, sections in self._before:
            canvas.paint(material, sections, frame)
        self._paint_beyond(canvas, frame)
        self._paint_trunk(canvas, frame)
        self._wall.paint(canvas, frame)

    def _paint_beyond(self, canvas: Canvas, frame: int) -> None:
        paint_beyond(canvas, self._lumen, frame, self._beyond_db)

    def _texture_of(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """The scan's texture where the plane cuts it, fine and broad, (DEPTHS, LINES) each."""
        index = np.zeros((DEPTHS, LINES), np.int32)
        planes = self._planes
        for axis in range(3):
            o, u, v = (
                x[frame, axis] / NOISE_STEP_MM
                for x in (planes.origin, planes.lateral, planes.depth)
            )
            voxel = np.float32(u) * U + np.float32(v) * V + np.float32(o + _WHOLE_VOLUMES)
            index = index * NOISE_SIZE + voxel.astype(np.int32) % NOISE_SIZE
        return self._texture[0].take(index), self._texture[1].take(index)

    def _paint_trunk(self, canvas: Canvas, frame: int) -> None:
        """Paint one body of the trunk's ellipsoids; ribs under its skin; then what lies inside."""
        cut = [sections for sections in self._trunk if sections.cut[frame]]
        if not cut:
            return
        window = union([window_of(sections, frame) for sections in cut])
        if is_thin(window):
            return
        distance, facing = _nearest(canvas, cut, frame, window)
        distance += np.float32(OUTLINE_ROUGHNESS_MM) * canvas.texture[window]
        material = self._fetus.trunk_material
        body = soft_inside(distance, material.edge_mm)
        canvas.fill(window, body, material)
        canvas.brighten(window, TRUNK_SWELL_DB * body * canvas.swell[window])
        skin = band(distance, SKIN_MM, self.skin_half_width_mm)
        self._paint_skin(canvas, window, skin, facing)
        self._paint_ribs(canvas, frame, window, distance)
        for material, sections in self._inside:
            canvas.paint(material, sections, frame, within=(window, body))

    def _paint_skin(
        self, canvas: Canvas, window: Window, skin: np.ndarray, facing: np.ndarray
    ) -> None:
        canvas.brighten(window, skin * (SKIN_DB + SKIN_SQUARE_DB * facing))
        canvas.shadow(window, GRAZING_DB_MM * skin * np.maximum(1 - facing / GRAZING_COS2, 0))

    def _paint_ribs(self, canvas: Canvas, frame: int, window: Window, distance: np.ndarray) -> None:
        fetal, r = self._fetal, self._fetus.radius_mm
        z, y = (
            np.float32(fetal.origin[frame, axis])
            + np.float32(fetal.lateral[frame, axis]) * U[window]
            + np.float32(fetal.depth[frame, axis]) * V[window]
            for axis in (2, 1)
        )
        if z.max() < RIBS_FROM * r or z.min() > RIBS_TO * r:
            return
        wave = np.cos((z + RIB_SLOPE * y) * np.float32(2 * np.pi / (RIB_PITCH * r)))
        chest = (z > RIBS_FROM * r) & (z < RIBS_TO * r) & (y < RIBS_FRONT * r)
        bone = band(distance, -RIB_DEPTH * r, RIB_HALF_WIDTH_MM)
        bone = bone * np.clip(RIB_STEEPNESS * wave - RIB_GAP, 0, 1) * chest
        canvas.brighten(window, self.rib_db * bone)
        canvas.shadow(window, self.rib_db_mm * bone)


def sample_texture(rng: np.random.Generator) -> np.ndarray:
    """Draw a scan's texture: two periodic volumes of noise with a standard deviation of 1.

    Returns:
        (2, NOISE_SIZE^3) float32, flat for fast look-up: grains of all sizes, and broad ones.
    """
    white = rng.standard_normal((2, NOISE_SIZE, NOISE_SIZE, NOISE_SIZE), np.float32)
    fine, broad = (
        gaussian_filter(noise, sd, mode="wrap")
        for noise, sd in zip(white, (FINE_VOXELS, BROAD_VOXELS), strict=True)
    )
    fine, broad = fine / fine.std(), broad / broad.std()
    mixed = FINE_SHARE * fine + BROAD_SHARE * broad
    return np.stack([mixed / mixed.std(), broad]).astype(np.float32).reshape(2, -1)


def _cut(organs: Iterable[Part], planes: Planes) -> list[tuple[Material, Sections]]:
    return [(part.material, part.shape.sections(planes)) for part in organs]


def _nearest(
    canvas: Canvas, cut: list[Sections], frame: int, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """As `Canvas.distance`, of the body that several ellipsoids make up together."""
    (distance, facing), *others = (canvas.distance(s, frame, window) for s in cut)
    for other, other_facing in others:
        facing = np.where(other < distance, other_facing, facing)
        distance = np.minimum(distance, other)
    return distance, facing
