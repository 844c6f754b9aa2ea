"""Some frames of many phantoms, for the foundation stage: variety is worth more than whole stacks.

A whole stack takes as long as twelve times 64 frames, and most of it is alike.
"""

from pathlib import Path

import numpy as np

from acouslic.challenge import FRAME_SHAPE, FRAMES, SPACING_MM
from acouslic.metaimage import Geometry
from acouslic.stack import Stack
from dataset.cache import has_case, store_case
from dataset.labels import Labels
from phantom.dataset import case_name, subject_name
from phantom.look import Look
from phantom.render import Renderer, mask_frame
from phantom.truth import Sight, Truth, truth

# Shares of a case's frames that are annotated; not, with the abdomen well in view; with a part of
# it; without it. The last takes what the others lack.
ANNOTATED, WELL, PARTLY = 0.42, 0.14, 0.16


def choose_frames(known: Truth, count: int) -> np.ndarray:
    """Choose frames of a case by what they show, ascending indices; black ones never.

    Args:
        known: the case.
        count: how many, or all that show tissue where those are fewer.
    """
    rng = np.random.default_rng([known.seed, known.case])
    quality, sight = known.quality(), known.sight()
    groups = (
        (quality > 0, ANNOTATED),
        ((quality == 0) & (sight == Sight.WELL), WELL),
        (sight == Sight.PARTLY, PARTLY),
    )
    order = rng.permutation(np.flatnonzero(known.tissue()))
    chosen: list[int] = []
    for flags, share in groups:
        chosen += order[flags[order]][: round(share * count)].tolist()
    rest = order[(sight[order] == Sight.NONE)]
    return np.sort(np.concatenate([chosen, rest[: count - len(chosen)]]).astype(int))


def add_frames(case: int, *, folder: Path, seed: int, look: Look, count: int, size: int) -> None:
    """Put some frames of a phantom into a cache, unless it is there.

    Args:
        case: its number.
        folder: the cache.
        seed: the data set's seed.
        look: how the frames are rendered.
        count: how many frames.
        size: side of the cached frames in pixels.
    """
    name, fingerprint = case_name(seed, case), f"{count} frames, {look.value}"
    if has_case(folder, name, size=size, fingerprint=fingerprint):
        return
    known = truth(seed, case)
    chosen = choose_frames(known, count)
    frames = np.zeros((FRAMES, *FRAME_SHAPE), np.uint8)
    frames[chosen] = Renderer(known, look).frames(chosen.tolist())
    masks = {int(frame): mask_frame(known, int(frame)) for frame in chosen}
    labels = Labels(
        FRAMES, FRAME_SHAPE, {frame: mask for frame, mask in masks.items() if mask.any()}
    )
    store_case(
        folder,
        Stack(name, frames, Geometry.plain(SPACING_MM)),
        labels,
        subject=subject_name(seed, known.subject),
        ac_mm=[np.nan if label.ac_mm is None else label.ac_mm for label in known.labels],
        size=size,
        fingerprint=fingerprint,
    )
