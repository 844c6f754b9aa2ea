"""The loss of heads that say quality as a number: Huber's, mix-up, the correlation.

Of Chen et al. (2025) only the abstract is public: every formula is our interpretation.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from training.correlation import correlation_loss
from training.mixup import MixupConfig, Pool, draw_pairs, mix

# Of the loss nothing but the name is public: both numbers are ours. Errors above a quarter of the
# step from suboptimal (0.6) to optimal (1) count by their size, not by their square.
HUBER_WIDTH = 0.1
CORRELATION_WEIGHT = 0.5


def rating_loss(
    rate: Callable[[torch.Tensor], torch.Tensor],
    mixable: torch.Tensor,
    target: torch.Tensor,
    *,
    pool: Pool | None = None,
    mixup: MixupConfig | None = None,
    correlation: bool = False,
) -> torch.Tensor:
    """Huber's loss of each frame and pseudo-sample, and the correlation over all of them.

    Args:
        rate: gives the quality (n,), 0 to 1, of features.
        mixable: (N, ...), the batch's features.
        target: (N,), its quality as a number.
        pool: what partners are chosen by; None mixes none.
        mixup: how they are mixed; the default where it is None.
        correlation: whether the correlation is part of the loss.

    Returns:
        The loss.
    """
    scores, targets = rate(mixable), target
    if pool is not None:
        pairs = draw_pairs(pool, mixup or MixupConfig())
        scores = torch.cat([scores, rate(mix(mixable, pairs))])
        targets = torch.cat([targets, mix(target, pairs)])
    loss = functional.smooth_l1_loss(scores, targets, beta=HUBER_WIDTH)
    if correlation:
        loss = loss + CORRELATION_WEIGHT * correlation_loss(scores, targets)
    return loss
