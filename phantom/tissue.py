"""What the plane of one frame cuts: mother and fetus, painted on a coarse grid in beam space.

Levels are dB relative to average soft tissue, attenuation is dB per mm of path beyond what the
machine's own gain curve makes up for.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from phantom.anatomy import FLUID_DB, Part
from phantom.canvas import (
    ANGLES_DEG,
    DEPTH_MM,
    DEPTH_STEP_MM,
    DEPTHS,
    LINES,
    WHOLE,
    Canvas,
    U,
    V,
    Window,
    is_thin,
    union,
    window_of,
)
from phantom.scene import Scene
from phantom.shapes import Ellipsoid, Planes, Sections

_NOISE_SIZE = 96
_NOISE_STEP_MM = 1.6


@dataclass(frozen=True)
class Painted:
    """A part with its sections in all planes of a sweep, in its scene's painting order."""

    part: Part
    sections: Sections


@dataclass(frozen=True)
class Wall:
    """The maternal wall over one scan: layers whose thickness wanders from line to line and frame
    to frame.
    """

    thickness_mm: float
    fat_share: float
    phase: np.ndarray
    ripple_mm: float
    level_db: tuple[float, float, float, float]
    striae_db: float

    def depth_mm(self, frame: int, share: float) -> np.ndarray:
        """Depth of a layer boundary at `share` of the wall, (LINES,)."""
        x = np.radians(ANGLES_DEG)
        p = self.phase
        wander = np.sin(3.1 * x + p[0] + 0.05 * frame) + 0.6 * np.sin(7.3 * x + p[1] - 0.07 * frame)
        tilt = 1.5 * x * np.sin(p[2] + 0.03 * frame)
        depth = share * (self.thickness_mm * (1 + 0.25 * tilt) + self.ripple_mm * wander)
        return np.asarray(np.maximum(depth, 2.0 * share), np.float32)


class SweepTissue:
    """Echo and attenuation of any frame of one sweep."""

    def __init__(
        self, scene: Scene, planes: Planes, texture: np.ndarray, wall: Wall, outside_db: float
    ) -> None:
        fetal = planes.seen_from(scene.rotation, scene.position)
        self._planes, self._fetal, self._scene = planes, fetal, scene
        self._texture, self._wall, self._outside_db = texture, wall, outside_db
        self._lumen = scene.uterus.sections(planes)
        self._placenta = scene.placenta.sections(planes)
        self._cord = [shape.sections(planes) for shape in scene.cord]
        self._before = [Painted(p, p.shape.sections(fetal)) for p in scene.fetus.before_trunk]
        self._trunk = [shape.sections(fetal) for shape in scene.fetus.trunk]
        self._inside = [Painted(p, p.shape.sections(fetal)) for p in scene.fetus.inside_trunk]

    def grids(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Echo level and extra attenuation of one frame, (DEPTHS, LINES) float32 each."""
        texture, swell = self._texture_of(frame)
        echo = np.full((DEPTHS, LINES), FLUID_DB, np.float32)
        attenuation = np.full((DEPTHS, LINES), -0.06, np.float32)
        canvas = Canvas(echo, attenuation, texture, swell)
        canvas.paint(_PLACENTA, self._placenta, frame)
        for loop in self._cord:
            canvas.paint(_CORD, loop, frame)
        for painted in self._before:
            canvas.paint(painted.part, painted.sections, frame)
        self._paint_outside(canvas, frame)
        self._paint_trunk(canvas, frame)
        self._paint_wall(canvas, frame)
        return echo, attenuation

    def _texture_of(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """The tissue's own unevenness, fine and broad: fields fixed in the mother's space, read in
        the plane.
        """
        index = np.zeros((DEPTHS, LINES), np.int32)
        planes = self._planes
        for axis in range(3):
            o, u, v = (
                x[frame, axis] / _NOISE_STEP_MM
                for x in (planes.origin, planes.lateral, planes.depth)
            )
            step = (
                np.float32(u) * U + np.float32(v) * V + np.float32(o + 64 * _NOISE_SIZE)
            ).astype(np.int32)
            index = index * _NOISE_SIZE + step % _NOISE_SIZE
        return self._texture[0].take(index), self._texture[1].take(index)

    def _paint_outside(self, canvas: Canvas, frame: int) -> None:
        """Everything beyond the uterus, its muscle wall, and the fetus where it lies against it."""
        if self._lumen.cut[frame]:
            distance, facing = canvas.distance(self._lumen, frame, WHOLE)
            distance += np.float32(2.6) * canvas.swell
            outside = np.clip(0.5 + distance / 2.0, 0, 1)
            muscle = np.clip(1.5 - np.abs(distance - 4.5) / 3.0, 0, 1)
            lining = np.clip(1 - np.abs(distance - 0.5) / 1.3, 0, 1) * (0.25 + facing)
        else:
            outside = np.ones((DEPTHS, LINES), np.float32)
            muscle = lining = np.zeros((DEPTHS, LINES), np.float32)
        rough = 3.0 * canvas.texture + 4.0 * canvas.swell
        far = self._outside_db + rough + muscle * (-2.0 - self._outside_db - 0.6 * rough)
        echo, attenuation = canvas.echo, canvas.attenuation
        echo += outside * (far - echo) + lining * (8.5 + 3.0 * canvas.swell)
        attenuation += outside * ((0.09 - 0.07 * muscle) - attenuation)

    def _paint_trunk(self, canvas: Canvas, frame: int) -> None:
        """One body of the three quadrics; ribs under its skin; then what lies inside it."""
        cut = [s for s in self._trunk if s.cut[frame]]
        if not cut:
            return
        window = union([window_of(s, frame) for s in cut])
        if is_thin(window):
            return
        fields = [canvas.distance(s, frame, window) for s in cut]
        distance, facing = fields[0]
        for other, other_facing in fields[1:]:
            facing = np.where(other < distance, other_facing, facing)
            distance = np.minimum(distance, other)
        fetus = self._scene.fetus
        distance += np.float32(0.35) * canvas.texture[window]
        body = np.clip(0.5 - distance / 1.4, 0, 1)
        canvas.fill(window, body, fetus.trunk_echo_db, 1.8, 0.035)
        canvas.brighten(window, 1.6 * body * canvas.swell[window])
        shell = np.clip(1 - np.abs(distance + 0.9) / 1.3, 0, 1)
        canvas.brighten(window, shell * (1.0 + 13.0 * facing))
        canvas.shadow(window, 0.9 * shell * np.maximum(0.25 - facing, 0) * 4)
        self._paint_ribs(canvas, frame, window, distance)
        for painted in self._inside:
            canvas.paint(painted.part, painted.sections, frame, within=(window, body))

    def _paint_ribs(self, canvas: Canvas, frame: int, window: Window, distance: np.ndarray) -> None:
        fetal, r = self._fetal, self._scene.fetus.radius_mm
        s, y = (
            np.float32(fetal.origin[frame, i])
            + np.float32(fetal.lateral[frame, i]) * U[window]
            + np.float32(fetal.depth[frame, i]) * V[window]
            for i in (2, 1)
        )
        if s.max() < 0.3 * r or s.min() > 1.7 * r:
            return
        depth = np.clip(1 - np.abs(distance + 0.075 * r) / 1.9, 0, 1)
        wave = np.cos((s + 0.35 * y) * np.float32(2 * np.pi / self._scene.fetus.rib_pitch_mm))
        span = (s > 0.30 * r) & (s < 1.65 * r) & (y < 0.62 * r)
        bone = depth * np.clip(1.6 * wave - 0.1, 0, 1) * span
        canvas.brighten(window, 15.0 * bone)
        canvas.shadow(window, 1.6 * bone)

    def _paint_wall(self, canvas: Canvas, frame: int) -> None:
        wall = self._wall
        fat, end = wall.depth_mm(frame, wall.fat_share), wall.depth_mm(frame, 1.0)
        rows = slice(0, int(end.max() / DEPTH_STEP_MM) + 4)
        depth, texture = DEPTH_MM[rows], canvas.texture[rows]
        skin_db, fat_db, fascia_db, muscle_db = wall.level_db
        inside = np.clip((end - depth) / 1.2 + 0.5, 0, 1)
        fatty = np.clip((fat - depth) / 1.2 + 0.5, 0, 1)
        striae = np.sin((depth / 3.4 + 0.15 * texture) * 2 * np.pi) * wall.striae_db
        level = muscle_db + 1.3 * texture + fatty * (fat_db + striae - muscle_db)
        level += fascia_db * np.exp(-0.5 * ((depth - fat) / 0.9) ** 2)
        level += 0.6 * fascia_db * np.exp(-0.5 * ((depth - end) / 0.9) ** 2)
        level += skin_db * np.exp(-depth / 2.5)
        canvas.echo[rows] += inside * (level - canvas.echo[rows])
        canvas.attenuation[rows] *= 1 - inside


_PLACENTA = Part(Ellipsoid(np.zeros(3), np.ones(3), np.eye(3)), 1.0, 0.02, 2.2, 6.0, 1.5)
_CORD = Part(Ellipsoid(np.zeros(3), np.ones(3), np.eye(3)), -11.0, 0.0, 1.0, 10.0, 1.3)


def sample_texture(rng: np.random.Generator) -> np.ndarray:
    """Two periodic noise volumes of unit variance, (2, n), flat for fast look-up: all grains, and
    broad ones.
    """
    white = rng.standard_normal((2, _NOISE_SIZE, _NOISE_SIZE, _NOISE_SIZE), np.float32)
    fine, broad = (
        gaussian_filter(w, s, mode="wrap") for w, s in zip(white, (1.2, 5.0), strict=True)
    )
    fine, broad = fine / fine.std(), broad / broad.std()
    mixed = 0.6 * fine + 0.8 * broad
    return np.stack([mixed / mixed.std(), broad]).astype(np.float32).reshape(2, -1)


def sample_wall(rng: np.random.Generator, scene: Scene) -> Wall:
    """The wall of one scan."""
    return Wall(
        thickness_mm=scene.subject.mother.wall_mm,
        fat_share=scene.subject.mother.fat_share,
        phase=rng.uniform(0, 2 * np.pi, 3),
        ripple_mm=float(rng.uniform(0.4, 1.6)),
        level_db=(
            float(rng.uniform(4, 9)),
            float(rng.uniform(-4, 1)),
            float(rng.uniform(6, 16)),
            float(rng.uniform(-7, -2)),
        ),
        striae_db=float(rng.uniform(1.0, 3.5)),
    )
