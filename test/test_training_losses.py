import math

import pytest
import torch

from training.losses import Losses, balanced_cross_entropy, class_weights, dice_loss, joint_loss
from training.options import LossConfig

SHARES = (0.5, 0.25, 0.25)


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 1, 8, 8, generator=generator)
    quality_logits = torch.randn(count, 3, generator=generator)
    quality = torch.arange(count) % 3
    masks = (torch.rand(count, 16, 16, generator=generator) > 0.5).float()
    return logits, quality_logits, masks * (quality > 0)[:, None, None], quality


def loss(
    mask_logits: torch.Tensor,
    quality_logits: torch.Tensor,
    masks: torch.Tensor,
    quality: torch.Tensor,
    teaches_mask: torch.Tensor | None = None,
) -> Losses:
    """The joint loss with usual weights; all masks are known unless it is said otherwise."""
    known = torch.ones(len(quality), dtype=torch.bool) if teaches_mask is None else teaches_mask
    return joint_loss(
        mask_logits,
        quality_logits,
        masks,
        quality,
        teaches_mask=known,
        class_weights=class_weights(SHARES),
        config=LossConfig(),
    )


def test_two_halves_average_to_the_whole() -> None:
    whole = (*batch(12), torch.arange(12) % 5 > 0)
    parts = [loss(*(tensor[k::2] for tensor in whole)) for k in (0, 1)]
    for name, value in loss(*whole)._asdict().items():
        mean = sum(getattr(part, name) for part in parts) / 2
        torch.testing.assert_close(mean, value)


def test_a_perfect_mask_has_no_dice_loss_and_an_inverted_one_nearly_all() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    annotated = torch.tensor([True])
    assert float(dice_loss(40 * mask - 20, mask, annotated)) == pytest.approx(0, abs=1e-3)
    assert float(dice_loss(20 - 40 * mask, mask, annotated)) > 0.99


def test_frames_without_abdomen_push_the_mask_down() -> None:
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
    quality = torch.zeros(2, dtype=torch.long)
    losses = loss(logits, torch.zeros(2, 3), torch.zeros(2, 8, 8), quality)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert float(losses.dice.detach()) == 0
    assert logits.grad is not None and (logits.grad > 0).all()


def test_a_frame_whose_mask_is_not_known_teaches_none() -> None:
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
    known = torch.tensor([True, False])
    quality = torch.zeros(2, dtype=torch.long)
    losses = loss(logits, torch.zeros(2, 3), torch.zeros(2, 8, 8), quality, known)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[0] > 0).all() and (logits.grad[1] == 0).all()


def test_every_class_weighs_the_same_in_a_batch_of_these_shares() -> None:
    weights = class_weights(SHARES)
    quality = torch.tensor([0, 0, 1, 2])
    logits = torch.zeros(4, 3, requires_grad=True)
    balanced = balanced_cross_entropy(logits, quality, weights)
    balanced.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(balanced.detach()) == pytest.approx(math.log(3), abs=1e-5)
    own = [logits.grad[quality == k, k].sum() for k in range(3)]
    torch.testing.assert_close(torch.stack(own), own[0].repeat(3))
