import math

import pytest
import torch

from training.losses import balanced_cross_entropy, class_weights, dice_loss, joint_loss
from training.options import LossConfig

SHARES = (0.5, 0.25, 0.25)


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 1, 8, 8, generator=generator)
    quality_logits = torch.randn(count, 3, generator=generator)
    quality = torch.arange(count) % 3
    masks = (torch.rand(count, 16, 16, generator=generator) > 0.5).float()
    return logits, quality_logits, masks * (quality > 0)[:, None, None], quality


def test_two_halves_average_to_the_whole() -> None:
    whole = batch(12)
    weights = class_weights(SHARES)
    halves = [[tensor[k::2] for tensor in whole] for k in (0, 1)]
    parts = [joint_loss(a, b, c, d, weights, LossConfig()) for a, b, c, d in halves]
    for name, value in joint_loss(*whole, class_weights(SHARES), LossConfig())._asdict().items():
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
    losses = joint_loss(
        logits,
        torch.zeros(2, 3),
        torch.zeros(2, 8, 8),
        quality,
        class_weights(SHARES),
        LossConfig(),
    )
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert float(losses.dice.detach()) == 0
    assert logits.grad is not None and (logits.grad > 0).all()


def test_every_class_weighs_the_same_in_a_batch_of_these_shares() -> None:
    weights = class_weights(SHARES)
    quality = torch.tensor([0, 0, 1, 2])
    logits = torch.zeros(4, 3, requires_grad=True)
    loss = balanced_cross_entropy(logits, quality, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(loss.detach()) == pytest.approx(math.log(3), abs=1e-5)
    own = [logits.grad[quality == k, k].sum() for k in range(3)]
    torch.testing.assert_close(torch.stack(own), own[0].repeat(3))
