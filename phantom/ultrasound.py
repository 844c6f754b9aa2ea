"""From echo levels to a frame: attenuation, gain, speckle, log compression and the fan.

Beam grids are (SAMPLES, BEAMS), row = depth, column = line. A frame is (562, 744) uint8. Values
were chosen by eye, unless a comment says otherwise.
"""

import cv2
import numpy as np

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE
from phantom.canvas import DEPTH_STEP_MM, DEPTHS
from phantom.machine import Machine, sample_profile
from phantom.speckle import BEAMS, FIELDS, SAMPLES, SPARE_BEAMS, speckle_field

MOST_LOST_DB = 38.0  # behind the densest bone clutter is left
# Clutter is strong near the probe and fades: by how much in all, and depth for a factor e of it.
CLUTTER_FADE_DB, CLUTTER_FADE_MM = 10.0, 40.0
# The beam is wider away from its focus: of levels blurred by these standard deviations (lines and
# rows of the coarse grid), a share that grows with depth.
BLUR_LINES, BLUR_ROWS = 1.7, 0.8
BLUR_SHARE_NEAR, BLUR_SHARE_FAR = 0.1, 1.0
# A line whose contact gain falls to this loses all but a band at the probe.
DARK_DB = -34.0
BAND_SAMPLES = 22.0  # over so many the band fades by a factor e
BAND_LEAST = 0.35  # share of the band that stays without any contact
# The knee lifts black by half its width; so much of the width is taken off again.
KNEE_OFFSET = 0.08
BLACK, WHITE = 0, 255
_OUTSIDE_THE_FAN = -9  # an index that no sample has: cv2.remap makes it black


class Picture:
    """Makes the frames of one scan; the fields of speckle are drawn once."""

    def __init__(self, rng: np.random.Generator, machine: Machine) -> None:
        """Draw the speckle and the gain's profile.

        Args:
            rng: the picture's stream.
            machine: the scan's settings.
        """
        self._machine = machine
        self._speckle = [speckle_field(rng) for _ in range(FIELDS)]
        self._profile = sample_profile(rng, machine)
        self._clutter = _clutter(machine)
        self._blurred_share = np.linspace(
            BLUR_SHARE_NEAR, BLUR_SHARE_FAR, DEPTHS, dtype=np.float32
        )[:, None]

    def frame(
        self,
        rng: np.random.Generator,
        echo: np.ndarray,
        attenuation: np.ndarray,
        contact_db: np.ndarray,
    ) -> np.ndarray:
        """Make one frame.

        Args:
            rng: the frame's stream.
            echo: (DEPTHS, LINES) float32, dB.
            attenuation: (DEPTHS, LINES) float32, dB per mm.
            contact_db: (LINES,), the lines' gain by contact.

        Returns:
            (562, 744) uint8, 0 outside the fan.
        """
        machine = self._machine
        coarse = self._levels(echo, attenuation)
        level: np.ndarray = cv2.resize(coarse, (BEAMS, SAMPLES), interpolation=cv2.INTER_LINEAR)
        shift = int(rng.integers(SPARE_BEAMS))
        speckle = self._speckle[int(rng.integers(FIELDS))][:, shift : shift + BEAMS]
        level += speckle * np.float32(machine.speckle_gray)
        gray = _knee(level, machine.knee_gray) * _touching(contact_db)
        return _scan_convert(np.clip(gray, BLACK, WHITE).astype(np.uint8))

    def _levels(self, echo: np.ndarray, attenuation: np.ndarray) -> np.ndarray:
        """Gray levels without speckle, (DEPTHS, LINES) float32."""
        # The beam goes there and back.
        lost = np.cumsum(attenuation, axis=0, dtype=np.float32) * np.float32(2 * DEPTH_STEP_MM)
        np.minimum(lost, MOST_LOST_DB, out=lost)
        level = np.maximum(echo - lost, self._clutter) * np.float32(self._machine.gray_per_db)
        level += self._profile
        blurred = cv2.GaussianBlur(level, (0, 0), sigmaX=BLUR_LINES, sigmaY=BLUR_ROWS)
        return np.asarray(level + self._blurred_share * (blurred - level))


def _clutter(machine: Machine) -> np.ndarray:
    """What side lobes and reverberation put even into fluid, by depth, (DEPTHS, 1) float32."""
    depth = np.arange(DEPTHS, dtype=np.float32)[:, None] * np.float32(DEPTH_STEP_MM)
    fade = CLUTTER_FADE_DB * (1 - np.exp(-depth / CLUTTER_FADE_MM))
    return np.asarray(np.float32(machine.clutter_db) - fade, np.float32)


def _touching(contact_db: np.ndarray) -> np.ndarray:
    """Factor on the gray levels for each line's contact, (SAMPLES, BEAMS)."""
    gain = np.clip(1 - np.asarray(contact_db, np.float32) / DARK_DB, 0, 1)
    lines = cv2.resize(gain[None], (BEAMS, 1), interpolation=cv2.INTER_LINEAR)
    band = np.exp(-np.arange(SAMPLES, dtype=np.float32) / BAND_SAMPLES)[:, None]
    return np.asarray(np.maximum(lines, band * (BAND_LEAST + (1 - BAND_LEAST) * lines)))


def _knee(level: np.ndarray, width: float) -> np.ndarray:
    """Bend levels softly into the black: the noise floor of a log-compressed picture."""
    bent = 0.5 * (level + np.sqrt(level * level + np.float32(width * width)))
    return np.asarray(bent - np.float32(KNEE_OFFSET * width))


def fan_maps() -> tuple[np.ndarray, np.ndarray]:
    """For every pixel the place on the beam grid that it shows, as cv2.remap wants it."""
    fan = CHALLENGE_FAN
    rows, columns = np.indices(FRAME_SHAPE, dtype=np.float64)
    x, y = columns - fan.apex_x_px, rows - fan.apex_y_px
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(x, y))
    beam = (angle / fan.half_angle_deg + 1) / 2 * (BEAMS - 1)
    sample = (radius - fan.near_px) / (fan.far_px - fan.near_px) * (SAMPLES - 1)
    outside = ~fan.mask()
    beam[outside] = sample[outside] = _OUTSIDE_THE_FAN
    return cv2.convertMaps(beam.astype(np.float32), sample.astype(np.float32), cv2.CV_16SC2)


_MAP_FINE, _MAP_COARSE = fan_maps()


def _scan_convert(beams: np.ndarray) -> np.ndarray:
    return np.asarray(
        cv2.remap(
            beams,
            _MAP_FINE,
            _MAP_COARSE,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=BLACK,
        )
    )
