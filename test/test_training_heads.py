"""`fit` with other heads: each learns, quality as a number by mix-up and correlation too."""

import numpy as np
import pytest
import torch
from benchmark_cache import SIZE, write_cache

from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from dataset.cache import Cache
from training.augment import NUMBERS
from training.batches import Batch, Draw, TrainingFrames
from training.mixup import Clusters, MixupConfig
from training.module import AbdomenTraining
from training.options import HeadName, RatingConfig, Recipe

TRUNK = TrunkConfig(SIZE, 4, 64, 4, 64)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return write_cache(tmp_path_factory.mktemp("cache"), 3)


def a_batch(cache: Cache) -> Batch:
    rows = [(case, row) for case in range(3) for row in range(8)]
    uniform = np.full(NUMBERS, 0.5, np.float32)
    batch = TrainingFrames(cache).__getitems__([Draw(c, r, uniform) for c, r in rows])
    assert isinstance(batch, Batch)
    return batch


def training(cache: Cache, head: HeadName, rating: RatingConfig) -> AbdomenTraining:
    torch.manual_seed(0)
    network = AbdomenNet(NetworkConfig(TRUNK, decoder_width=4, head=head))
    return AbdomenTraining(network, Recipe(), cache, cache, rating=rating).train()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "head", ["joint", "class", "rating", "fusion", "fusion-concat", "fusion-late"]
)
def test_every_head_learns_together_with_the_mask(
    head: HeadName, precision: torch.dtype, cache: Cache
) -> None:
    module = training(cache, head, RatingConfig())
    module.clusters.centres.copy_(torch.randn_like(module.clusters.centres))
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        losses = module.losses(a_batch(cache))
    losses["total"].backward()  # type: ignore[no-untyped-call]
    parts = losses["dice"] + losses["bce"] + losses["quality"]
    assert losses["total"].item() == pytest.approx(parts.item(), rel=1e-5)
    for part in (module.network.quality_head, module.network.decoder, module.network.trunk):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_mix_up_begins_once_there_are_clusters_and_each_part_is_an_option(cache: Cache) -> None:
    batch, told = a_batch(cache), {}
    for cmx in (False, True):
        for correlation in (False, True):
            module = training(cache, "fusion", RatingConfig(cmx=cmx, correlation=correlation))
            module.clusters.centres.copy_(torch.randn_like(module.clusters.centres))
            torch.manual_seed(0)
            told[cmx, correlation] = module.losses(batch)["quality"].item()
    assert len(set(told.values())) == 4
    module = training(cache, "fusion", RatingConfig(correlation=False))
    assert module.losses(batch)["quality"].item() == pytest.approx(told[False, False])


def test_clusters_follow_what_was_seen_and_too_little_moves_nothing() -> None:
    clusters = Clusters(2, MixupConfig(clusters=2))
    assert clusters(torch.tensor([[1.0, 0.0]])) is None
    clusters.fit(seed=0)
    assert not clusters.centres.any()
    seen = torch.tensor([[1.0, 0.1], [2.0, 0.1], [0.1, 1.0], [0.1, 3.0]])
    assert clusters(seen) is None
    clusters.fit(seed=0)
    found = clusters(seen)
    assert found is not None
    assert found[0] == found[1] != found[2] == found[3]
