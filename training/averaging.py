"""The exponential moving average of what is trained, which is what a run is judged by and leaves.

Lightning's own callback copies the whole module, frozen trunk and all; this one holds what moves.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# The average of the first steps is short: after t of them it holds at most (1 + t) / (SHORT + t) of
# what was before, as in TensorFlow's ExponentialMovingAverage.
SHORT = 10


class WeightAverage:
    """A network's average over the steps of its training, batch norms' statistics included."""

    def __init__(self, decay: float) -> None:
        """Start with nothing.

        Args:
            decay: share of the average that a step leaves as it was, 0 to 1; 0 keeps the last
                weights alone.
        """
        self.decay, self.steps = decay, 0
        self.values: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in a network's weights after a step."""
        kept = min(self.decay, (1 + self.steps) / (SHORT + self.steps)) if self.values else 0.0
        self.steps += 1
        for name, tensor in _moving(network):
            before = self.values.get(name, tensor).to(tensor.device)
            self.values[name] = torch.lerp(tensor.detach(), before, kept)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights and the average; once more puts both back."""
        for name, tensor in _moving(network):
            if name in self.values:
                current = tensor.detach().clone()
                tensor.copy_(self.values[name])
                self.values[name] = current

    def state(self) -> dict[str, Any]:
        """What `restore` takes: plain numbers and tensors."""
        return {"steps": self.steps, "values": dict(self.values)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.steps, self.values = state["steps"], dict(state["values"])


def _moving(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What training moves: parameters with a gradient, and statistics that are kept."""
    kept = network.state_dict().keys()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    for name, buffer in network.named_buffers():
        if name in kept and buffer.is_floating_point():
            yield name, buffer
