"""Batch normalisation over all processes: N of them train like one with N times the batch.

PyTorch's own SyncBatchNorm refuses to run on a CPU; this one uses a differentiable all-reduce that
every backend has.
"""

import torch
import torch.distributed
import torch.distributed.nn.functional as distributed
from torch import nn


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with statistics of the whole, distributed batch while training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each channel of (B, C, H, W)."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        counter, momentum = self.num_batches_tracked, self.momentum
        if self.running_mean is None or self.running_var is None or counter is None:
            raise TypeError("a shared batch norm keeps running statistics")
        if momentum is None:
            raise TypeError("a shared batch norm has a momentum")
        full = x.float()
        count = x.numel() / x.shape[1] * torch.distributed.get_world_size()
        mean = _over_all(full.sum(dim=(0, 2, 3))) / count
        centred = full - mean[:, None, None]
        variance = _over_all(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            # As in BatchNorm2d: the variance that is kept is the unbiased one.
            unbiased = variance * count / (count - 1)
            counter.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        result: torch.Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return result.to(x.dtype)


def _over_all(values: torch.Tensor) -> torch.Tensor:
    summed: torch.Tensor = distributed.all_reduce(values)  # type: ignore[no-untyped-call]
    return summed


def share_batch_norm(network: nn.Module) -> None:
    """Make every BatchNorm2d of the network a shared one, in place; names and weights stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
