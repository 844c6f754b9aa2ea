import numpy as np
import torch

from acouslic.network import AbdomenNet
from acouslic.preprocess import to_grid
from acouslic.segment import predict


def test_batched_equals_single_and_black_frames_stay_zero(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    network = tiny_network.eval()
    together = predict([network], grid, tissue, batch_size=4)
    alone = predict([network], grid, tissue, batch_size=1)
    assert together.quality.shape == (12, 3)
    assert together.mask_logits.shape == (12, 32, 32)
    assert np.allclose(together.quality, alone.quality, atol=1e-5)
    assert np.allclose(together.mask_logits, alone.mask_logits, atol=1e-2)
    assert np.allclose(together.quality[tissue].sum(axis=1), 1, atol=1e-5)
    assert not together.quality[~tissue].any()
    assert not together.mask_logits[~tissue].any()


def test_an_ensemble_is_the_mean_of_its_members(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    network = tiny_network.eval()
    other = type(network)(network.config).eval()
    first, second = (predict([member], grid, tissue).quality for member in (network, other))
    both = predict([network, other], grid, tissue).quality
    assert np.allclose(both, (first + second) / 2, atol=1e-6)
    assert not np.allclose(first, second, atol=1e-3)


def test_a_stack_is_predicted_the_same_every_time(
    tiny_network: AbdomenNet, frames: np.ndarray
) -> None:
    tissue = np.array([True, False] * 6)
    grid = to_grid(frames[tissue], 32)
    results = [predict([tiny_network.eval()], grid, tissue) for _ in range(2)]
    assert np.array_equal(results[0].mask_logits, results[1].mask_logits)
    assert torch.equal(grid, to_grid(frames[tissue], 32))
