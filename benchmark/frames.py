"""Frames by number: which ones a protocol counts, and how they come together in batches.

A cache keeps only frames that show tissue. The paper counts all 140 of a sweep, so a table also
lists black frames: their row is -1, their pixels are zeros. `quality` is that of
`acouslic.challenge.Quality`: 0 none, 1 suboptimal, 2 optimal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from acouslic.challenge import QUALITY_VALUES
from acouslic.stack import sweep_slices
from benchmark.copies import vary
from benchmark.images import reference_case
from dataset.cache import Cache, CachedCase

NO_CLUSTER = -1


@dataclass(frozen=True)
class FrameTable:
    """Frames of a cache, in the order of cases and of time; every array is (n,)."""

    cache: Cache
    """Where the pixels are."""
    case: np.ndarray
    """Index of the frame's case in `cache.cases`."""
    row: np.ndarray
    """Index in that case's arrays; -1 for a black frame."""
    number: np.ndarray
    """Index in the stack."""
    subject: np.ndarray
    """Number of the frame's subject, from 0."""
    quality: np.ndarray
    """0 none, 1 suboptimal, 2 optimal."""
    target: np.ndarray
    """The quality as a number from 0 to 1, softened where that was asked for."""
    reference_images: bool = False
    """Whether pixels are those of `images`, not of the cache."""

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.case)


class Samples(NamedTuple):
    """A batch of B frames of S x S pixels."""

    frames: torch.Tensor
    """(B, S, S) uint8, grey."""
    masks: torch.Tensor
    """(B, S, S) uint8, 0 to 255."""
    quality: torch.Tensor
    """(B,) int64: 0 none, 1 suboptimal, 2 optimal."""
    target: torch.Tensor
    """(B,) float32: the quality as a number from 0 to 1."""
    subject: torch.Tensor
    """(B,) int64: number of the frame's subject."""
    cluster: torch.Tensor
    """(B,) int64: the frame's cluster; NO_CLUSTER for systems that have none."""


class Draw(NamedTuple):
    """One frame of a batch to come."""

    row: int
    """Index of the frame in its table."""
    variation: int
    """0 for the frame as it is, 1 and 2 for its copies."""


def frame_table(
    cache: Cache,
    *,
    annotated_sweeps_only: bool,
    soften_frames: float = 0.0,
    reference_images: bool = False,
) -> FrameTable:
    """List the frames of a cache.

    Args:
        cache: the cases.
        annotated_sweeps_only: leave out the sweeps without an AC.
        soften_frames: see `soft_targets`.
        reference_images: whether their pixels are those of `images`.

    Returns:
        Their table.
    """
    subjects = sorted({case.facts.subject for case in cache.cases})
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for place, one in enumerate(cache.cases):
        frames = _counted_frames(one, annotated_sweeps_only)
        rows = np.full(one.facts.n_frames, -1, np.int64)
        rows[one.frame_index] = np.arange(len(one.frame_index))
        qualities = one.stack_quality()
        whole = (
            np.full(len(rows), place),
            rows,
            np.arange(len(rows)),
            np.full(len(rows), subjects.index(one.facts.subject)),
            qualities,
            soft_targets(qualities, soften_frames),
        )
        for column, values in zip(columns, whole, strict=True):
            column.append(values[frames])
    case, row, number, subject, quality, target = (np.concatenate(column) for column in columns)
    return FrameTable(cache, case, row, number, subject, quality, target, reference_images)


def _counted_frames(case: CachedCase, annotated_sweeps_only: bool) -> np.ndarray:
    counted = np.ones(case.facts.n_frames, bool)
    if annotated_sweeps_only:
        for sweep, ac_mm in zip(sweep_slices(len(counted)), case.facts.ac_mm, strict=True):
            counted[sweep] = not np.isnan(ac_mm)
    return np.flatnonzero(counted)


def soft_targets(quality: np.ndarray, soften_frames: float) -> np.ndarray:
    """Quality as a number for the frames of a stack.

    With `soften_frames` an unannotated frame gets the largest q exp(-d / soften_frames), where d is
    the distance in frames to a frame of quality q in its sweep. This is our interpretation.

    Args:
        quality: (T,), 0 none, 1 suboptimal, 2 optimal.
        soften_frames: frames over which quality fades to 1/e; 0 does not soften.

    Returns:
        (T,) float32, 0 to 1.
    """
    target: np.ndarray = np.asarray(QUALITY_VALUES, np.float32)[quality]
    if soften_frames <= 0:
        return target
    for sweep in sweep_slices(len(quality)):
        position = np.arange(sweep.stop - sweep.start)
        decay = np.exp(-np.abs(position[:, None] - position[None]) / soften_frames)
        near = (decay * target[sweep][None]).max(axis=1)
        target[sweep] = np.where(quality[sweep] > 0, target[sweep], near)
    return target


class SampleReader(Dataset[Samples]):
    """Reads whole batches of draws.

    A copy depends on its frame and its number alone, as if all had been made beforehand. Where its
    mask has left the image it is not annotated. `clusters` (n,) is set by a system that has them.
    """

    def __init__(self, table: FrameTable, *, copies_seed: int = 0) -> None:
        """Read the frames of a table; `copies_seed` is that of their copies."""
        self.table, self.copies_seed = table, copies_seed
        self.clusters = np.full(len(table), NO_CLUSTER, np.int64)
        self._frames = [case.frames for case in table.cache.cases]
        self._masks = [case.masks for case in table.cache.cases]
        self._reference = [reference_case(table.cache.folder, case) for case in table.cache.cases]

    def __getitem__(self, draw: Draw) -> Samples:
        """A batch of one."""
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[Draw]) -> Samples:
        """The batch of these draws, in their order."""
        table, size = self.table, self.table.cache.size
        frames = np.zeros((len(draws), size, size), np.uint8)
        masks = np.zeros((len(draws), size, size), np.uint8)
        for k, draw in enumerate(draws):
            self._read(draw, frames[k], masks[k])
        index = np.array([draw.row for draw in draws])
        quality, target = table.quality[index].astype(np.int64), table.target[index]
        varied = np.array([draw.variation > 0 for draw in draws])
        left_the_image = varied & (quality > 0) & ~masks.any(axis=(1, 2))
        quality[left_the_image], target[left_the_image] = 0, 0
        return Samples(
            torch.from_numpy(frames),
            torch.from_numpy(masks),
            torch.from_numpy(quality),
            torch.from_numpy(target),
            torch.from_numpy(table.subject[index]),
            torch.from_numpy(self.clusters[index]),
        )

    def _read(self, draw: Draw, frame: np.ndarray, mask: np.ndarray) -> None:
        number, row = int(self.table.case[draw.row]), int(self.table.row[draw.row])
        if self.table.reference_images:
            case = self._reference[number]
            place = case.row_of(int(self.table.number[draw.row]))
            frame[:] = case.frame(place, draw.variation)
            if (shape := case.mask(place, draw.variation)) is not None:
                mask[:] = shape
            return
        if row < 0:
            return
        frame[:] = self._frames[number][row]
        mask_row = int(self.table.cache.cases[number].mask_row[row])
        if mask_row >= 0:
            mask[:] = self._masks[number][mask_row]
        if draw.variation:
            generator = np.random.default_rng([self.copies_seed, draw.row, draw.variation])
            frame[:], mask[:] = vary(frame, mask, generator)


def draw_epoch(
    count: int, *, copies: int, limit: int | None, generator: np.random.Generator
) -> list[Draw]:
    """Draw an epoch: every frame once for each of its copies, shuffled.

    Args:
        count: number of frames in the table.
        copies: copies of each frame, itself included.
        limit: greatest number of draws; None takes all.
        generator: of the random numbers.

    Returns:
        The draws, in their order.
    """
    chosen = generator.permutation(count * copies)[:limit]
    return [Draw(int(k) // copies, int(k) % copies) for k in chosen]


def in_batches(draws: list[Draw], batch_size: int, *, whole_only: bool = False) -> list[list[Draw]]:
    """Cut draws into batches.

    Args:
        draws: in their order.
        batch_size: draws a batch; the last one may have fewer.
        whole_only: whether the last one is left out then, unless it is the only one.
    """
    batches = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
    if whole_only and len(batches) > 1 and len(batches[-1]) < batch_size:
        return batches[:-1]
    return batches


def _as_is(samples: Any) -> Any:
    return samples


def load(reader: SampleReader, batches: list[list[Draw]], workers: int) -> Iterator[Samples]:
    """Read batches in their order, ahead of their use where there are worker processes."""
    return iter(
        DataLoader(
            reader,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
        )
    )
