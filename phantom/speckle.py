"""Speckle: fields of log-compressed noise, as fine as the machine's beam is."""

import cv2
import numpy as np

SAMPLES, BEAMS = 512, 208  # the picture's grid before the fan is made; chosen by eye
FIELDS = 10  # drawn for each scan; chosen by eye
# A field has this many lines more than a frame: every frame takes another part of it.
SPARE_BEAMS = 160
LOOKS = 2  # averaged, as a compounding machine does; chosen by eye

# The point-spread function: standard deviations along and across the beam, in samples and lines.
# It widens with depth and away from the focus. Fitted to two real frames.
NARROW, MIDDLE, WIDE = (0.75, 1.1), (0.85, 1.6), (1.0, 2.4)
# Narrow passes into middle down to this share of the depth, and middle into wide from this one on.
NARROW_TO, WIDE_FROM = 0.35, 0.45
# A few strong reflectors stand out as short bright strokes: their share, and their amplitude.
# Chosen by eye.
REFLECTOR_SHARE, REFLECTOR_AMPLITUDE = 0.0015, 6
LEAST_POWER = 0.05  # keeps the logarithm from falling without end; chosen by eye


def speckle_field(rng: np.random.Generator) -> np.ndarray:
    """Draw log-compressed speckle of mean 0 and standard deviation 1 at every depth.

    Complex white noise is blurred with the point-spread function; its power is added up over looks.

    Returns:
        (SAMPLES, BEAMS + SPARE_BEAMS) float32.
    """
    power = np.zeros((SAMPLES, BEAMS + SPARE_BEAMS), np.float32)
    for _ in range(2 * LOOKS):  # each with a real and an imaginary part
        amplitude = _amplitude(rng)
        power += amplitude * amplitude
    log = np.log(power + LEAST_POWER)
    log -= log.mean(axis=1, keepdims=True)
    return np.asarray(log / log.std(axis=1, keepdims=True), np.float32)


def _amplitude(rng: np.random.Generator) -> np.ndarray:
    shape = (SAMPLES, BEAMS + SPARE_BEAMS)
    white = rng.standard_normal(shape, np.float32)
    white *= 1 + (REFLECTOR_AMPLITUDE - 1) * (rng.random(shape, np.float32) < REFLECTOR_SHARE)
    narrow, middle, wide = (_blurred(white, *spread) for spread in (NARROW, MIDDLE, WIDE))
    depth = np.linspace(0, 1, SAMPLES, dtype=np.float32)[:, None]
    near = np.clip(1 - depth / NARROW_TO, 0, 1)
    far = np.clip((depth - WIDE_FROM) / (1 - WIDE_FROM), 0, 1)
    return np.asarray(near * narrow + (1 - near - far) * middle + far * wide)


def _blurred(white: np.ndarray, along: float, across: float) -> np.ndarray:
    """The noise, blurred and then scaled to a standard deviation of 1."""
    blurred = cv2.GaussianBlur(white, (0, 0), sigmaX=across, sigmaY=along)
    return np.asarray(blurred / blurred.std())
