"""The paper's variations of a training frame: colour jitter, CLAHE, translation, rotation.

The paper gives the ranges of the last two (20 %, 20 degrees), but not those of jitter and CLAHE,
which are ours. Unlike `training.augment` these variations push the fan out of the image, as the
paper's did.
"""

import cv2
import numpy as np

# Share of the image's side, to every side.
TRANSLATION = 0.2
ROTATION_DEG = 20.0
# Contrast and brightness are multiplied by 1 - JITTER to 1 + JITTER.
JITTER = 0.2
CLAHE_CLIP = (1.0, 4.0)
CLAHE_TILES = (8, 8)


def vary(
    frame: np.ndarray, mask: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Vary a frame; its mask is moved alike and keeps its values.

    Args:
        frame: (S, S) uint8.
        mask: (S, S) uint8.
        generator: of the random numbers.

    Returns:
        Frame and mask, both (S, S) uint8.
    """
    size = frame.shape[0]
    contrast, brightness = 1 + generator.uniform(-JITTER, JITTER, 2)
    clahe = cv2.createCLAHE(float(generator.uniform(*CLAHE_CLIP)), CLAHE_TILES)
    angle_deg = float(generator.uniform(-ROTATION_DEG, ROTATION_DEG))
    centre = ((size - 1) / 2, (size - 1) / 2)
    motion = cv2.getRotationMatrix2D(centre, angle_deg, 1.0)
    motion[:, 2] += generator.uniform(-TRANSLATION, TRANSLATION, 2) * size
    jittered = (frame.astype(np.float32) - frame.mean()) * contrast + frame.mean()
    jittered = (jittered * brightness).clip(0, 255).astype(np.uint8)
    varied = cv2.warpAffine(clahe.apply(jittered), motion, (size, size))
    return varied, cv2.warpAffine(mask, motion, (size, size))
