"""A frame's echo and attenuation grids while they are painted, part by part, in beam space.

Grids are (DEPTHS, LINES), row = depth along a line, column = line; U and V are the points' lateral
and depth coordinates in the image plane in mm from the fan's apex.
"""

from dataclasses import dataclass

import numpy as np

from acouslic.challenge import CHALLENGE_FAN
from phantom.anatomy import Part
from phantom.shapes import Sections
from phantom.sweep import FAR_MM, NEAR_MM

DEPTHS, LINES = 224, 128
DEPTH_STEP_MM = (FAR_MM - NEAR_MM) / (DEPTHS - 1)
ANGLES_DEG = np.linspace(-CHALLENGE_FAN.half_angle_deg, CHALLENGE_FAN.half_angle_deg, LINES)
_RADII_MM = np.linspace(NEAR_MM, FAR_MM, DEPTHS)[:, None]
_SIN = np.sin(np.radians(ANGLES_DEG)).astype(np.float32)
_COS = np.cos(np.radians(ANGLES_DEG)).astype(np.float32)
U = (_RADII_MM * _SIN).astype(np.float32)
V = (_RADII_MM * _COS).astype(np.float32)
DEPTH_MM = (_RADII_MM - NEAR_MM).astype(np.float32)

Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))


@dataclass(frozen=True)
class Canvas:
    """The two grids under the brush, and the tissue's fine `texture` and broad `swell`.

    All four are (DEPTHS, LINES) float32; the methods change the first two in place.
    """

    echo: np.ndarray
    attenuation: np.ndarray
    texture: np.ndarray
    swell: np.ndarray

    def distance(
        self, sections: Sections, frame: int, window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distance to a section's outline in mm (to first order, negative inside), and how
        squarely the beam meets it there, as cos^2.
        """
        du = U[window] - np.float32(sections.centre_u[frame])
        dv = V[window] - np.float32(sections.centre_v[frame])
        quu, quv, qvv = (np.float32(x[frame]) for x in (sections.quu, sections.quv, sections.qvv))
        gu, gv = quu * du + quv * dv, quv * du + qvv * dv
        value = gu * du + gv * dv
        gradient = gu * gu + gv * gv + np.float32(1e-9)
        along = gu * _SIN[window[1]] + gv * _COS[window[1]]
        root = np.sqrt(np.maximum(value, 0))  # rounding makes it negative at the very centre
        return (value - root) / np.sqrt(gradient), along * along / gradient

    def paint(
        self,
        part: Part,
        sections: Sections,
        frame: int,
        within: tuple[Window, np.ndarray] | None = None,
    ) -> None:
        """Paint a part's section, if there is one and it is in view."""
        if not sections.cut[frame]:
            return
        window = window_of(sections, frame)
        if is_thin(window):
            return
        distance, facing = self.distance(sections, frame, window)
        inside = np.clip(0.5 - distance / part.soft_mm, 0, 1)
        limit = None if within is None else _cropped(within, window)
        if limit is not None:
            inside *= limit
        self.fill(window, inside, part.echo_db, part.texture_db, part.attenuation_db_mm)
        if part.shell_db:
            shell = np.clip(1 - np.abs(distance + part.shell_mm / 2) / part.shell_mm, 0, 1)
            if limit is not None:
                shell *= limit
            self.brighten(
                window, shell * (part.shell_db * (part.diffuse + (1 - part.diffuse) * facing))
            )
            if part.shell_attenuation_db_mm:
                self.shadow(window, shell * part.shell_attenuation_db_mm)

    def fill(
        self, window: Window, inside: np.ndarray, level: float, texture: float, loss: float
    ) -> None:
        """Replace what is there by tissue of a level, its texture and its attenuation."""
        echo, attenuation = self.echo[window], self.attenuation[window]
        echo += inside * (np.float32(level) + np.float32(texture) * self.texture[window] - echo)
        attenuation += inside * (np.float32(loss) - attenuation)

    def brighten(self, window: Window, by_db: np.ndarray) -> None:
        """Add to the echo, unevenly as the tissue is."""
        self.echo[window] += by_db * np.maximum(1 + 0.3 * self.texture[window], 0.2)

    def shadow(self, window: Window, loss: np.ndarray) -> None:
        """Add to the attenuation, and so darken what lies behind."""
        self.attenuation[window] += loss


def window_of(sections: Sections, frame: int) -> Window:
    """The grid's part that holds a section, from the circle about it."""
    middle = (sections.quu[frame] + sections.qvv[frame]) / 2
    spread = np.hypot((sections.quu[frame] - sections.qvv[frame]) / 2, sections.quv[frame])
    reach = 1 / np.sqrt(max(middle - spread, 1e-8)) + 3.0
    u, v = float(sections.centre_u[frame]), float(sections.centre_v[frame])
    radius, angle = np.hypot(u, v), np.degrees(np.arctan2(u, v))
    half = np.degrees(np.arcsin(reach / radius)) if reach < radius else 180.0
    step = (ANGLES_DEG[-1] - ANGLES_DEG[0]) / (LINES - 1)
    return (
        _slice(
            (radius - reach - NEAR_MM) / DEPTH_STEP_MM,
            (radius + reach - NEAR_MM) / DEPTH_STEP_MM,
            DEPTHS,
        ),
        _slice((angle - half - ANGLES_DEG[0]) / step, (angle + half - ANGLES_DEG[0]) / step, LINES),
    )


def _slice(low: float, high: float, size: int) -> slice:
    start = min(max(int(low), 0), size)
    return slice(start, max(start, min(int(high) + 2, size)))


def is_thin(window: Window) -> bool:
    """Whether nothing, or no more than a line of it, lies in view."""
    return any(part.stop - part.start < 2 for part in window)


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
        out[
            top - window[0].start : bottom - window[0].start,
            left - window[1].start : right - window[1].start,
        ] = field[
            top - rows.start : bottom - rows.start, left - columns.start : right - columns.start
        ]
    return out
