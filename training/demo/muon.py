"""Muon in float32: gradients' momentum, made orthogonal (Jordan et al. 2024).

torch.optim.Muon multiplies bfloat16 on every device. A processor that cannot do so itself takes
fifty times as long for it as for float32, which is most of a step of a small network.
"""

import math
from typing import Any

import torch


class Float32Muon(torch.optim.Muon):
    """torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, its options and its state."""

    def __init__(self, matrices: list[torch.nn.Parameter], **options: Any) -> None:
        """Optimise matrices; the options are torch.optim.Muon's."""
        super().__init__(matrices, adjust_lr_fn="match_rms_adamw", **options)

    def step(self, closure: Any = None) -> Any:
        """Step all matrices that have a gradient; the closure, if there is one, gives the loss."""
        loss = closure() if closure else None
        with torch.no_grad():
            for group in self.param_groups:
                for matrix in group["params"]:
                    if matrix.grad is not None:
                        self._step(matrix, matrix.grad, group)
        return loss

    def _step(self, matrix: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = _orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        # The root mean square of AdamW's updates (Liu et al. 2025, arXiv 2502.16982).
        matrix.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * group["lr"])


def _orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The singular values of a matrix become about 1, by Newton and Schulz's iteration."""
    linear, cubic, quintic = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide: torch.Tensor = matrix.T if is_tall else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = linear * wide + (cubic * gram + quintic * gram @ gram) @ wide
    return wide.T if is_tall else wide
