"""The training cache: a folder a case, with arrays at the network's size.

They are written once, then mapped into memory and never copied. Only frames that show tissue, or
are annotated, are kept. Masks are stored as coverage, 0 to 255, so that a boundary keeps its place
inside a coarse pixel.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from acouslic import files
from acouslic.challenge import Quality
from acouslic.errors import InputError
from acouslic.preprocess import to_grid
from acouslic.stack import Stack, sweep_slices
from dataset.labels import Labels

FORMAT = 2
CACHE_FILE, CASE_FILE = "cache.json", "case.json"
# What is found in every cache.json of ours, and in no other file of that name.
CACHE_MARK = '"simulated"'
ARRAYS = ("frame_index.npy", "quality.npy", "sweep.npy", "frames.npy", "masks.npy", "truth.npz")


def _owned(folder: Path) -> set[str]:
    """The names of a cached case's files in a folder; none where it holds none."""
    return {CASE_FILE, *ARRAYS} if (folder / CASE_FILE).is_file() else set()


CASE = files.FolderKind("cached case", _owned)


@dataclass(frozen=True)
class CaseFacts:
    """What the cache knows of a case besides its arrays."""

    uuid: str
    """The case's name."""
    subject: str
    """Whose case it is."""
    n_frames: int
    """Frames of the stack, black ones included."""
    shape: tuple[int, int]
    """Rows and columns of the stack's frames."""
    spacing_mm: tuple[float, float]
    """Width and height of a pixel of the stack."""
    ac_mm: tuple[float, ...]
    """One value a sweep, NaN for none."""
    size: int
    """Side of the cached frames in pixels."""
    fingerprint: str
    """Names the source, so that a changed one is prepared again."""


@dataclass(frozen=True)
class CachedCase:
    """One case; its arrays are opened when they are first used."""

    folder: Path
    """Where the arrays lie."""
    facts: CaseFacts
    """All else."""

    @cached_property
    def frame_index(self) -> np.ndarray:
        """(N,) int32: the number in the stack of every kept frame, ascending."""
        return self._array("frame_index")

    @cached_property
    def quality(self) -> np.ndarray:
        """(N,) uint8, values of `Quality`."""
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
        """Whether a frame of the stack is optimal."""
        return bool((self.quality == Quality.OPTIMAL).any())

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
    """A whole cache, or some of its cases."""

    folder: Path
    """Where it lies."""
    size: int
    """Side of its frames in pixels."""
    simulated: bool
    """Whether the frames are of phantoms."""
    cases: tuple[CachedCase, ...]
    """The cases, in the data set's order."""

    def select(self, uuids: Sequence[str]) -> "Cache":
        """The same cache with only these cases."""
        wanted = set(uuids)
        chosen = tuple(case for case in self.cases if case.facts.uuid in wanted)
        return replace(self, cases=chosen)

    def require_size(self, size: int, wanted_by: str) -> None:
        """Make sure that the frames have the size that a network takes.

        Args:
            size: side of a frame in pixels.
            wanted_by: why, for people, such as "as the bundle takes".

        Raises:
            InputError: they have another.
        """
        if self.size != size:
            raise InputError(
                expected=f"frames of {size} px, {wanted_by}",
                found=f"a cache of {self.size} px",
                advice=f"prepare it again with --size {size}",
            )


def open_cache(folder: Path) -> Cache:
    """Open a finished cache.

    Raises:
        InputError: `prepare` has not finished there, or was of another version.
    """
    manifest = folder / CACHE_FILE
    if not manifest.is_file():
        raise InputError(
            expected=f"a finished training cache ({CACHE_FILE})",
            found=f"none in {folder}",
            advice="run `python -m training prepare DATASET --output CACHE` to its end",
        )
    facts = json.loads(manifest.read_text())
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(
            expected=f"a cache of format {FORMAT} in {manifest}",
            found="another",
            advice="prepare it again with this version",
        )
    cases = tuple(CachedCase(folder / uuid, read_facts(folder / uuid)) for uuid in facts["cases"])
    return Cache(folder, facts["size"], facts["simulated"], cases)


def begin_cache(folder: Path) -> None:
    """Make sure that a cache may be written into a folder, whatever else it holds.

    Raises:
        OutputError: a file that the cache will need is somebody else's.
    """
    files.refuse_foreign_file(folder / CACHE_FILE, CACHE_MARK, "a cache")


def finish_cache(folder: Path, uuids: Sequence[str], size: int, *, simulated: bool) -> None:
    """Declare the cache whole, with the cases in this order.

    Args:
        folder: the cache's.
        uuids: its cases.
        size: side of its frames in pixels.
        simulated: whether the frames are of phantoms.

    Raises:
        OutputError: there is a file of that name that is somebody else's.
    """
    begin_cache(folder)
    facts = {"format": FORMAT, "size": size, "simulated": simulated, "cases": list(uuids)}
    files.write_json(folder / CACHE_FILE, facts)


def has_case(folder: Path, uuid: str, *, size: int, fingerprint: str) -> bool:
    """Whether the cache holds this very case; if so, it is whole."""
    if not (folder / uuid / CASE_FILE).is_file():
        return False
    facts = read_facts(folder / uuid)
    return facts.size == size and facts.fingerprint == fingerprint


def read_facts(case_folder: Path) -> CaseFacts:
    """What the cache knows of a case, from the case's folder."""
    raw: dict[str, Any] = json.loads((case_folder / CASE_FILE).read_text())
    raw["ac_mm"] = tuple(math.nan if value is None else value for value in raw["ac_mm"])
    raw["shape"], raw["spacing_mm"] = tuple(raw["shape"]), tuple(raw["spacing_mm"])
    return CaseFacts(**raw)


def store_case(
    folder: Path,
    stack: Stack,
    labels: Labels,
    *,
    subject: str,
    ac_mm: Sequence[float],
    size: int,
    fingerprint: str,
) -> None:
    """Put one case into the cache, whole or not at all.

    Args:
        folder: the cache.
        stack: the case.
        labels: its annotation.
        subject: whose case it is.
        ac_mm: one value a sweep, NaN for none.
        size: side of the cached frames in pixels.
        fingerprint: names the source, so that a changed one is prepared again.

    Raises:
        OutputError: a folder of that name is not a cached case.
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
    raw = asdict(facts)
    raw["ac_mm"] = [None if math.isnan(value) else value for value in facts.ac_mm]
    with files.new_folder(folder / stack.name, CASE, overwrite=True) as partial:
        _write_arrays(partial, stack, labels, size)
        files.write_json(partial / CASE_FILE, raw)


def _write_arrays(folder: Path, stack: Stack, labels: Labels, size: int) -> None:
    quality = labels.quality()
    kept = np.flatnonzero(stack.tissue | (quality > 0)).astype(np.int32)
    annotated = np.flatnonzero(quality > 0)
    sweep = np.zeros(len(quality), np.uint8)
    for number, frames in enumerate(sweep_slices(len(quality))):
        sweep[frames] = number
    np.save(folder / "frame_index.npy", kept)
    np.save(folder / "quality.npy", quality[kept])
    np.save(folder / "sweep.npy", sweep[kept])
    np.save(folder / "frames.npy", to_grid(stack.frames, size, kept).numpy())
    covers = np.zeros((len(annotated), *labels.frame_shape), np.uint8)
    for row, frame in enumerate(annotated.tolist()):
        covers[row] = labels.frame(frame) > 0
    np.save(folder / "masks.npy", to_grid(covers * 255, size).numpy())
    np.savez_compressed(folder / "truth.npz", packed=np.packbits(covers, axis=-1))
