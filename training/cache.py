"""The training cache: per case one folder of arrays at the network's size, written once, then
mapped and never copied.

Only frames that show tissue (or are annotated) are kept. `quality` is the index into acouslic's
QUALITY: 0 none, 1 suboptimal, 2 optimal. Masks are stored as coverage, 0-255, so that a boundary
keeps its place inside a coarse pixel.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from acouslic.errors import InputError
from acouslic.preprocess import to_grid
from acouslic.stack import Stack, sweep_slices
from training.dataset import QUALITY_OF_LABEL

FORMAT = 2
CHUNK_FRAMES = 64


@dataclass(frozen=True)
class CaseFacts:
    """What the cache knows of a case besides its arrays; `ac_mm` has one entry a sweep, NaN for
    none.
    """

    uuid: str
    subject: str
    n_frames: int
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    ac_mm: tuple[float, ...]
    size: int
    fingerprint: str


@dataclass(frozen=True)
class CachedCase:
    """One case: `folder` holds the arrays, which are opened when first asked for."""

    folder: Path
    facts: CaseFacts

    @cached_property
    def frame_index(self) -> np.ndarray:
        """(N,) int32: the number in the stack of every kept frame, ascending."""
        return self._array("frame_index")

    @cached_property
    def quality(self) -> np.ndarray:
        """(N,) uint8: 0 none, 1 suboptimal, 2 optimal."""
        return self._array("quality")

    @cached_property
    def sweep(self) -> np.ndarray:
        """(N,) uint8: 0-based sweep of every kept frame."""
        return self._array("sweep")

    @cached_property
    def mask_row(self) -> np.ndarray:
        """(N,) int32: the row of `masks` that belongs to a frame, -1 where it is not annotated."""
        annotated = self.quality > 0
        return np.where(annotated, np.cumsum(annotated) - 1, -1).astype(np.int32)

    @property
    def frames(self) -> np.ndarray:
        """(N, S, S) uint8, memory-mapped."""
        return self._array("frames", mapped=True)

    @property
    def masks(self) -> np.ndarray:
        """(A, S, S) uint8 coverage of the annotated frames, memory-mapped."""
        return self._array("masks", mapped=True)

    @property
    def has_optimal(self) -> bool:
        return bool((self.quality == 2).any())

    def stack_quality(self) -> np.ndarray:
        """(T,) uint8: the quality of every frame of the stack, black ones included."""
        quality = np.zeros(self.facts.n_frames, np.uint8)
        quality[self.frame_index] = self.quality
        return quality

    def truth_masks(self) -> dict[int, np.ndarray]:
        """The annotated frames' masks at full resolution, by frame number, each (H, W) bool."""
        _, columns = self.facts.shape
        packed = np.load(self.folder / "truth.npz")["packed"]
        masks = np.unpackbits(packed, axis=-1, count=columns).astype(bool)
        numbers = self.frame_index[self.quality > 0]
        return {int(number): mask for number, mask in zip(numbers, masks, strict=True)}

    def _array(self, name: str, *, mapped: bool = False) -> np.ndarray:
        array: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r" if mapped else None)
        return array


@dataclass(frozen=True)
class Cache:
    """A whole cache: `size` is the side of its frames in pixels, `simulated` that they are of
    phantoms.
    """

    folder: Path
    size: int
    simulated: bool
    cases: tuple[CachedCase, ...]

    def select(self, uuids: Sequence[str]) -> "Cache":
        """The same cache with only these cases."""
        wanted = set(uuids)
        chosen = tuple(case for case in self.cases if case.facts.uuid in wanted)
        return replace(self, cases=chosen)


def open_cache(folder: Path) -> Cache:
    """Open a finished cache.

    Raises InputError where `prepare` has not finished there.
    """
    manifest = folder / "cache.json"
    if not manifest.is_file():
        raise InputError(
            expected="a finished training cache (cache.json)",
            found=f"none in {folder}",
            advice="run `python -m training prepare DATASET --output CACHE` to its end",
        )
    facts = json.loads(manifest.read_text())
    if facts["format"] != FORMAT:
        raise InputError(
            expected=f"a cache of format {FORMAT}",
            found=f"format {facts['format']}",
            advice="prepare it again with this version",
        )
    cases = tuple(CachedCase(folder / uuid, read_facts(folder / uuid)) for uuid in facts["cases"])
    return Cache(folder, facts["size"], facts["simulated"], cases)


def finish_cache(folder: Path, uuids: Sequence[str], size: int, *, simulated: bool) -> None:
    """Declare the cache whole, with the cases in this order."""
    facts = {"format": FORMAT, "size": size, "simulated": simulated, "cases": list(uuids)}
    write_atomically(folder / "cache.json", json.dumps(facts, indent=1))


def has_case(folder: Path, uuid: str, *, size: int, fingerprint: str) -> bool:
    """Whether the cache already holds this very case; a folder is renamed into place, so it is
    whole.
    """
    if not (folder / uuid / "case.json").is_file():
        return False
    facts = read_facts(folder / uuid)
    return facts.size == size and facts.fingerprint == fingerprint


def read_facts(case_folder: Path) -> CaseFacts:
    raw: dict[str, Any] = json.loads((case_folder / "case.json").read_text())
    raw["ac_mm"] = tuple(math.nan if value is None else value for value in raw["ac_mm"])
    raw["shape"], raw["spacing_mm"] = tuple(raw["shape"]), tuple(raw["spacing_mm"])
    return CaseFacts(**raw)


def store_case(
    folder: Path,
    stack: Stack,
    labels: np.ndarray,
    *,
    subject: str,
    ac_mm: Sequence[float],
    size: int,
    fingerprint: str,
) -> None:
    """Put one case into the cache, whole or not at all.

    `labels` is the mask volume (T, H, W) uint8 in the challenge's values, `ac_mm` one value a
    sweep with NaN for none. `fingerprint` names the source, so that a changed one is prepared
    again.
    """
    rows, columns = stack.frames.shape[1:]
    facts = CaseFacts(
        uuid=stack.name,
        subject=subject,
        n_frames=len(stack.frames),
        shape=(rows, columns),
        spacing_mm=(stack.geometry.spacing_mm[0], stack.geometry.spacing_mm[1]),
        ac_mm=tuple(ac_mm),
        size=size,
        fingerprint=fingerprint,
    )
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        _write_arrays(partial, stack, labels, size)
        raw = asdict(facts)
        raw["ac_mm"] = [None if math.isnan(value) else value for value in facts.ac_mm]
        (partial / "case.json").write_text(json.dumps(raw, indent=1))
        _move_into_place(partial, folder / stack.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_arrays(folder: Path, stack: Stack, labels: np.ndarray, size: int) -> None:
    highest = labels.reshape(len(labels), -1).max(axis=1)
    quality = np.array([QUALITY_OF_LABEL[int(label)] for label in highest], np.uint8)
    kept = np.flatnonzero(stack.tissue | (quality > 0)).astype(np.int32)
    annotated = np.flatnonzero(quality > 0)
    sweep = np.zeros(len(quality), np.uint8)
    for number, frames in enumerate(sweep_slices(len(quality))):
        sweep[frames] = number
    np.save(folder / "frame_index.npy", kept)
    np.save(folder / "quality.npy", quality[kept])
    np.save(folder / "sweep.npy", sweep[kept])
    np.save(folder / "frames.npy", _shrunk(stack.frames, kept, size))
    covers = (labels[annotated] > 0).astype(np.uint8)
    np.save(folder / "masks.npy", _shrunk(covers * 255, np.arange(len(covers)), size))
    np.savez_compressed(folder / "truth.npz", packed=np.packbits(covers, axis=-1))


def _shrunk(frames: np.ndarray, chosen: np.ndarray, size: int) -> np.ndarray:
    small = np.empty((len(chosen), size, size), np.uint8)
    for start in range(0, len(chosen), CHUNK_FRAMES):
        part = chosen[start : start + CHUNK_FRAMES]
        small[start : start + len(part)] = to_grid(frames[part], size).numpy()
    return small


def _move_into_place(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    os.replace(source, target)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part, and that
    processes that write it at once do not take each other's part away.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)
