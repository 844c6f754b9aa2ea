"""The paper's variations of a training frame: colour jitter, CLAHE, translation, rotation.

The paper gives the last two ranges (20 %, 20 degrees); the jitter's and CLAHE's are ours. Unlike
`training.augment` they push the fan out of the image, which is what the paper did.
"""

import cv2
import numpy as np

TRANSLATION = 0.2
ROTATION_DEG = 20.0
JITTER = 0.2
CLAHE_CLIP = (1.0, 4.0)
CLAHE_TILES = (8, 8)


def vary(
    frame: np.ndarray, mask: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A variation of a frame and its mask, both (S, S) uint8; the mask is only moved."""
    size = frame.shape[0]
    contrast, brightness = 1 + generator.uniform(-JITTER, JITTER, 2)
    clahe = cv2.createCLAHE(float(generator.uniform(*CLAHE_CLIP)), CLAHE_TILES)
    angle_deg = float(generator.uniform(-ROTATION_DEG, ROTATION_DEG))
    centre = ((size - 1) / 2, (size - 1) / 2)
    where = cv2.getRotationMatrix2D(centre, angle_deg, 1.0)
    where[:, 2] += generator.uniform(-TRANSLATION, TRANSLATION, 2) * size
    jittered = (frame.astype(np.float32) - frame.mean()) * contrast + frame.mean()
    jittered = (jittered * brightness).clip(0, 255).astype(np.uint8)
    moved = [cv2.warpAffine(each, where, (size, size)) for each in (clahe.apply(jittered), mask)]
    return moved[0], moved[1]
