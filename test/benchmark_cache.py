"""A small training cache made in a test: bright discs are abdomens, each sweep ends in black."""

from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from acouslic import files
from acouslic.challenge import FRAME_SHAPE
from acouslic.metaimage import Geometry
from acouslic.stack import Stack
from benchmark.images import IMAGES, REFERENCE, write_case
from benchmark.options import ImageOptions
from dataset.cache import Cache, finish_cache, open_cache, store_case
from dataset.labels import Labels

SIZE = 32
SHAPE = (24, 32)
FRAMES_PER_SWEEP = 10
BLACK_PER_SWEEP = 2
SWEEPS = 6


def write_cache(
    folder: Path,
    n_cases: int,
    *,
    first: int = 0,
    subjects: int | None = None,
    of_full_size: bool = False,
) -> Cache:
    """Cases of 60 frames; sweep 1 (and in every second case sweep 2) has an AC and annotated frames
    3 to 6, the middle two of them optimal but in every third case. The paper's images lie beside,
    but not where frames are of the challenge's own size, as judging needs them.
    """
    uuids = []
    for number in range(first, first + n_cases):
        annotated_sweeps = 1 + number % 2
        frames, labels = _stack(number, annotated_sweeps)
        if of_full_size:
            frames, labels = _enlarged(frames), _enlarged(labels)
        uuid = f"case-{number:03d}"
        geometry = Geometry((0.28,) * 3, (0.0,) * 3, (1, 0, 0, 0, 1, 0, 0, 0, 1))
        stack, annotation = Stack(uuid, frames, geometry), Labels.from_volume(labels)
        store_case(
            folder,
            stack,
            annotation,
            subject=f"subject-{number % (subjects or n_cases):03d}",
            ac_mm=[250.0 if sweep < annotated_sweeps else np.nan for sweep in range(SWEEPS)],
            size=SIZE,
            fingerprint="test",
        )
        uuids.append(uuid)
        if of_full_size:
            continue
        has_ac = np.arange(SWEEPS) < annotated_sweeps
        (folder / REFERENCE / uuid).mkdir(parents=True)
        write_case(
            folder / REFERENCE / uuid, stack, annotation, has_ac, size=SIZE, options=ImageOptions()
        )
    files.write_json(folder / REFERENCE / IMAGES, asdict(ImageOptions()))
    finish_cache(folder, uuids, SIZE, simulated=True)
    return open_cache(folder)


def _enlarged(frames: np.ndarray) -> np.ndarray:
    rows, columns = FRAME_SHAPE
    nearest = cv2.INTER_NEAREST
    return np.stack([cv2.resize(x, (columns, rows), interpolation=nearest) for x in frames])


def _stack(number: int, annotated_sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    shape = (SWEEPS, FRAMES_PER_SWEEP, *SHAPE)
    frames = generator.integers(1, 90, shape, dtype=np.uint8)
    labels = np.zeros(shape, np.uint8)
    y, x = np.indices(SHAPE)
    disc = np.hypot(y - 12, x - 16) < 8
    for sweep in range(annotated_sweeps):
        for frame in range(3, 7):
            optimal = frame in (4, 5) and number % 3 != 0
            frames[sweep, frame][disc] = 240 if optimal else 190
            labels[sweep, frame][disc] = 1 if optimal else 2
    frames[:, -BLACK_PER_SWEEP:] = 0
    return frames.reshape(-1, *SHAPE), labels.reshape(-1, *SHAPE)
