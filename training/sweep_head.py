"""Training of the sweep head, on what networks say of stacks that they never saw.

It starts as no correction at all, and minimises the log loss of what it corrects, at the real
shares of the qualities. That takes minutes on a CPU, as no network sees a frame again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from acouslic.calibration import Calibration
from acouslic.challenge import Quality
from acouslic.expected_score import posterior_odds
from acouslic.sweep_head import SweepHead, SweepHeadConfig, by_sweep, sweep_features
from evaluation.calibrate import KnownStack
from training.options import SweepHeadRecipe

# The frames of a run of annotated ones err together, so that they count as one. In the training set
# the median run has 11.
RUN_FRAMES = 11
# Only matrices decay.
_MATRIX = 2


class _Sweeps(NamedTuple):
    """Sweeps of N stacks, filled up with black frames to the length L of the longest."""

    features: torch.Tensor
    """(N, 6, FEATURES, L)."""
    odds: torch.Tensor
    """(N, 6, 2, L), that a frame is annotated, and optimal if so, without a head."""
    reference_odds: torch.Tensor
    """(N, 6), that the sweep has a reference AC, likewise."""
    quality: torch.Tensor
    """(N, 6, L), values of `Quality`."""
    has_reference: torch.Tensor
    """(N, 6), 0 or 1."""


def train(
    stacks: Sequence[KnownStack], calibration: Calibration, recipe: SweepHeadRecipe
) -> SweepHead:
    """Train a head on stacks.

    Args:
        stacks: at their real shares of qualities.
        calibration: whose log odds the head corrects.
        recipe: how; the same one gives the same head.
    """
    sweeps = _sweeps(stacks, calibration)
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = SweepHead(SweepHeadConfig(recipe.channels))
    steps = recipe.epochs * -(-len(stacks) // recipe.batch_size)
    optimiser = _optimiser(head, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, steps)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(stacks), generator=generator)
        for batch in order.split(recipe.batch_size):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            loss = _losses(head, _Sweeps(*(column[batch] for column in sweeps))).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return head.eval().requires_grad_(False)


def log_losses(
    stacks: Sequence[KnownStack], calibration: Calibration, head: SweepHead | None
) -> np.ndarray:
    """What `train` minimises, of each stack, (N,); a head of None corrects nothing."""
    head = head or SweepHead(SweepHeadConfig())
    with torch.inference_mode():
        return _losses(head, _sweeps(stacks, calibration)).numpy()


def _optimiser(head: SweepHead, recipe: SweepHeadRecipe) -> torch.optim.Optimizer:
    parameters = list(head.parameters())
    matrices = [one for one in parameters if one.ndim >= _MATRIX]
    rest = [one for one in parameters if one.ndim < _MATRIX]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate)


def _losses(head: SweepHead, sweeps: _Sweeps) -> torch.Tensor:
    """The log loss of each stack, (N,)."""
    shape = sweeps.features.shape[:2]
    frames, references = head(sweeps.features.flatten(0, 1))
    annotated, optimal = (sweeps.odds + frames.unflatten(0, shape)).unbind(dim=2)
    truth = sweeps.quality
    tissue = sweeps.features[:, :, -1]
    by_frame = tissue * _log_loss(annotated, truth > Quality.NONE)
    by_frame += (truth > Quality.NONE) * _log_loss(optimal, truth == Quality.OPTIMAL)
    by_sweep = _log_loss(
        sweeps.reference_odds + references.unflatten(0, shape), sweeps.has_reference
    )
    return by_frame.sum(dim=(1, 2)) / RUN_FRAMES + by_sweep.sum(dim=1)


def _log_loss(odds: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(odds, truth.float(), reduction="none")


def _sweeps(stacks: Sequence[KnownStack], calibration: Calibration) -> _Sweeps:
    columns = zip(*(_columns(stack, calibration) for stack in stacks), strict=True)
    return _Sweeps(*map(_joined, columns))


def _columns(stack: KnownStack, calibration: Calibration) -> tuple[np.ndarray, ...]:
    """A stack's part of each column of `_Sweeps`."""
    odds = posterior_odds(stack.evidence, calibration)
    return (
        sweep_features(stack.evidence),
        np.stack(by_sweep([odds.annotated, odds.optimal]), axis=1),
        odds.reference,
        by_sweep([stack.quality])[0],
        stack.has_reference,
    )


def _joined(parts: Sequence[np.ndarray]) -> torch.Tensor:
    """Arrays (6, ..., L) or (6,) as one tensor (N, 6, ...), zeros where one is shorter."""
    longest = max(part.shape[-1] for part in parts)
    padded = [
        np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, longest - part.shape[-1])]) for part in parts
    ]
    return torch.from_numpy(np.stack(padded).astype(np.float32))
