"""Frames and outlines as pages hold them: small WebP pictures, and lines drawn over them.

A strip has several frames below each other. A browser decodes one in some milliseconds, when the
first of its frames is wanted.
"""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

# Widths in pixels and WebP's qualities, from the best to the smallest. The first width is two
# thirds of a frame's, about as wide as the page shows it: 840 frames of a phantom then take 5 MB,
# and of the public pictures of real frames 840 would take less. The last ones are for noise.
GRADES = ((496, 55), (496, 35), (372, 35), (372, 20), (248, 15))
# In all, so that with base64's third more a page stays below 15 MB whatever the frames show.
MOST_BYTES = 10_500_000
# A strip then has 1.9 megapixels, which a laptop decodes in about 10 ms.
FRAMES_A_STRIP = 10
# How far a drawn outline may lie from the real one; a page shows frames smaller than they are.
OUTLINE_TOLERANCE_PX = 0.7
# Of WebP's 0 to 6: above this a strip takes twice the time and saves 3 %.
EFFORT = 3


@dataclass(frozen=True)
class Strips:
    """All frames of a stack, in order."""

    width_px: int
    """Width of a frame."""
    height_px: int
    """Height of a frame."""
    frames_a_strip: int
    """Frames of every strip but the last."""
    data: tuple[bytes, ...]
    """The strips' WebP files."""

    @property
    def base64(self) -> list[str]:
        """The strips' files as text for a page."""
        return [base64.b64encode(data).decode() for data in self.data]


def make_strips(frames: np.ndarray, *, most_bytes: int = MOST_BYTES) -> Strips:
    """Compress all frames of a stack, in as good a quality as there is room for.

    Args:
        frames: (T, H, W) uint8.
        most_bytes: what all strips may take together; only the last grade may take more.
    """
    with ThreadPoolExecutor() as pool:
        for width, quality in GRADES:
            height = round(frames.shape[1] * width / frames.shape[2])
            starts = range(0, len(frames), FRAMES_A_STRIP)
            made = pool.map(
                lambda first, size=(width, height), quality=quality: webp(
                    _stacked(frames[first : first + FRAMES_A_STRIP], size), quality
                ),
                starts,
            )
            data = tuple(made)
            if sum(map(len, data)) <= most_bytes:
                break
    return Strips(width, height, FRAMES_A_STRIP, data)


def webp(grey: np.ndarray, quality: int) -> bytes:
    """An (H, W) uint8 picture as a WebP file.

    Args:
        grey: the picture.
        quality: 0 to 100.
    """
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "WEBP", quality=quality, method=EFFORT)
    return file.getvalue()


def polygons(mask: np.ndarray) -> list[list[int]]:
    """The borders of a mask, (H, W) bool: x and y of each corner in turn, in pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    corners = (cv2.approxPolyDP(line, OUTLINE_TOLERANCE_PX, True) for line in contours)
    return [np.asarray(line, int).ravel().tolist() for line in corners]


def _stacked(frames: Sequence[np.ndarray] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    return np.concatenate(small)
