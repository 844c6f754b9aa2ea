"""Fields in beam space that move with the tissue: speckle, fine echoes, strokes, skin layers.

Fields are key pictures a few millimetres of elevation apart. A frame blends the two keys that its
plane lies between, row by row, as a tilt moves far rows more than near ones; in its own plane it
looks at another part of them. So a texture stays while the probe stays, and passes as it moves on.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from acouslic.challenge import CHALLENGE_FAN
from phantom.probe import FAR_MM, NEAR_MM
from phantom.shapes import Planes
from phantom.speckle import BEAMS, SAMPLES

SAMPLE_MM = (FAR_MM - NEAR_MM) / (SAMPLES - 1)
BEAM_RAD = 2 * np.radians(CHALLENGE_FAN.half_angle_deg) / (BEAMS - 1)
MIDDLE_MM = (NEAR_MM + FAR_MM) / 2
# A field has so many rows and lines more than a frame, for motion within the plane.
SPARE_ROWS, SPARE_LINES = 48, 120
KEYS = 8  # then the fields repeat; chosen by eye

# Speckle: the point spread's standard deviations along and across the beam, in samples and lines,
# constant in angle; looks that are averaged. Fitted to the real frames (docs/simulation.md).
SPECKLE_ALONG, SPECKLE_ACROSS, LOOKS = 0.55, 1.4, 1
REFLECTOR_SHARE, REFLECTOR_AMPLITUDE = 0.002, 3.5  # few reflectors stand out; chosen by eye
LEAST_POWER = 0.08  # keeps the logarithm from falling without end; chosen by eye
# Fine echoes: a sum of noises of several sizes, as standard deviations (samples, lines) and shares.
GRAINS = ((1.0, 2.2, 0.5), (2.2, 4.5, 0.5), (5.0, 9.0, 0.5), (8.0, 28.0, 0.5))
# Strokes: how many a field, their half lengths in lines, slopes, shares of double ones (the two
# walls of a vessel), and the double's distance in samples. Chosen by eye.
STROKES, STROKE_LENGTH, STROKE_SLOPE_SD = 420, 3.5, 0.25
DOUBLE_SHARE, DOUBLE_SAMPLES = 0.3, (4, 9)
# Skin layers: sharp along the beam, long across it, as standard deviations (samples, lines).
LAYERS = ((0.7, 14.0, 0.8), (2.0, 30.0, 0.6))

_SHIFT_BITS = 4  # of cv2.line's fixed-point coordinates


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the planes of a sweep's N frames move through the tissue."""

    elevation_mm: np.ndarray
    """Distance passed across the plane, by row of the field, (N, SAMPLES)."""
    lines: np.ndarray
    """Lines passed to the image's right, (N,)."""
    rows: np.ndarray
    """Rows passed downwards, (N,)."""


def course_of(planes: Planes) -> Course:
    """The course of a sweep's planes."""
    moved, turned = np.diff(planes.origin, axis=0), np.diff(planes.depth, axis=0)
    normal, lateral, depth = planes.normal[1:], planes.lateral[1:], planes.depth[1:]
    radii = np.linspace(NEAR_MM, FAR_MM, SAMPLES)
    across = (moved * normal).sum(1)[:, None] + (turned * normal).sum(1)[:, None] * radii
    lines = ((moved * lateral).sum(1) / MIDDLE_MM + (turned * lateral).sum(1)) / BEAM_RAD
    return Course(
        elevation_mm=_summed(across),
        lines=_summed(lines),
        rows=_summed((moved * depth).sum(1) / SAMPLE_MM),
    )


@dataclass(frozen=True, kw_only=True)
class Field:
    """One kind of texture."""

    keys: np.ndarray
    """(KEYS, SAMPLES + SPARE_ROWS, BEAMS + SPARE_LINES) float32."""
    spacing_mm: float
    """Elevation from key to key."""

    def at(self, course: Course, frame: int) -> np.ndarray:
        """What a frame shows of it, (SAMPLES, BEAMS) float32."""
        place = course.elevation_mm[frame] / self.spacing_mm
        key = np.floor(place).astype(int)
        angle = ((place - key) * (np.pi / 2)).astype(np.float32)[:, None]
        rows = _back_and_forth(course.rows[frame], SPARE_ROWS) + np.arange(SAMPLES)
        left = _back_and_forth(course.lines[frame], SPARE_LINES)
        lines = slice(left, left + BEAMS)
        # Squares of the two shares add up to 1: the blend of two noises is as strong as each.
        here, beyond = (self.keys[(key + step) % KEYS, rows, lines] for step in (0, 1))
        return np.asarray(np.cos(angle) * here + np.sin(angle) * beyond)


def speckle(rng: np.random.Generator, spacing_mm: float, size: float) -> Field:
    """Draw log-compressed speckle of mean 0 and standard deviation 1.

    Args:
        rng: the look's stream.
        spacing_mm: elevation from key to key.
        size: factor on the point spread.
    """
    return _field([_speckle_key(rng, size) for _ in range(KEYS)], spacing_mm)


def grain(rng: np.random.Generator, spacing_mm: float) -> Field:
    """Draw fine echoes of mean 0 and standard deviation 1."""
    return _field([_noise(rng, GRAINS) for _ in range(KEYS)], spacing_mm)


def strokes(rng: np.random.Generator, spacing_mm: float) -> Field:
    """Draw short bright strokes, most of them across the beam: 0 where there is none."""
    return _field([_strokes_key(rng) for _ in range(KEYS)], spacing_mm)


def layers(rng: np.random.Generator, spacing_mm: float) -> Field:
    """Draw the skin's layers, of mean 0 and standard deviation 1."""
    return _field([_noise(rng, LAYERS) for _ in range(KEYS)], spacing_mm)


def _field(keys: list[np.ndarray], spacing_mm: float) -> Field:
    return Field(keys=np.stack(keys), spacing_mm=spacing_mm)


def _summed(steps: np.ndarray) -> np.ndarray:
    """Sums of steps along the first axis, beginning with 0."""
    return np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])


def _back_and_forth(passed: float, room: int) -> int:
    """A place between 0 and `room` that goes back and forth as the way grows."""
    return int(abs((passed + room) % (2 * room) - room))


def _shape() -> tuple[int, int]:
    return SAMPLES + SPARE_ROWS, BEAMS + SPARE_LINES


def _speckle_key(rng: np.random.Generator, size: float) -> np.ndarray:
    power = np.zeros(_shape(), np.float32)
    for _ in range(2 * LOOKS):  # each with a real and an imaginary part
        white = rng.standard_normal(_shape(), np.float32)
        is_strong = rng.random(_shape(), np.float32) < REFLECTOR_SHARE
        white *= 1 + (REFLECTOR_AMPLITUDE - 1) * is_strong
        amplitude = _blurred(white, SPECKLE_ALONG * size, SPECKLE_ACROSS * size)
        power += amplitude * amplitude
    return _normalised(np.log(power + np.float32(LEAST_POWER)))


def _noise(rng: np.random.Generator, sizes: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    total = np.zeros(_shape(), np.float32)
    for along, across, share in sizes:
        white = rng.standard_normal(_shape(), np.float32)
        total += np.float32(share) * _blurred(white, along, across)
    return _normalised(total)


def _strokes_key(rng: np.random.Generator) -> np.ndarray:
    height, width = _shape()
    key = np.zeros((height, width), np.float32)
    for _ in range(STROKES):
        middle = rng.uniform((0, 0), (width, height))
        half = (1 + rng.exponential(STROKE_LENGTH)) * np.array([1, rng.normal(0, STROKE_SLOPE_SD)])
        bright = float(rng.exponential(0.5) + 0.2)
        _line(key, middle - half, middle + half, bright)
        if rng.random() < DOUBLE_SHARE:
            below = np.array([0, rng.uniform(*DOUBLE_SAMPLES)])
            _line(key, middle - half + below, middle + half + below, bright)
    return np.asarray(cv2.GaussianBlur(key, (0, 0), sigmaX=1.0, sigmaY=0.7)) * np.float32(2)


def _line(key: np.ndarray, start: np.ndarray, end: np.ndarray, bright: float) -> None:
    scale = 1 << _SHIFT_BITS
    first, last = ((int(x * scale), int(y * scale)) for x, y in (start, end))
    cv2.line(key, first, last, bright, 1, cv2.LINE_8, _SHIFT_BITS)


def _blurred(white: np.ndarray, along: float, across: float) -> np.ndarray:
    """The noise, blurred and then scaled to a standard deviation of 1."""
    blurred = cv2.GaussianBlur(white, (0, 0), sigmaX=across, sigmaY=along)
    return np.asarray(blurred / blurred.std())


def _normalised(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean()) / values.std(), np.float32)
