"""Frames by number: which ones a protocol counts, and how they come together in batches.

A cache keeps only frames that show tissue. The paper counts all 140 of a sweep, so a table also
lists black ones: their row is -1, their pixels are zeros. `quality` is acouslic's: 0 none,
1 suboptimal, 2 optimal.
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
from dataset.cache import Cache, CachedCase

NO_CLUSTER = -1


@dataclass(frozen=True)
class FrameTable:
    """Frames of a cache, in the order of cases and of time; every array is (n,).

    case: number in `cache.cases`; row: in that case's arrays, -1 for a black frame; number: in the
    stack; subject: a code; target: the quality as a number, 0..1, perhaps softened.
    """

    cache: Cache
    case: np.ndarray
    row: np.ndarray
    number: np.ndarray
    subject: np.ndarray
    quality: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.case)


class Samples(NamedTuple):
    """A batch: `frames` and `masks` (B, S, S) uint8, the rest (B,).

    `quality` int64 in 0..2, `target` float32, `subject` and `cluster` int64.
    """

    frames: torch.Tensor
    masks: torch.Tensor
    quality: torch.Tensor
    target: torch.Tensor
    subject: torch.Tensor
    cluster: torch.Tensor


class Draw(NamedTuple):
    """A frame of a table, as it is (variation 0) or varied (1, 2)."""

    row: int
    variation: int


def frame_table(
    cache: Cache, *, annotated_sweeps_only: bool, soften_frames: float = 0.0
) -> FrameTable:
    """All frames of all cases, or those of the sweeps whose AC is given."""
    subjects = sorted({case.facts.subject for case in cache.cases})
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for number, case in enumerate(cache.cases):
        frames = _counted_frames(case, annotated_sweeps_only)
        row = np.full(case.facts.n_frames, -1, np.int64)
        row[case.frame_index] = np.arange(len(case.frame_index))
        quality = case.stack_quality()
        whole = (
            np.full(len(row), number),
            row,
            np.arange(len(row)),
            np.full(len(row), subjects.index(case.facts.subject)),
            quality,
            soft_targets(quality, soften_frames),
        )
        for column, values in zip(columns, whole, strict=True):
            column.append(values[frames])
    return FrameTable(cache, *map(np.concatenate, columns))


def _counted_frames(case: CachedCase, annotated_sweeps_only: bool) -> np.ndarray:
    counted = np.ones(case.facts.n_frames, bool)
    if annotated_sweeps_only:
        for sweep, ac_mm in zip(sweep_slices(len(counted)), case.facts.ac_mm, strict=True):
            counted[sweep] = not np.isnan(ac_mm)
    return np.flatnonzero(counted)


def soft_targets(quality: np.ndarray, soften_frames: float) -> np.ndarray:
    """Quality as a number for the frames of a stack, (T,) float32.

    With `soften_frames` an unannotated frame d frames away from one of quality q gets
    q exp(-d / soften_frames), the largest there is; never across a sweep's end. Our interpretation.
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
    """Looks up whole batches of draws; copies depend on frame and copy alone, as if made offline.

    `clusters` (n,) is set by a system that has them.
    """

    def __init__(self, table: FrameTable, *, copies_seed: int = 0) -> None:
        self.table, self.copies_seed = table, copies_seed
        self.clusters = np.full(len(table), NO_CLUSTER, np.int64)
        self._frames = [case.frames for case in table.cache.cases]
        self._masks = [case.masks for case in table.cache.cases]

    def __getitem__(self, draw: Draw) -> Samples:
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[Draw]) -> Samples:
        table, size = self.table, self.table.cache.size
        frames = np.zeros((len(draws), size, size), np.uint8)
        masks = np.zeros((len(draws), size, size), np.uint8)
        for k, draw in enumerate(draws):
            self._read(draw, frames[k], masks[k])
        index = np.array([draw.row for draw in draws])
        return Samples(
            torch.from_numpy(frames),
            torch.from_numpy(masks),
            torch.from_numpy(table.quality[index].astype(np.int64)),
            torch.from_numpy(table.target[index]),
            torch.from_numpy(table.subject[index]),
            torch.from_numpy(self.clusters[index]),
        )

    def _read(self, draw: Draw, frame: np.ndarray, mask: np.ndarray) -> None:
        number, row = int(self.table.case[draw.row]), int(self.table.row[draw.row])
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
    """Every frame once for each of its `copies`, shuffled; at most `limit` of them."""
    chosen = generator.permutation(count * copies)[:limit]
    return [Draw(int(k) // copies, int(k) % copies) for k in chosen]


def in_batches(draws: list[Draw], batch_size: int) -> list[list[Draw]]:
    return [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]


def _as_is(samples: Any) -> Any:
    return samples


def load(reader: SampleReader, batches: list[list[Draw]], workers: int) -> Iterator[Samples]:
    """The batches in their order; with `workers` they are read ahead."""
    return iter(
        DataLoader(
            reader,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
        )
    )
