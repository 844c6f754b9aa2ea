"""The losses. Each is a mean over frames: processes and accumulated passes make one large batch.

Mask logits are (B, 1, G, G), masks (B, G, G) coverage in 0..1, quality logits (B, 3) in the order
of Quality.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

from training.options import LossConfig

# Pixels added above and below the fraction: two empty masks agree, and the gradient stays finite.
DICE_SMOOTHING = 1.0


class Losses(NamedTuple):
    """The loss and its terms, each a scalar."""

    total: torch.Tensor
    """The weighted sum of the three."""
    dice: torch.Tensor
    """1 - soft Dice of annotated frames."""
    bce: torch.Tensor
    """Cross-entropy of the mask, a pixel."""
    quality: torch.Tensor
    """Cross-entropy of the quality."""


def joint_loss(
    mask_logits: torch.Tensor,
    quality_logits: torch.Tensor,
    masks: torch.Tensor,
    quality: torch.Tensor,
    *,
    teaches_mask: torch.Tensor,
    class_weights: torch.Tensor,
    config: LossConfig,
) -> Losses:
    """Segmentation and quality together.

    Args:
        mask_logits: (B, 1, G, G).
        quality_logits: (B, 3).
        masks: (B, S, S); they are resized to the logits' grid.
        quality: (B,), values of Quality.
        teaches_mask: (B,) bool, the frames whose masks are known.
        class_weights: (3,), the weight of each quality.
        config: the weights of the terms.
    """
    target = functional.interpolate(
        masks[:, None], size=mask_logits.shape[-2:], mode="bilinear", align_corners=False
    )
    dice = dice_loss(mask_logits, target, quality > 0)
    bce = mask_cross_entropy(mask_logits, target, teaches_mask)
    quality_term = balanced_cross_entropy(quality_logits, quality, class_weights)
    total = config.dice * dice + config.bce * bce + config.quality * quality_term
    return Losses(total, dice, bce, quality_term)


def mask_cross_entropy(
    mask_logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy a pixel of the frames whose masks are known, as a mean over all frames.

    Args:
        mask_logits: (B, 1, G, G).
        masks: (B, 1, G, G) coverage in 0..1.
        known: (B,) bool.
    """
    by_pixel = functional.binary_cross_entropy_with_logits(mask_logits, masks, reduction="none")
    return (by_pixel.mean(dim=(1, 2, 3)) * known).mean()


def dice_loss(
    mask_logits: torch.Tensor, masks: torch.Tensor, annotated: torch.Tensor
) -> torch.Tensor:
    """1 - soft Dice of the annotated frames, 0 for the others, as a mean over all frames.

    On a frame without abdomen Dice has next to no gradient; there the cross-entropy does the work.

    Args:
        mask_logits: (B, 1, G, G).
        masks: (B, 1, G, G) coverage in 0..1.
        annotated: (B,) bool.
    """
    probability = mask_logits.sigmoid().flatten(1)
    target = masks.flatten(1)
    overlap = 2 * (probability * target).sum(dim=1) + DICE_SMOOTHING
    size = probability.sum(dim=1) + target.sum(dim=1) + DICE_SMOOTHING
    return ((1 - overlap / size) * annotated).mean()


def balanced_cross_entropy(
    logits: torch.Tensor, quality: torch.Tensor, class_weights: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy with a weight for each class, divided by the number of frames.

    PyTorch's own weighted mean divides by the weights in the batch, which makes halves of a batch
    unequal to the whole.

    Args:
        logits: (B, 3).
        quality: (B,), values of Quality.
        class_weights: (3,), the weight of each quality.
    """
    by_frame = functional.cross_entropy(logits, quality, reduction="none")
    return (by_frame * class_weights[quality]).mean()


def class_weights(shares: tuple[float, float, float]) -> torch.Tensor:
    """Weights that make each class count alike where a batch holds these shares of them.

    Args:
        shares: of none, suboptimal and optimal frames; their sum is 1.

    Returns:
        (3,); the mean weight of a batch's frames is 1.
    """
    return torch.tensor([1 / (len(shares) * share) for share in shares])
