"""Frames, masks and copies as the paper's code makes them, kept beside a cache.

The paper's images differ from a cache's: OpenCV's cubic interpolation without antialias, masks
filled inside their outer contour, and copies that are varied at full size, before they shrink.

CACHE/reference/images.json            how they were made
CACHE/reference/<uuid>/numbers.npy     (n,) number in the stack of every frame of a sweep with an AC
                       frames.npy      (n, 1 + copies, S, S) uint8: the frame and its copies
                       mask_row.npy    (n,) row of `masks`, -1 where it is not annotated
                       masks.npy       (a, 1 + copies, S, S) uint8, 0 or 255
                       source.json     which files they were made of, and how
"""

import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from acouslic import files
from acouslic.errors import AcouslicError, InputError
from acouslic.preprocess import padding, to_grid
from acouslic.stack import Stack, read_stack, sweep_slices
from benchmark.copies import COPIES, vary
from benchmark.options import ImageOptions
from dataset.cache import CachedCase, open_cache
from dataset.entries import DatasetError, Entry, read_entries
from dataset.labels import Labels, read_labels
from dataset.prepare import fingerprint
from dataset.processes import in_processes

REFERENCE, IMAGES, SOURCE = "reference", "images.json", "source.json"
# A field of the options, which every images.json of ours holds.
IMAGES_MARK = '"opencv_resize"'
ARRAYS = ("numbers.npy", "frames.npy", "mask_row.npy", "masks.npy")
# Any number would do: of the copies, which all trials share.
COPIES_SEED = 0
log = logging.getLogger(__name__)


def _owned(folder: Path) -> set[str]:
    return {SOURCE, *ARRAYS} if (folder / SOURCE).is_file() else set()


CASE = files.FolderKind("case of reference images", _owned)


class ReferenceCase:
    """One case's images; its arrays are opened when they are first used."""

    def __init__(self, folder: Path) -> None:
        """Read the case in a folder."""
        self._folder = folder

    def row_of(self, number: int) -> int:
        """The row of the frame with this number in the stack."""
        return int(np.searchsorted(self._numbers, number))

    def frame(self, row: int, variation: int) -> np.ndarray:
        """(S, S) uint8: the frame in this row, or one of its copies."""
        return np.asarray(self._frames[row, variation])

    def mask(self, row: int, variation: int) -> np.ndarray | None:
        """(S, S) uint8, 0 or 255: likewise its mask; None where it is not annotated."""
        mask_row = int(self._mask_row[row])
        return None if mask_row < 0 else np.asarray(self._masks[mask_row, variation])

    @cached_property
    def _numbers(self) -> np.ndarray:
        return np.asarray(np.load(self._folder / "numbers.npy"))

    @cached_property
    def _mask_row(self) -> np.ndarray:
        return np.asarray(np.load(self._folder / "mask_row.npy"))

    @cached_property
    def _frames(self) -> np.ndarray:
        return np.asarray(np.load(self._folder / "frames.npy", mmap_mode="r"))

    @cached_property
    def _masks(self) -> np.ndarray:
        return np.asarray(np.load(self._folder / "masks.npy", mmap_mode="r"))


def reference_case(cache_folder: Path, case: CachedCase) -> ReferenceCase:
    """The reference images of a cached case."""
    return ReferenceCase(cache_folder / REFERENCE / case.facts.uuid)


def read_image_options(cache_folder: Path) -> dict[str, bool]:
    """How the reference images beside a cache were made.

    Raises:
        InputError: there are none, or not of all cases.
    """
    path = cache_folder / REFERENCE / IMAGES
    if not path.is_file():
        raise InputError(
            expected=f"the paper's own images in {path.parent}",
            found="none that are finished",
            advice="run `python -m benchmark prepare DATASET CACHE`, or add --no-reference-images",
        )
    options: dict[str, bool] = json.loads(path.read_text())
    return options


@dataclass(frozen=True)
class Job:
    """One case whose images are to be made."""

    entry: Entry
    """The case."""
    folder: Path
    """Where they go."""
    size: int
    """Side of the images in pixels."""
    options: ImageOptions
    """How they are made."""


def prepare_images(
    dataset: Path, cache_folder: Path, options: ImageOptions, *, workers: int
) -> None:
    """Make the reference images of all cases of a cache; those that are there stay.

    Args:
        dataset: the data set that the cache was made of.
        cache_folder: the cache.
        options: how the images are made.
        workers: number of processes.

    Raises:
        InputError: the cache was made of other files.
        OutputError: a file or folder there is not ours.
    """
    cache = open_cache(cache_folder)
    output = cache_folder / REFERENCE
    files.refuse_foreign_file(output / IMAGES, IMAGES_MARK, "of reference images")
    entries = {entry.uuid: entry for entry in read_entries(dataset)[0]}
    strangers = [
        case.facts.uuid
        for case in cache.cases
        if (entry := entries.get(case.facts.uuid)) is None
        or fingerprint(entry) != case.facts.fingerprint
    ]
    if strangers:
        raise InputError(
            expected=f"the data set that {cache_folder} was made of",
            found=f"{dataset}, in which {strangers[0]} is another or missing",
            advice="prepare the cache of this data set first",
        )
    jobs = [
        Job(entries[case.facts.uuid], output / case.facts.uuid, cache.size, options)
        for case in cache.cases
    ]
    waiting = [job for job in jobs if not _is_done(job)]
    log.info("%d cases, %d of them already there", len(jobs), len(jobs) - len(waiting))
    problems = [text for text in in_processes(run_job, waiting, workers, "reference") if text]
    if problems:
        raise DatasetError(
            expected="stacks and labels that can be read",
            found=problems[0],
            advice="fix that and prepare again; finished cases are kept",
        )
    files.write_json(output / IMAGES, asdict(options))


def _source(job: Job) -> dict[str, object]:
    return {"fingerprint": fingerprint(job.entry), "size": job.size, **asdict(job.options)}


def _is_done(job: Job) -> bool:
    path = job.folder / SOURCE
    return path.is_file() and json.loads(path.read_text()) == _source(job)


def run_job(job: Job) -> str | None:
    """Make one case's images; returns what is wrong with the case."""
    entry = job.entry
    try:
        stack, labels = read_stack(entry.image), read_labels(entry.mask)
    except (AcouslicError, RuntimeError) as error:
        return f"{entry.uuid}: {str(error).strip().splitlines()[-1]}"
    has_ac = ~np.isnan(np.array(entry.ac_mm, float))
    with files.new_folder(job.folder, CASE, overwrite=True) as partial:
        write_case(partial, stack, labels, has_ac, size=job.size, options=job.options)
        files.write_json(partial / SOURCE, _source(job))
    return None


def write_case(
    folder: Path,
    stack: Stack,
    labels: Labels,
    has_ac: np.ndarray,
    *,
    size: int,
    options: ImageOptions,
) -> None:
    """Write the arrays of one case.

    Args:
        folder: where they go.
        stack: the case.
        labels: its annotation.
        has_ac: (6,) bool, the sweeps whose frames are wanted.
        size: side of the images.
        options: how they are made.
    """
    sweeps = sweep_slices(len(stack.frames))
    numbers = np.concatenate(
        [np.zeros(0, int)]
        + [np.arange(len(stack.frames))[s] for s, has in zip(sweeps, has_ac, strict=True) if has]
    )
    annotated = labels.quality()[numbers] > 0
    frames = np.zeros((len(numbers), COPIES, size, size), np.uint8)
    masks = np.zeros((int(annotated.sum()), COPIES, size, size), np.uint8)
    mask_row = np.where(annotated, np.cumsum(annotated) - 1, -1)
    for row, number in enumerate(numbers.tolist()):
        mask = labels.frame(number) > 0 if annotated[row] else None
        # As for every random choice here, only the case, the frame and the copy decide.
        seed = [COPIES_SEED, number, *stack.name.encode()]
        made = make_images(stack.frames[number], mask, size, options, seed)
        for copy, (image, shape) in enumerate(made):
            frames[row, copy] = image
            if annotated[row]:
                masks[mask_row[row], copy] = shape
    for name, array in zip(ARRAYS, (numbers, frames, mask_row, masks), strict=True):
        np.save(folder / name, array)


def make_images(
    frame: np.ndarray,
    mask: np.ndarray | None,
    size: int,
    options: ImageOptions,
    seed: list[int],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A frame and its copies, with their masks.

    Args:
        frame: (H, W) uint8, as in the stack.
        mask: (H, W) bool; None where it is not annotated.
        size: side of the images.
        options: how they are made.
        seed: of the copies.

    Returns:
        The frame and then each copy: (S, S) uint8 each, and its mask (S, S), 0 or 255.
    """
    left, right, top, bottom = padding((frame.shape[0], frame.shape[1]))
    sides = ((top, bottom), (left, right))
    whole = np.pad(frame, sides)
    shape = np.zeros_like(whole) if mask is None else np.pad(mask.astype(np.uint8), sides)
    if mask is not None and options.filled_masks:
        shape = filled(shape)
    images = [(_small(whole, size, options), _small_mask(shape, size))]
    for copy in range(1, COPIES):
        generator = np.random.default_rng([*seed, copy])
        if options.full_size_copies:
            varied, moved = vary(whole, shape, generator, always=options.always_varied)
            images.append((_small(varied, size, options), _small_mask(moved, size)))
        else:
            varied, moved = vary(*images[0], generator, always=options.always_varied)
            images.append((varied, moved))
    return images


def filled(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) uint8, 0 or 1, all within its outer contours filled."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    solid = np.zeros_like(mask)
    cv2.drawContours(solid, contours, -1, 1, thickness=cv2.FILLED)
    return solid


def _small(square: np.ndarray, size: int, options: ImageOptions) -> np.ndarray:
    if options.opencv_resize:
        return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC))
    return to_grid(square[None], size)[0].numpy()


def _small_mask(square: np.ndarray, size: int) -> np.ndarray:
    small = cv2.resize(square, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray((small > 0) * np.uint8(255))
