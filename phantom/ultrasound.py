"""From echo levels to a frame: attenuation, gain, speckle, log compression and the fan.

Beam grids are (SAMPLES, BEAMS), row = depth, column = line. A frame is (562, 744) uint8.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE
from phantom.canvas import ANGLES_DEG, DEPTH_STEP_MM, DEPTHS

SAMPLES, BEAMS = 512, 208
_FIELDS = 10
# A speckle field has this many lines more than a frame: every frame takes another part of it.
_SPARE = 160


@dataclass(frozen=True)
class Machine:
    """Settings of one scan: gray levels per dB, gain, depth gain, speckle contrast, clutter."""

    gray_per_db: float
    gain_gray: float
    loss_db_mm: float
    near_boost_gray: float
    speckle_gray: float
    edge_loss_db: float
    clutter_db: float
    reverberation_gray: float
    knee_gray: float


class Picture:
    """Makes the frames of one scan; the speckle's fields are drawn once."""

    def __init__(self, rng: np.random.Generator, machine: Machine) -> None:
        self._machine = machine
        self._speckle = [_speckle_field(rng) for _ in range(_FIELDS)]
        self._profile = _depth_profile(rng, machine)
        # The beam is wider away from its focus: blur more the deeper.
        self._far = np.linspace(0.1, 1, DEPTHS, dtype=np.float32)[:, None]

    def frame(
        self,
        rng: np.random.Generator,
        echo: np.ndarray,
        attenuation: np.ndarray,
        contact_db: np.ndarray,
    ) -> np.ndarray:
        """One frame from its tissue grids (DEPTHS, LINES) and its lines' contact (LINES,), (562,
        744) uint8.
        """
        machine = self._machine
        lost = np.cumsum(attenuation, axis=0, dtype=np.float32) * np.float32(2 * DEPTH_STEP_MM)
        np.minimum(lost, 38.0, out=lost)
        level = np.maximum(echo - lost, self._clutter(echo.shape[1])) * np.float32(
            machine.gray_per_db
        )
        level += self._profile
        level += self._far * (cv2.GaussianBlur(level, (0, 0), sigmaX=1.7, sigmaY=0.8) - level)
        level = cv2.resize(level, (BEAMS, SAMPLES), interpolation=cv2.INTER_LINEAR)
        shift = int(rng.integers(_SPARE))
        speckle = self._speckle[int(rng.integers(_FIELDS))][:, shift : shift + BEAMS]
        level += speckle * np.float32(machine.speckle_gray)
        gray = _knee(level, machine.knee_gray) * _touching(contact_db)
        return _scan_convert(np.clip(gray, 0, 255).astype(np.uint8))

    def _clutter(self, lines: int) -> np.ndarray:
        """What side lobes and reverberation put even into fluid: strong near the probe, fading with
        depth.
        """
        depth = np.arange(DEPTHS, dtype=np.float32)[:, None] * np.float32(DEPTH_STEP_MM)
        return np.asarray(
            np.float32(self._machine.clutter_db) - 10 * (1 - np.exp(-depth / 40)), np.float32
        )


def sample_machine(rng: np.random.Generator, haze: float) -> Machine:
    """The settings of one scan; haze (0..1) fills the fluid with clutter, flattens contrast, costs
    depth.
    """
    clear = Machine(
        gray_per_db=float(rng.uniform(2.5, 3.3)),
        gain_gray=float(np.clip(rng.normal(87, 11), 58, 114)),
        loss_db_mm=float(rng.uniform(0.08, 0.17)),
        near_boost_gray=float(rng.uniform(5, 25)),
        speckle_gray=float(rng.uniform(10.5, 13.5)),
        edge_loss_db=float(rng.uniform(2, 8)),
        clutter_db=float(rng.uniform(-20, -11)),
        reverberation_gray=float(rng.uniform(3, 9)),
        knee_gray=float(rng.uniform(8, 16)),
    )
    return replace(
        clear,
        gray_per_db=clear.gray_per_db * (1 - 0.25 * haze),
        loss_db_mm=clear.loss_db_mm + 0.05 * haze,
        clutter_db=clear.clutter_db + haze * (-5.0 - clear.clutter_db),
        speckle_gray=clear.speckle_gray * (1 + 0.2 * haze),
    )


def _depth_profile(rng: np.random.Generator, machine: Machine) -> np.ndarray:
    """Gray level of average tissue by depth and line, (DEPTHS, LINES) float32."""
    depth = np.arange(DEPTHS)[:, None] * DEPTH_STEP_MM
    edge = (np.abs(ANGLES_DEG) / ANGLES_DEG[-1])[None]
    profile = machine.gain_gray - machine.gray_per_db * machine.loss_db_mm * np.maximum(
        depth - 25, 0
    )
    # The TGC's last sliders stand a little higher: the far field comes up again.
    profile = profile + rng.uniform(0, 16) * np.clip((depth - 95) / 30, 0, 1)
    profile = profile + machine.near_boost_gray * np.exp(-depth / 4)
    ring = np.sin(2 * np.pi * depth / rng.uniform(1.6, 3.2)) * np.exp(-depth / 5)
    side = -machine.edge_loss_db * machine.gray_per_db * np.clip(edge - 0.45, 0, 1) ** 2 / 0.3
    slant = rng.normal(0, 5) * (ANGLES_DEG / ANGLES_DEG[-1])[None]
    lines = np.cumsum(rng.normal(0, 1, ANGLES_DEG.size))
    ripple = 2.0 * (lines - lines.mean())[None] / max(float(lines.std()), 1e-6)
    return np.asarray(
        profile
        + machine.reverberation_gray * ring
        + (side * np.clip(depth / 40, 0, 1.5))
        + slant
        + ripple,
        np.float32,
    )


def _speckle_field(rng: np.random.Generator) -> np.ndarray:
    """Log-compressed speckle of unit spread, (SAMPLES, BEAMS + _SPARE) float32.

    Complex white noise is blurred with a point-spread function that widens with depth and away from
    the focus; two looks are averaged, as a compounding machine does.
    """
    width = BEAMS + _SPARE
    power = np.zeros((SAMPLES, width), np.float32)
    depth = np.linspace(0, 1, SAMPLES, dtype=np.float32)[:, None]
    for _ in range(2):
        for _ in range(2):
            white = rng.standard_normal((SAMPLES, width), np.float32)
            # A few strong reflectors stand out as short bright strokes.
            white *= 1 + 5 * (rng.random((SAMPLES, width), np.float32) < 0.0015)
            narrow, middle, wide = (
                _unit(_blur(white, a, b)) for a, b in ((0.75, 1.1), (0.85, 1.6), (1.0, 2.4))
            )
            near, far = np.clip(1 - depth / 0.35, 0, 1), np.clip((depth - 0.45) / 0.55, 0, 1)
            part = near * narrow + (1 - near - far) * middle + far * wide
            power += part * part
    log = np.log(power + 0.05)
    log -= log.mean(axis=1, keepdims=True)
    return np.asarray(log / log.std(axis=1, keepdims=True), np.float32)


def _blur(white: np.ndarray, axial: float, lateral: float) -> np.ndarray:
    return cv2.GaussianBlur(white, (0, 0), sigmaX=lateral, sigmaY=axial)


def _unit(field: np.ndarray) -> np.ndarray:
    return np.asarray(field / field.std())


def _touching(contact_db: np.ndarray) -> np.ndarray:
    """Factor on the gray levels where lines lose contact: only the band at the probe is left,
    (SAMPLES, BEAMS).
    """
    gain = np.clip(1 + np.asarray(contact_db, np.float32) / 34, 0, 1)
    lines = cv2.resize(gain[None], (BEAMS, 1), interpolation=cv2.INTER_LINEAR)
    band = np.exp(-np.arange(SAMPLES, dtype=np.float32) / 22)[:, None]
    return np.asarray(np.maximum(lines, band * (0.35 + 0.65 * lines)))


def _knee(level: np.ndarray, width: float) -> np.ndarray:
    """Bend levels softly into the black: the noise floor of a log-compressed picture."""
    return np.asarray(
        0.5 * (level + np.sqrt(level * level + np.float32(width * width)))
        - np.float32(0.08 * width)
    )


def _fan_maps() -> tuple[np.ndarray, np.ndarray]:
    fan = CHALLENGE_FAN
    rows, columns = np.indices(FRAME_SHAPE, dtype=np.float64)
    x, y = columns - fan.apex_x_px, rows - fan.apex_y_px
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(x, y))
    beam = (angle / fan.half_angle_deg + 1) / 2 * (BEAMS - 1)
    sample = (radius - fan.near_px) / (fan.far_px - fan.near_px) * (SAMPLES - 1)
    outside = ~fan.mask()
    beam[outside] = sample[outside] = -9
    return cv2.convertMaps(beam.astype(np.float32), sample.astype(np.float32), cv2.CV_16SC2)


_MAP_FINE, _MAP_COARSE = _fan_maps()


def _scan_convert(beams: np.ndarray) -> np.ndarray:
    return np.asarray(
        cv2.remap(
            beams,
            _MAP_FINE,
            _MAP_COARSE,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
    )
