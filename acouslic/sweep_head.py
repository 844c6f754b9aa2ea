"""The sweep head: what neighbouring frames say of one another, learnt rather than smoothed.

A small network of dilated convolutions goes along each sweep, over the numbers that the choice of
the frame goes by anyway. It adds to the log odds of `expected_score`: that a frame is annotated,
that it is optimal if it is, and that the sweep has a reference AC. It adds nothing until it is
trained. A sweep's number and the other sweeps are unknown to it.

It follows the networks, on the CPU, whichever engine computes those. `python -m training
sweep-head` trains it; a bundle may have one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval, Len
from torch import nn
from torch.nn import functional

from acouslic.calibration import Calibration
from acouslic.challenge import FRAMES_PER_SWEEP, SWEEPS
from acouslic.expected_score import Evidence, LogOdds, log_odds

# Log odds annotated and optimal, the mask's goodness, whether the frame shows anything.
FEATURES = 4
# Log odds of float32 probabilities end near 16; they come in as about -2 to 2.
_ODDS_SCALE = 8.0
KERNEL = 3
# Shares of the qualities that leave the network's word as it is.
_AS_TRAINED = replace(Calibration(), prior=Calibration().trained_prior)


@dataclass(frozen=True)
class SweepHeadConfig:
    """The network's size; by default each frame sees 31 others to either side."""

    channels: Annotated[int, Interval(ge=1, le=256)] = 16
    """Channels of each layer."""
    dilations: Annotated[
        tuple[Annotated[int, Interval(ge=1, le=FRAMES_PER_SWEEP)], ...], Len(1, 16)
    ] = (1, 2, 4, 8, 16)
    """Frames between the taps of each layer's filter."""


class SweepHead(nn.Module):
    """Corrects the log odds of a sweep's frames, and of the sweep."""

    def __init__(self, config: SweepHeadConfig) -> None:
        """Begin with a head that corrects nothing."""
        super().__init__()
        self.config = config
        width = config.channels
        self.enter = nn.Conv1d(FEATURES, width, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, KERNEL, padding=step, dilation=step)
            for step in config.dilations
        )
        self.frame_odds = nn.Conv1d(width, 2, 1)
        self.sweep_odds = nn.Linear(2 * width, 1)
        for parameter in (*self.frame_odds.parameters(), *self.sweep_odds.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What to add to the log odds of sweeps.

        Args:
            features: (S, FEATURES, L) of S sweeps, as `sweep_features` gives them.

        Returns:
            For the frames (S, 2, L), annotated and optimal; for the sweeps (S,). Black frames and
            sweeps get 0, and frames beside them are as at a sweep's end.
        """
        tissue = features[:, -1:]
        x = self.enter(features) * tissue
        for layer in self.layers:
            x = x + layer(functional.gelu(x)) * tissue
        x = functional.gelu(x)
        count = tissue.sum(dim=-1)
        pooled = torch.cat([x.sum(dim=-1) / count.clamp_min(1), x.amax(dim=-1)], dim=1)
        return self.frame_odds(x) * tissue, (self.sweep_odds(pooled) * (count > 0))[:, 0]

    @torch.inference_mode()
    def correction(self, evidence: Evidence) -> LogOdds:
        """What to add to the log odds of a stack's frames and sweeps."""
        frames, sweeps = self(torch.from_numpy(sweep_features(evidence)))
        annotated, optimal = frames.double().numpy().transpose(1, 0, 2).reshape(2, -1)
        return LogOdds(annotated, optimal, sweeps.double().numpy())


def sweep_features(evidence: Evidence) -> np.ndarray:
    """What the head sees of a stack, (6, FEATURES, T / 6) float32; zeros on black frames."""
    odds = [values / _ODDS_SCALE for values in log_odds(evidence, _AS_TRAINED)]
    columns = [*odds, evidence.goodness * evidence.tissue, evidence.tissue]
    return np.stack(by_sweep(columns), axis=1).astype(np.float32)


def by_sweep(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Columns (T,) of a stack's frames, each as (6, T / 6)."""
    return [column.reshape(SWEEPS, -1) for column in columns]
