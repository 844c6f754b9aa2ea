"""The paper's variations of a training frame: colour jitter, CLAHE, translation, rotation.

As its code has them: brightness and contrast within 20 % of their own and CLAHE, each for half of
the copies, then a translation of up to 20 % of the side and a rotation of up to 20 degrees of all.
Unlike `training.augment` these variations push the fan, and the abdomen, out of the image.
"""

import cv2
import numpy as np

# The paper's: a frame and two variations.
COPIES = 3
# Share of the image's side, to every side.
TRANSLATION = 0.2
ROTATION_DEG = 20.0
# Contrast and brightness are multiplied by 1 - JITTER to 1 + JITTER.
JITTER = 0.2
# Share of the copies that are jittered, and likewise of those that go through CLAHE.
SHARE_VARIED = 0.5
CLAHE_CLIP = (1.0, 4.0)
CLAHE_TILES = (8, 8)


def vary(
    frame: np.ndarray, mask: np.ndarray, generator: np.random.Generator, *, always: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Vary a frame; its mask is moved alike and keeps its values.

    Args:
        frame: (S, S) uint8.
        mask: (S, S) uint8.
        generator: of the random numbers.
        always: whether every frame is jittered and goes through CLAHE, and not half of them.

    Returns:
        Frame and mask, both (S, S) uint8.
    """
    size = frame.shape[0]
    jitters, equalises = generator.random(2) < SHARE_VARIED
    contrast, brightness = 1 + generator.uniform(-JITTER, JITTER, 2)
    clip = float(generator.uniform(*CLAHE_CLIP))
    motion = _motion(size, generator)
    if always or jitters:
        frame = _jittered(frame, contrast, brightness)
    if always or equalises:
        frame = cv2.createCLAHE(clip, CLAHE_TILES).apply(frame)
    varied = cv2.warpAffine(frame, motion, (size, size))
    return varied, cv2.warpAffine(mask, motion, (size, size), flags=cv2.INTER_NEAREST)


def _jittered(frame: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    mean = frame.mean()
    grey = ((frame.astype(np.float32) - mean) * contrast + mean) * brightness
    return np.asarray(grey.clip(0, 255), np.uint8)


def _motion(size: int, generator: np.random.Generator) -> np.ndarray:
    """(2, 3): a rotation about the centre, then a translation."""
    angle_deg = float(generator.uniform(-ROTATION_DEG, ROTATION_DEG))
    centre = ((size - 1) / 2, (size - 1) / 2)
    motion = np.array(cv2.getRotationMatrix2D(centre, angle_deg, 1.0), np.float64)
    motion[:, 2] += generator.uniform(-TRANSLATION, TRANSLATION, 2) * size
    return motion
