"""A frame's echo and attenuation grids while they are painted, part by part, in beam space.

Grids are (DEPTHS, LINES), row = depth along a line, column = line; U and V are the points' lateral
and depth coordinates in the image plane in mm from the fan's apex.
"""

from dataclasses import dataclass

import numpy as np

from acouslic.challenge import CHALLENGE_FAN
from phantom.materials import Material, Shell
from phantom.probe import FAR_MM, NEAR_MM
from phantom.shapes import Sections

# Coarser than the picture (see `phantom.ultrasound`), for speed; chosen by eye.
DEPTHS, LINES = 224, 128
DEPTH_STEP_MM = (FAR_MM - NEAR_MM) / (DEPTHS - 1)
ANGLES_DEG = np.linspace(-CHALLENGE_FAN.half_angle_deg, CHALLENGE_FAN.half_angle_deg, LINES)
ANGLE_STEP_DEG = (ANGLES_DEG[-1] - ANGLES_DEG[0]) / (LINES - 1)
_RADII_MM = np.linspace(NEAR_MM, FAR_MM, DEPTHS)[:, None]
_SIN = np.sin(np.radians(ANGLES_DEG)).astype(np.float32)
_COS = np.cos(np.radians(ANGLES_DEG)).astype(np.float32)
U = (_RADII_MM * _SIN).astype(np.float32)
V = (_RADII_MM * _COS).astype(np.float32)
DEPTH_MM = (_RADII_MM - NEAR_MM).astype(np.float32)

# Bright surfaces are as uneven as the tissue: so much for one standard deviation of the texture,
# and at least this share of them stays. Chosen by eye.
UNEVENNESS = 0.3
LEAST_BRIGHTNESS = 0.2
# More than rims and soft edges reach beyond an outline: 2.1 mm at most, at the skull.
_WINDOW_MARGIN_MM = 3.0
# Squares of inverse lengths, mm^-2: far below those of any section, so that nothing divides by 0.
_LEAST_GRADIENT = np.float32(1e-9)
_LEAST_CURVATURE = 1e-8
_ALL_ROUND_DEG = 180.0

Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))


@dataclass(frozen=True)
class Canvas:
    """The grids under the brush, (DEPTHS, LINES) float32 each; painting changes the first two."""

    echo: np.ndarray
    """Echo, dB relative to average soft tissue."""
    attenuation: np.ndarray
    """Attenuation, dB per mm."""
    texture: np.ndarray
    """The tissue's fine unevenness, of standard deviation 1."""
    swell: np.ndarray
    """The tissue's broad unevenness, of standard deviation 1."""

    def distance(
        self, sections: Sections, frame: int, window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far points are from a section's outline, and how squarely the beam meets it there.

        Args:
            sections: of one ellipsoid with the sweep's planes.
            frame: which of them.
            window: which part of the grid.

        Returns:
            The distance in mm, to first order and negative inside, and the squared cosine between
            beam and surface normal; both have the window's shape.
        """
        du = U[window] - np.float32(sections.centre_u[frame])
        dv = V[window] - np.float32(sections.centre_v[frame])
        quu, quv, qvv = (np.float32(x[frame]) for x in (sections.quu, sections.quv, sections.qvv))
        gu, gv = quu * du + quv * dv, quv * du + qvv * dv
        value = gu * du + gv * dv
        gradient = gu * gu + gv * gv + _LEAST_GRADIENT
        along = gu * _SIN[window[1]] + gv * _COS[window[1]]
        root = np.sqrt(np.maximum(value, 0))  # rounding makes it negative at the very centre
        return (value - root) / np.sqrt(gradient), along * along / gradient

    def paint(
        self,
        material: Material,
        sections: Sections,
        frame: int,
        within: tuple[Window, np.ndarray] | None = None,
    ) -> None:
        """Paint an ellipsoid's section, if there is one and it is in view.

        Args:
            material: what the ellipsoid is made of.
            sections: of the ellipsoid with the sweep's planes.
            frame: which of them.
            within: a window and a field of its shape, 0 to 1: the body that the section lies in.
        """
        if not sections.cut[frame]:
            return
        window = window_of(sections, frame)
        if is_thin(window):
            return
        distance, facing = self.distance(sections, frame, window)
        limit = None if within is None else _cropped(within, window)
        self.fill(window, _limited(soft_inside(distance, material.edge_mm), limit), material)
        if material.shell is not None:
            rim = band(distance, -material.shell.half_width_mm / 2, material.shell.half_width_mm)
            self._paint_shell(window, material.shell, _limited(rim, limit), facing)

    def fill(self, window: Window, inside: np.ndarray, material: Material) -> None:
        """Replace what is there by a material, to the extent of `inside` (0 to 1)."""
        echo, attenuation = self.echo[window], self.attenuation[window]
        texture = np.float32(material.texture_db) * self.texture[window]
        echo += inside * (np.float32(material.echo_db) + texture - echo)
        attenuation += inside * (np.float32(material.attenuation_db_mm) - attenuation)

    def _paint_shell(
        self, window: Window, shell: Shell, rim: np.ndarray, facing: np.ndarray
    ) -> None:
        reflected = shell.diffuse + (1 - shell.diffuse) * facing
        self.brighten(window, rim * (shell.echo_db * reflected))
        if shell.attenuation_db_mm:
            self.shadow(window, rim * shell.attenuation_db_mm)

    def brighten(self, window: Window, by_db: np.ndarray) -> None:
        """Add to the echo, unevenly as the tissue is."""
        self.echo[window] += by_db * np.maximum(
            1 + UNEVENNESS * self.texture[window], LEAST_BRIGHTNESS
        )

    def shadow(self, window: Window, loss_db_mm: np.ndarray) -> None:
        """Add to the attenuation, and so darken what lies behind."""
        self.attenuation[window] += loss_db_mm


def soft_inside(distance: np.ndarray, edge_mm: float) -> np.ndarray:
    """1 inside an outline, 0 outside, and in between over `edge_mm`."""
    return np.asarray(np.clip(0.5 - distance / edge_mm, 0, 1))


def band(
    distance: np.ndarray, middle_mm: float, half_width_mm: float, *, top: float = 1.0
) -> np.ndarray:
    """A band along an outline: 1 at its middle, falling to 0 on both sides.

    Args:
        distance: from the outline, negative inside, mm.
        middle_mm: where the band's middle lies.
        half_width_mm: over which it falls by 1.
        top: of the unclipped band; more than 1 makes it flat about its middle, and wider.
    """
    return np.asarray(np.clip(top - np.abs(distance - middle_mm) / half_width_mm, 0, 1))


def _limited(field: np.ndarray, limit: np.ndarray | None) -> np.ndarray:
    return field if limit is None else field * limit


def window_of(sections: Sections, frame: int) -> Window:
    """The grid's part that holds a section, from the circle about it."""
    middle = (sections.quu[frame] + sections.qvv[frame]) / 2
    spread = np.hypot((sections.quu[frame] - sections.qvv[frame]) / 2, sections.quv[frame])
    reach = 1 / np.sqrt(max(middle - spread, _LEAST_CURVATURE)) + _WINDOW_MARGIN_MM
    u, v = float(sections.centre_u[frame]), float(sections.centre_v[frame])
    radius, angle = np.hypot(u, v), np.degrees(np.arctan2(u, v))
    half = np.degrees(np.arcsin(reach / radius)) if reach < radius else _ALL_ROUND_DEG
    rows = ((radius + x - NEAR_MM) / DEPTH_STEP_MM for x in (-reach, reach))
    columns = ((angle + x - ANGLES_DEG[0]) / ANGLE_STEP_DEG for x in (-half, half))
    return _slice(*rows, size=DEPTHS), _slice(*columns, size=LINES)


def _slice(low: float, high: float, *, size: int) -> slice:
    start = min(max(int(low), 0), size)
    return slice(start, max(start, min(int(high) + 2, size)))


def is_thin(window: Window) -> bool:
    """Whether nothing, or no more than a line of it, lies in view."""
    return any(side.stop - side.start < 2 for side in window)


def union(windows: list[Window]) -> Window:
    """The smallest window that holds all of them."""
    rows, columns = zip(*windows, strict=True)
    return (
        slice(min(w.start for w in rows), max(w.stop for w in rows)),
        slice(min(w.start for w in columns), max(w.stop for w in columns)),
    )


def _cropped(within: tuple[Window, np.ndarray], window: Window) -> np.ndarray:
    """A field that is known on one window, on another one; zero where it is not known."""
    (rows, columns), field = within
    out = np.zeros((window[0].stop - window[0].start, window[1].stop - window[1].start), np.float32)
    top, left = max(rows.start, window[0].start), max(columns.start, window[1].start)
    bottom, right = min(rows.stop, window[0].stop), min(columns.stop, window[1].stop)
    if top < bottom and left < right:
        target = (
            slice(top - window[0].start, bottom - window[0].start),
            slice(left - window[1].start, right - window[1].start),
        )
        source = (
            slice(top - rows.start, bottom - rows.start),
            slice(left - columns.start, right - columns.start),
        )
        out[target] = field[source]
    return out
