"""Cached phantoms whose frames are not rendered: grey where the abdomen is annotated, else dark."""

from pathlib import Path

import numpy as np

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.metaimage import Geometry
from acouslic.stack import Stack
from dataset.cache import store_case
from dataset.labels import Labels
from phantom.dataset import case_name
from phantom.render import mask_frame
from phantom.truth import truth


def store_unrendered(folder: Path, seed: int, number: int, size: int) -> str:
    """Put a phantom into a cache that is not finished yet, and return its uuid."""
    case = truth(seed, number)
    name, quality = case_name(seed, number), case.quality()
    labels = np.zeros((len(quality), *FRAME_SHAPE), np.uint8)
    for frame in np.flatnonzero(quality):
        labels[frame] = mask_frame(case, int(frame))
    frames = np.where(labels > 0, np.uint8(200), np.uint8(20)) * CHALLENGE_FAN.mask()
    frames[~case.tissue()] = 0
    geometry = Geometry.plain(SPACING_MM)
    store_case(
        folder,
        Stack(name, frames, geometry),
        Labels.from_volume(labels),
        subject=f"s{number}",
        ac_mm=[200.0] * 6,
        size=size,
        fingerprint="",
    )
    return name
