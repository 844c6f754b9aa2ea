"""What training is fed: balanced batches of cached frames, and whole cases for validation.

Which frames a batch holds, and the random numbers that vary them, depend on the seed and the
batch's number alone: not on the processes, the loader's workers or on where an interrupted run
went on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.utils.data import DataLoader, Dataset, Sampler

from acouslic.challenge import NEAREST_FRAMES, Quality
from acouslic.stack import sweep_slices
from dataset.cache import Cache, CachedCase
from training.augment import NUMBERS
from training.options import EmptyMasks


@dataclass(frozen=True)
class BatchPlan:
    """How training batches are drawn."""

    batch_size: int
    """Frames a process and a pass."""
    seed: int
    """Seed of the draws."""
    shares: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Of each quality in a batch; a class that the data lack leaves its share to the first."""
    empty_sweeps: float = 0.5
    """Share of the frames without annotation that comes from sweeps without any."""


@dataclass(frozen=True)
class Mixture:
    """Simulated frames among those that are trained on."""

    phantoms: Cache
    """The simulated cases."""
    share: float
    """Share of the draws that are theirs, above 0 and below 1."""


class Draw(NamedTuple):
    """One frame that was drawn."""

    case: int
    """Index of its case in the cache; those of a mixture's phantoms follow."""
    row: int
    """Its row in the case's arrays."""
    uniform: np.ndarray
    """(NUMBERS,) float32 in [0, 1), the numbers that vary it."""


class Batch(NamedTuple):
    """One pass's frames, as they are in the cache."""

    frames: torch.Tensor
    """(B, S, S) uint8."""
    masks: torch.Tensor
    """(B, S, S) uint8, coverage."""
    quality: torch.Tensor
    """(B,) int64, values of Quality."""
    teaches_mask: torch.Tensor
    """(B,) bool, the frames whose masks are known: annotated, or certain to be empty."""
    uniform: torch.Tensor
    """(B, NUMBERS) float32 in [0, 1), the numbers that vary the frames."""
    subject: torch.Tensor
    """(B,) int64, the number of the frame's subject."""


class FramePools:
    """The frames of a cache in four pools, each (n, 2): case and row.

    They are: unannotated frames of sweeps without annotation, of other sweeps; suboptimal; optimal.
    Phantoms that are mixed in have four more, in the same order.
    """

    def __init__(self, cache: Cache, mixture: Mixture | None = None) -> None:
        """Sort the frames of a cache, and of what is mixed in."""
        self.pools = _pools(cache.cases, first=0)
        self._shares = [1.0]
        if mixture is not None:
            self.pools += _pools(mixture.phantoms.cases, first=len(cache.cases))
            self._shares = [1 - mixture.share, mixture.share]
        # Where each case begins in each pool, and the pool's end; cases without a frame have none.
        self._starts = [
            np.append(np.unique(pool[:, 0], return_index=True)[1], len(pool)) for pool in self.pools
        ]

    def frame(self, pool: int, case_at: float, row_at: float) -> tuple[int, int]:
        """A pool's frame: each of its cases is as likely, and then each of the case's frames.

        Drawn among all frames, a tenth of the real cases would give a third of the optimal draws;
        but the score is a mean over cases.

        Args:
            pool: its number.
            case_at: number in [0, 1) that chooses the case.
            row_at: number in [0, 1) that chooses the frame.

        Returns:
            Index of the case, see `Draw`, and its row.
        """
        starts = self._starts[pool]
        number = int(case_at * (len(starts) - 1))
        start, end = starts[number : number + 2]
        case, row = self.pools[pool][start + int(row_at * (end - start))]
        return int(case), int(row)

    def weights(self, plan: BatchPlan) -> np.ndarray:
        """The probability of each pool, (4,) or (8,), whose sum is 1.

        An empty one's goes to the first of the same four that has frames.
        """
        fours = [self.pools[4 * k : 4 * k + 4] for k in range(len(self._shares))]
        return np.concatenate(
            [
                share * _weights(pools, plan)
                for share, pools in zip(self._shares, fours, strict=True)
            ]
        )


def _pools(cases: Sequence[CachedCase], *, first: int) -> list[np.ndarray]:
    """The four pools of some cases, the first of which has the number `first`."""
    pools: list[list[np.ndarray]] = [[], [], [], []]
    for number, case in enumerate(cases, first):
        annotated_sweeps = np.unique(case.sweep[case.quality > 0])
        in_annotated = np.isin(case.sweep, annotated_sweeps)
        chosen = (
            (case.quality == Quality.NONE) & ~in_annotated,
            (case.quality == Quality.NONE) & in_annotated,
            case.quality == Quality.SUBOPTIMAL,
            case.quality == Quality.OPTIMAL,
        )
        for pool, flags in zip(pools, chosen, strict=True):
            rows = np.flatnonzero(flags)
            pool.append(np.stack([np.full(len(rows), number), rows], axis=1))
    return [np.concatenate(pool).astype(np.int64) for pool in pools]


def _weights(pools: Sequence[np.ndarray], plan: BatchPlan) -> np.ndarray:
    none, suboptimal, optimal = plan.shares
    wanted = np.array(
        [none * plan.empty_sweeps, none * (1 - plan.empty_sweeps), suboptimal, optimal]
    )
    present = np.array([len(pool) > 0 for pool in pools])
    weights = np.where(present, wanted, 0)
    first = int(np.argmax(present))
    weights[first] += 1 - weights.sum()
    return weights


class BalancedBatches(Sampler[list[Draw]]):
    """A part of an endless, fixed sequence of batches; each process gets its share of every one."""

    def __init__(
        self, pools: FramePools, plan: BatchPlan, *, first: int, count: int, rank: int, ranks: int
    ) -> None:
        """Choose a part of the sequence.

        Args:
            pools: the frames to draw from.
            plan: how they are drawn.
            first: number of the first batch, from 0.
            count: number of batches.
            rank: number of this process.
            ranks: number of all processes.
        """
        self.pools, self.plan = pools, plan
        self.first, self.count = first, count
        self.rank, self.ranks = rank, ranks
        self.weights = pools.weights(plan)

    def __len__(self) -> int:
        """The number of batches."""
        return self.count

    def __iter__(self) -> Iterator[list[Draw]]:
        """This process's share of each batch."""
        for number in range(self.first, self.first + self.count):
            yield self.draw(number)[self.rank :: self.ranks]

    def draw(self, number: int) -> list[Draw]:
        """All of a batch, for all processes together."""
        generator = np.random.default_rng([self.plan.seed, number])
        size = self.plan.batch_size * self.ranks
        chosen = generator.choice(len(self.weights), size, p=self.weights)
        position = generator.random((size, 2))
        uniform = generator.random((size, NUMBERS), dtype=np.float32)
        draws = []
        for pool, at, numbers in zip(chosen, position, uniform, strict=True):
            draws.append(Draw(*self.pools.frame(pool, *at), numbers))
        return draws


class TrainingFrames(Dataset[Batch]):
    """Looks up whole batches of draws in the mapped arrays."""

    def __init__(
        self, cache: Cache, empty_masks: EmptyMasks = "far", mixture: Mixture | None = None
    ) -> None:
        """Map the arrays of a cache, and of what is mixed in.

        Args:
            cache: the cases.
            empty_masks: which frames without annotation teach an empty mask.
            mixture: phantoms whose frames are drawn among theirs.
        """
        phantoms = () if mixture is None else mixture.phantoms.cases
        self.cache, self._cases = cache, (*cache.cases, *phantoms)
        self.pools = FramePools(cache, mixture)
        self._teaches_mask = [teaches_mask(case, empty_masks) for case in self._cases]
        self._frames = [case.frames for case in self._cases]
        self._masks = [case.masks for case in self._cases]
        # A phantom may have the number of a patient.
        names = [(k < len(cache.cases), case.facts.subject) for k, case in enumerate(self._cases)]
        subjects = sorted(set(names))
        self._subject = [subjects.index(name) for name in names]

    def __getitem__(self, draw: Draw) -> Any:
        """A batch of one."""
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[Draw]) -> Any:
        """A batch; PyTorch's loader asks for many at once where this is defined."""
        size = self.cache.size
        masks = np.zeros((len(draws), size, size), np.uint8)
        for k, draw in enumerate(draws):
            case = self._cases[draw.case]
            if case.quality[draw.row]:
                masks[k] = self._masks[draw.case][case.mask_row[draw.row]]
        known = np.array([self._teaches_mask[draw.case][draw.row] for draw in draws])
        frames, quality, uniform = self.without_masks(draws)
        subject = torch.tensor([self._subject[draw.case] for draw in draws])
        return Batch(
            frames, torch.from_numpy(masks), quality, torch.from_numpy(known), uniform, subject
        )

    def without_masks(self, draws: list[Draw]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Frames, quality and uniform numbers of a batch."""
        frames = np.stack([self._frames[draw.case][draw.row] for draw in draws])
        quality = np.array([self._cases[draw.case].quality[draw.row] for draw in draws])
        uniform = np.stack([draw.uniform for draw in draws])
        return (
            torch.from_numpy(frames),
            torch.from_numpy(quality.astype(np.int64)),
            torch.from_numpy(uniform),
        )


def teaches_mask(case: CachedCase, empty_masks: EmptyMasks) -> np.ndarray:
    """Which frames of a case teach a mask, (N,) bool: all that are annotated, and some others.

    Args:
        case: the case.
        empty_masks: which others, see `LossConfig`.
    """
    annotated = case.stack_quality() > 0
    if empty_masks == "none":
        known = annotated
    elif empty_masks == "all":
        known = np.ones_like(annotated)
    else:
        known = annotated.copy()
        for sweep in sweep_slices(len(annotated)):
            here = annotated[sweep]
            known[sweep] |= not here.any() or distance_transform_edt(~here) >= NEAREST_FRAMES
    return np.asarray(known[case.frame_index])


def _as_is(batch: Any) -> Any:
    return batch


def training_loader(
    frames: TrainingFrames, batches: BalancedBatches, workers: int
) -> DataLoader[Batch]:
    """A loader of whole batches, which `workers` processes read ahead; 0 reads them as needed."""
    return DataLoader(
        frames,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
    )


def case_loader(count: int, *, rank: int, ranks: int) -> DataLoader[int]:
    """A loader of this process's share of the numbers below `count`, one at a time."""
    mine: Dataset[int] = list(range(count))[rank::ranks]  # type: ignore[assignment]
    return DataLoader(mine, batch_size=None)
