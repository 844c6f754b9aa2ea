"""The device of looks other than the plain one: from echo levels to a frame.

Gain, beam width, speckle and haze act on levels in dB; a convex gray map and the device's own
lookup make gray levels of them. Beam grids are (SAMPLES, BEAMS), row = depth, column = line.
"""

import cv2
import numpy as np

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE
from phantom import fields
from phantom.appearance import Appearance
from phantom.canvas import ANGLES_DEG, DEPTH_MM, DEPTH_STEP_MM, DEPTHS, LINES
from phantom.fields import SAMPLE_MM, Course
from phantom.speckle import BEAMS, SAMPLES
from phantom.styled import StyledCanvas
from phantom.ultrasound import DARK_DB, MOST_LOST_DB, fan_maps

# The device's last lookup, read off the histograms of seven public frames of the ACOUSLIC-AI
# training set: gray levels that two inputs give (they are twice as frequent as their neighbours),
# and those that none gives. All others come from one input.
TWICE = (
    1, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 17, 20, 21, 22, 24, 27, 29, 31, 35, 37, 39, 44, 46, 52,
    55, 63, 73, 80, 91,
)  # fmt: skip
NEVER = (
    12, 78, 89, 99, 111, 112, 124, 125, 133, 137, 139, 145, 151, 152, 155, 160, 164, 167, 168, 172,
    176, 180, 182, 183, 186, 190, 193, 196, 199, 200, 202, 205, 208, 211, 214, 216, 218, 219, 222,
    224, 227, 230, 232, 235, 236, 237, 240, 242, 244, 247, 249, 252, 253, 254,
)  # fmt: skip
LEVELS = np.repeat(np.arange(256), [(g not in NEVER) + (g in TWICE) for g in range(256)])
TOP = len(LEVELS) - 1  # the brightest input
LOOKUP = LEVELS[np.minimum(np.arange(256), TOP)].astype(np.uint8)

GAIN_FLAT_MM = 25.0  # down to here the gain makes up for all that is lost; as in `machine`
FAR_FROM_MM, FAR_OVER_MM = 95.0, 30.0  # where the far field comes up again; as in `machine`
NEAR_MM = 4.0  # the boost at the probe falls by a factor e over this depth
EDGE_FROM = 0.45  # of the half angle: from here on lines lose; as in `machine`
DEPTH_KNOTS, LINE_KNOTS = 6, 7  # of the gain's waves; chosen by eye
# Streaks: how they change from line to line and frame to frame, SDs of Gaussians; from this depth
# on, over this one. Chosen by eye.
STREAK_LINES, STREAK_FRAMES = 2.5, 2.0
STREAK_FROM_MM, STREAK_OVER_MM = 10.0, 80.0
# The knee lifts black by half its width; so much of the width is taken off again.
KNEE_OFFSET = 0.1
CONTACT_LINES = 4.0  # how softly contact ends, beside what the probe says; chosen by eye
# Above this share of the brightest input levels saturate: the brightest pixels of six real frames
# are 141 to 203, though the lookup goes to 255.
SHOULDER = 0.68
LEAST_INPUT = 1e-4  # above 0, of which no power is defined everywhere
CLUTTER_SOFT_DB = 4.0  # over so much haze passes into tissue
CLUTTER_FADE_DB, CLUTTER_FADE_MM = 10.0, 40.0  # as in `ultrasound`
SHADOW_LINES, SHADOW_KERNEL = 2.0, 9  # how soft shadows are, lines; chosen by eye
BLUR_ROWS = 0.6  # the pulse's length, rows of the coarse grid; chosen by eye
# Without contact: rings of this period below the probe, fading by a factor e over this depth, and
# spokes; the probe's own band. As two real frames without contact show them.
RING_MM, RING_FADE_MM = (2.2, 3.2), 32.0
NO_CONTACT_SPECKLE = 0.5  # of the speckle with contact
SPOKES_LINES, SPOKES_GRAY = 3.0, 9.0
BAND_GRAY, BAND_FADE_MM = 110.0, 26.0
HAZE_FADE_MM, HAZE_EDGE = 90.0, 0.7  # in depth, and how much less there is at the fan's edges
LEAST_TOUCH = 0.12  # share of the tissue's picture that a line without contact keeps
FIELD_MM = 2.5  # elevation over which fine echoes, strokes and layers change; chosen by eye


class Device:
    """Makes the frames of one scan."""

    def __init__(self, rng: np.random.Generator, appearance: Appearance) -> None:
        """Draw all that the frames share.

        Args:
            rng: the look's stream.
            appearance: the case's.
        """
        self._look = look = appearance
        self._speckle = fields.speckle(rng, look.speckle_mm, look.speckle_size)
        self._grain = fields.grain(rng, FIELD_MM)
        self._strokes = fields.strokes(rng, FIELD_MM)
        self._layers = fields.layers(rng, FIELD_MM)
        self._gain = _gain_db(rng, look)
        self._no_contact = _no_contact(rng, look)
        depth = np.arange(SAMPLES, dtype=np.float32)[:, None] * np.float32(SAMPLE_MM)
        self._layer_db = np.float32(look.layers_db) * np.exp(-depth / np.float32(look.layers_mm))
        self._clutter = _clutter_db(look)
        # Average tissue shall have the gray level `gray`: so bright an input the lookup needs.
        wanted = float(np.searchsorted(LEVELS, look.gray)) / TOP
        self._middle = np.float32(TOP * wanted ** (1 / look.convexity))

    def frame(
        self,
        rng: np.random.Generator,
        canvas: StyledCanvas,
        course: Course,
        at: int,
        contact_db: np.ndarray,
        streaks_db: np.ndarray,
    ) -> np.ndarray:
        """Make one frame.

        Args:
            rng: the frame's stream.
            canvas: its grids.
            course: the sweep's.
            at: the frame's number in the sweep.
            contact_db: (LINES,), the lines' gain by contact.
            streaks_db: (LINES,), what the beams lose on their way.

        Returns:
            (562, 744) uint8, 0 outside the fan.
        """
        look = self._look
        level = _fine(self._levels(canvas, streaks_db))
        level += _fine(canvas.grain) * self._grain.at(course, at)
        level += _fine(canvas.strokes) * self._strokes.at(course, at)
        level += self._layer_db * self._layers.at(course, at)
        level = _soft_maximum(level, self._clutter)
        speckle = np.float32(look.speckle_db) * self._speckle_at(rng, course, at)
        level += speckle
        level *= np.float32(look.gray_per_db)
        level += self._middle
        speckle *= np.float32(NO_CONTACT_SPECKLE * look.gray_per_db)
        touching = np.clip(1 - np.asarray(contact_db, np.float32) / DARK_DB, LEAST_TOUCH, 1)[None]
        touching = _fine(cv2.GaussianBlur(touching, (0, 0), CONTACT_LINES))
        no_contact = self._no_contact + speckle
        level = no_contact + touching * (level - no_contact)
        return _shown(level, look)

    def _levels(self, canvas: StyledCanvas, streaks_db: np.ndarray) -> np.ndarray:
        """Levels without fine structure, (DEPTHS, LINES) float32, dB."""
        lost = np.cumsum(canvas.attenuation, axis=0, dtype=np.float32)
        lost *= np.float32(2 * DEPTH_STEP_MM)  # the beam goes there and back
        np.minimum(lost, MOST_LOST_DB, out=lost)
        lost = np.asarray(cv2.GaussianBlur(lost, (SHADOW_KERNEL, 1), SHADOW_LINES))
        level = canvas.echo - lost + self._gain
        level -= np.clip((DEPTH_MM - STREAK_FROM_MM) / STREAK_OVER_MM, 0, 1) * streaks_db
        blurred = cv2.GaussianBlur(level, (0, 0), sigmaX=self._look.blur_lines, sigmaY=BLUR_ROWS)
        return np.asarray(blurred)

    def _speckle_at(self, rng: np.random.Generator, course: Course, at: int) -> np.ndarray:
        """The tissue's speckle, and some that is new in every frame."""
        carried, keys = self._speckle.at(course, at), self._speckle.keys
        top, left = (int(rng.integers(n)) for n in (fields.SPARE_ROWS, fields.SPARE_LINES))
        new = keys[int(rng.integers(fields.KEYS)), top : top + SAMPLES, left : left + BEAMS]
        share = self._look.anew
        carried *= np.float32(np.sqrt(1 - share))
        return carried + np.float32(np.sqrt(share)) * new


def sample_streaks(rng: np.random.Generator, appearance: Appearance, frames: int) -> np.ndarray:
    """Draw what the beams of a sweep's frames lose on their way, (N, LINES) float32 dB."""
    white = rng.standard_normal((frames, LINES), np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), sigmaX=STREAK_LINES, sigmaY=STREAK_FRAMES)
    return np.asarray(smooth / smooth.std() * np.float32(appearance.streaks_db))


def _fine(coarse: np.ndarray) -> np.ndarray:
    return cv2.resize(coarse, (BEAMS, SAMPLES), interpolation=cv2.INTER_LINEAR)


def _soft_maximum(level: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """The larger of two, with a soft passage."""
    gap = level - floor
    return np.asarray(floor + 0.5 * (gap + np.sqrt(gap * gap + np.float32(CLUTTER_SOFT_DB**2))))


def _shown(level: np.ndarray, look: Appearance) -> np.ndarray:
    """Bend levels into black and white, map them to the lookup's inputs, and make the fan."""
    knee = np.float32(look.knee)
    bent = 0.5 * (level + np.sqrt(level * level + knee * knee)) - np.float32(KNEE_OFFSET) * knee
    bent *= np.float32(1 / TOP)
    excess = np.maximum(bent - np.float32(SHOULDER), 0)
    bent -= excess * excess / (excess + np.float32(1 - SHOULDER))
    np.clip(bent, LEAST_INPUT, 1, out=bent)
    cv2.pow(bent, look.convexity, bent)
    bent *= np.float32(TOP)
    beams = bent.astype(np.uint8)
    frame = np.zeros(FRAME_SHAPE, np.uint8)
    for strip, fine, coarse in _STRIPS:
        shown = cv2.remap(beams, fine, coarse, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        frame[strip] = cv2.LUT(shown, LOOKUP)
    return frame


def _gain_db(rng: np.random.Generator, look: Appearance) -> np.ndarray:
    """The gain by depth and line, (DEPTHS, LINES) float32 dB."""
    across = np.abs(ANGLES_DEG / ANGLES_DEG[-1])[None]
    gain = -look.loss_db_mm * np.maximum(DEPTH_MM - GAIN_FLAT_MM, 0)
    gain = gain + look.near_db * np.exp(-DEPTH_MM / NEAR_MM)
    gain = gain + look.far_db * np.clip((DEPTH_MM - FAR_FROM_MM) / FAR_OVER_MM, 0, 1)
    gain = gain - look.edge_db * (np.clip(across - EDGE_FROM, 0, 1) / (1 - EDGE_FROM)) ** 2
    down = cv2.resize(
        rng.normal(0, look.waves_db, (DEPTH_KNOTS, 1)), (1, DEPTHS), interpolation=cv2.INTER_CUBIC
    )
    side = cv2.resize(
        rng.normal(0, look.waves_db, (1, LINE_KNOTS)), (LINES, 1), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(gain + down.reshape(-1, 1) + side.reshape(1, -1), np.float32)


def _clutter_db(look: Appearance) -> np.ndarray:
    """What haze puts even into fluid, by depth, (SAMPLES, 1) float32 dB."""
    depth = np.arange(SAMPLES)[:, None] * SAMPLE_MM
    fade = CLUTTER_FADE_DB * (1 - np.exp(-depth / CLUTTER_FADE_MM))
    return np.asarray(look.clutter_db - fade, np.float32)


def _no_contact(rng: np.random.Generator, look: Appearance) -> np.ndarray:
    """What lines without contact show, (SAMPLES, BEAMS) float32, before the gray map."""
    depth = np.arange(SAMPLES)[:, None] * SAMPLE_MM
    rings = np.sin(2 * np.pi * depth / rng.uniform(*RING_MM)) * np.exp(-depth / RING_FADE_MM)
    spokes = cv2.GaussianBlur(rng.normal(0, 1, (1, BEAMS)), (0, 0), SPOKES_LINES).reshape(1, -1)
    spokes = spokes / spokes.std() * SPOKES_GRAY * np.exp(-depth / RING_FADE_MM)
    band = BAND_GRAY * np.exp(-depth / BAND_FADE_MM)
    across = np.linspace(-1, 1, BEAMS)[None]
    haze = look.haze_gray * np.exp(-depth / HAZE_FADE_MM) * (1 - HAZE_EDGE * across**2)
    return np.asarray(band + haze + look.ring_gray * rings + spokes, np.float32)


def _strips(count: int) -> list[tuple[tuple[slice, slice], np.ndarray, np.ndarray]]:
    """The fan in strips of rows, each as wide as it has to be, with their maps."""
    fine, coarse = fan_maps()
    fan, strips = CHALLENGE_FAN.mask(), []
    for rows in np.array_split(np.arange(FRAME_SHAPE[0]), count):
        columns = np.flatnonzero(fan[rows].any(axis=0))
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        maps = (np.ascontiguousarray(fine[window]), np.ascontiguousarray(coarse[window]))
        strips.append((window, *maps))
    return strips


_STRIPS = _strips(32)  # a third of the time of one remap over the whole frame
