"""The moving average of weights."""

import pytest
import torch
from torch import nn

from training.averaging import WeightAverage


class Small(nn.Module):
    """What moves, what is kept beside it, and what is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.moving = nn.Linear(2, 2)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(2))
        self.frozen = nn.Linear(2, 1).requires_grad_(False)


def stepped(net: Small, average: WeightAverage, values: list[float]) -> None:
    for value in values:
        nn.init.constant_(net.moving.weight, value)
        net.mean.fill_(value)
        average.update(net)


def test_the_average_follows_its_formula_and_leaves_frozen_weights_out() -> None:
    net, average = Small(), WeightAverage(0.9)
    stepped(net, average, [1.0, 2.0, 4.0])
    after_two = 2 / 11 * 1 + 9 / 11 * 2
    expected = 3 / 12 * after_two + 9 / 12 * 4
    assert float(average.values["moving.weight"][0, 0]) == pytest.approx(expected)
    assert float(average.values["mean"][0]) == pytest.approx(expected)
    assert "frozen.weight" not in average.values


def test_in_the_long_run_the_decay_counts() -> None:
    net, average = Small(), WeightAverage(0.5)
    stepped(net, average, [0.0] * 50)
    stepped(net, average, [1.0, 1.0])
    assert float(average.values["moving.weight"][0, 0]) == pytest.approx(0.75)


def test_without_decay_the_last_weights_are_kept() -> None:
    net, average = Small(), WeightAverage(0.0)
    stepped(net, average, [1.0, 2.0, 5.0])
    assert float(average.values["moving.weight"][0, 0]) == 5


def test_swapped_twice_is_as_before_and_restored_goes_on_alike() -> None:
    net, average = Small(), WeightAverage(0.9)
    stepped(net, average, [1.0, 2.0])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    mean = average.values["moving.weight"].clone()
    average.swap(net)
    torch.testing.assert_close(net.moving.weight.detach(), mean)
    average.swap(net)
    torch.testing.assert_close(net.state_dict(), before)
    again = WeightAverage(0.9)
    again.restore(average.state())
    for one in (average, again):
        stepped(net, one, [3.0])
    torch.testing.assert_close(again.values, average.values)
    assert again.steps == 3
