"""The quality system: correlation loss against scipy, mix-up in clusters, each part by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_cache import write_cache
from scipy import stats

from benchmark.frames import NO_CLUSTER, Draw, Samples, draw_epoch, frame_table
from benchmark.options import STRICT, QualityParts, WeightSource
from benchmark.partners import plan_batches
from benchmark.protocol import split, tables
from benchmark.quality import Quality
from benchmark.systems import SYSTEMS, Plan, quality_name
from training.correlation import (
    correlation_loss,
    exact_ranks,
    pearson,
    soft_ranks,
    soft_spearman,
)
from training.mixup import (
    MixupConfig,
    Pool,
    draw_pairs,
    fit_clusters,
    mix,
    partner_weights,
)


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=40)).float()


@pytest.fixture
def targets() -> torch.Tensor:
    """Three levels: full of ties."""
    levels = np.random.default_rng(1).integers(0, 3, 40)
    return torch.from_numpy(np.array([0.0, 0.6, 1.0], np.float32)[levels])


def test_pearson_is_scipys(scores: torch.Tensor, targets: torch.Tensor) -> None:
    expected = stats.pearsonr(scores.numpy(), targets.numpy()).statistic
    assert pearson(scores, targets).item() == pytest.approx(expected, abs=1e-6)


def test_exact_ranks_are_scipys_mean_ranks(targets: torch.Tensor) -> None:
    expected = (stats.rankdata(targets.numpy()) - 0.5) / len(targets)
    assert exact_ranks(targets).numpy() == pytest.approx(expected, abs=1e-6)


def test_soft_spearman_becomes_scipys(scores: torch.Tensor, targets: torch.Tensor) -> None:
    expected = stats.spearmanr(scores.numpy(), targets.numpy()).statistic
    assert soft_spearman(scores, targets, 1e-5).item() == pytest.approx(expected, abs=1e-5)
    assert soft_spearman(scores, targets).item() == pytest.approx(expected, abs=0.05)


def test_soft_ranks_of_equal_scores_are_equal() -> None:
    ranks = soft_ranks(torch.tensor([0.1, 0.5, 0.5, 0.9]), 0.1)
    assert ranks[1] == ranks[2]
    assert ranks[0] < ranks[1] < ranks[3]


def test_the_loss_is_none_for_right_order_and_whole_for_reversed() -> None:
    truth = torch.linspace(0, 1, 30)
    assert correlation_loss(truth * 0.3 + 0.2, truth).item() == pytest.approx(0, abs=0.01)
    assert correlation_loss(-truth, truth).item() == pytest.approx(2, abs=0.01)


def test_following_the_loss_puts_scores_in_order(targets: torch.Tensor) -> None:
    scores = torch.randn(40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = stats.spearmanr(scores.detach(), targets).statistic
    for _ in range(50):
        (gradient,) = torch.autograd.grad(correlation_loss(scores, targets), scores)
        with torch.no_grad():
            scores -= 2 * gradient
    assert stats.spearmanr(scores.detach(), targets).statistic > max(0.85, before + 0.3)


@pytest.mark.parametrize("constant", ["scores", "targets"])
def test_nothing_that_varies_costs_nothing(constant: str) -> None:
    varied, flat = torch.linspace(0, 1, 9), torch.full((9,), 0.4)
    pair = (flat, varied) if constant == "scores" else (varied, flat)
    scores = pair[0].clone().requires_grad_()
    loss = correlation_loss(scores, pair[1])
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_partners_are_of_the_cluster_near_in_quality_and_of_others() -> None:
    pool = Pool(
        target=torch.tensor([0.0, 0.0, 0.6, 1.0, 0.0]),
        subject=torch.tensor([0, 0, 1, 2, 3]),
        cluster=torch.tensor([0, 0, 0, 0, 1]),
    )
    weights = partner_weights(pool, pool, MixupConfig())
    assert weights[0].tolist() == pytest.approx([0, 0, np.exp(-4.5), np.exp(-12.5), 0])
    # Alone in its cluster: only itself is left, whatever its subject.
    assert weights[4].tolist() == [0, 0, 0, 0, 1]
    anything = partner_weights(pool, pool, MixupConfig(partners="any"))
    assert anything[0].tolist() == [0, 0, 1, 1, 0]
    foreign = partner_weights(pool, pool, MixupConfig(partners="across"))
    assert foreign[0].tolist() == [0, 0, 0, 0, 1]
    assert foreign[4].tolist() == pytest.approx([1, 1, np.exp(-4.5), np.exp(-12.5), 0])


def test_pairs_stay_in_their_cluster() -> None:
    torch.manual_seed(0)
    samples = _samples(cluster=[0, 0, 0, 1, 1, 2], subject=[0, 1, 2, 0, 1, 0])
    pairs = draw_pairs(
        Pool(samples.target, samples.subject, samples.cluster), MixupConfig(pseudo_samples=4)
    )
    assert len(pairs.first) == 5 * 4  # The last one has no partner.
    assert (samples.cluster[pairs.first] == samples.cluster[pairs.second]).all()
    assert (samples.subject[pairs.first] != samples.subject[pairs.second]).all()
    assert bool(((pairs.share > 0) & (pairs.share < 1)).all())


def test_mixing_is_linear() -> None:
    samples = _samples(cluster=[0, 0], subject=[0, 1])
    pairs = draw_pairs(Pool(samples.target, samples.subject, samples.cluster), MixupConfig())
    values = torch.tensor([[2.0, 4.0], [10.0, 20.0]])
    share = pairs.share[:, None]
    expected = share * values[pairs.first] + (1 - share) * values[pairs.second]
    assert torch.allclose(mix(values, pairs), expected)


def _samples(cluster: list[int], subject: list[int]) -> Samples:
    n = len(cluster)
    return Samples(
        torch.zeros(n, 32, 32, dtype=torch.uint8),
        torch.zeros(n, 32, 32, dtype=torch.uint8),
        torch.arange(n) % 3,
        torch.tensor([0.0, 0.6, 1.0])[torch.arange(n) % 3],
        torch.tensor(subject),
        torch.tensor(cluster),
    )


def test_clusters_go_by_direction() -> None:
    generator = np.random.default_rng(0)
    axes = np.eye(3)[np.arange(60) % 3]
    embeddings = axes * generator.uniform(1, 50, (60, 1)) + generator.normal(0, 0.05, (60, 3))
    clusters = fit_clusters(embeddings, MixupConfig(clusters=3), seed=0)
    assert all(len(set(clusters[k::3])) == 1 for k in range(3))
    assert len(set(clusters)) == 3


def test_black_frames_do_not_ask_for_more_clusters_than_there_are() -> None:
    assert set(fit_clusters(np.ones((20, 4)), MixupConfig(), seed=0)) == {0}


def test_a_planned_epoch_pairs_inside_clusters_of_training_subjects(tmp_path: Path) -> None:
    cache = write_cache(tmp_path, 20)
    cases = split(cache, STRICT)
    table = tables(cases, STRICT).training
    generator = np.random.default_rng(0)
    draws = draw_epoch(len(table), copies=1, limit=400, generator=generator)
    clusters = np.full(len(table), NO_CLUSTER)
    pool = np.array([draw.row for draw in draws])
    clusters[pool] = generator.integers(0, 4, len(pool))
    batches = plan_batches(
        draws, table, clusters, batch_size=16, config=MixupConfig(), generator=generator
    )
    held_out = {case.facts.subject for part in cases[1:] for case in part.cases}
    pairs = [(batch[k], batch[k + 1]) for batch in batches for k in range(0, len(batch), 2)]
    assert len(pairs) == 200
    for anchor, partner in pairs:
        assert clusters[anchor.row] == clusters[partner.row] != NO_CLUSTER
        assert table.subject[anchor.row] != table.subject[partner.row]
        assert table.cache.cases[table.case[partner.row]].facts.subject not in held_out


def test_a_planned_epoch_may_pair_across_clusters(tmp_path: Path) -> None:
    table = frame_table(write_cache(tmp_path, 12), annotated_sweeps_only=True)
    generator = np.random.default_rng(0)
    clusters = generator.integers(0, 3, len(table))
    clusters[::2] = NO_CLUSTER
    draws = [Draw(int(row), 0) for row in np.flatnonzero(clusters != NO_CLUSTER)]
    batches = plan_batches(
        draws,
        table,
        clusters,
        batch_size=16,
        config=MixupConfig(partners="across"),
        generator=generator,
    )
    pairs = [(batch[k], batch[k + 1]) for batch in batches for k in range(0, len(batch), 2)]
    assert len(pairs) == len(draws) // 2
    for anchor, partner in pairs:
        assert NO_CLUSTER != clusters[partner.row] != clusters[anchor.row]
        assert table.subject[anchor.row] != table.subject[partner.row]


def test_planned_batches_look_like_the_whole(tmp_path: Path) -> None:
    table = frame_table(write_cache(tmp_path, 12), annotated_sweeps_only=True)
    draws = [Draw(row, 0) for row in range(len(table))]
    batches = plan_batches(
        draws * 2,
        table,
        np.zeros(len(table), np.int64),
        batch_size=60,
        config=MixupConfig(),
        generator=np.random.default_rng(0),
    )
    share = np.mean(table.quality > 0)
    for batch in batches:
        anchors = [draw.row for draw in batch[::2]]
        assert np.mean(table.quality[anchors] > 0) == pytest.approx(share, abs=1.5 / len(anchors))


@pytest.mark.parametrize(
    ("fusion", "cmx", "correlation"),
    [
        (True, True, True),
        (False, True, True),
        (True, False, True),
        (True, True, False),
        (False, False, False),
    ],
)
def test_each_part_can_be_left_out(fusion: bool, cmx: bool, correlation: bool) -> None:
    torch.manual_seed(0)
    uses = QualityParts(fusion, cmx, correlation)
    system = SYSTEMS[quality_name(uses)]
    network = system.build(Plan(32, STRICT, WeightSource(), stand_ins=True)).network
    assert isinstance(network, Quality)
    assert (system.mixup is not None) is cmx
    samples = _samples(cluster=[0] * 6, subject=[0, 1, 2, 3, 4, 5])
    samples = samples._replace(frames=torch.randint(0, 255, (6, 32, 32), dtype=torch.uint8))
    answer = network.train()(samples.frames)
    training = network.loss(answer, samples)
    training.backward()  # type: ignore[no-untyped-call]
    held_out = network.eval().loss(answer, samples)
    plain = torch.nn.functional.smooth_l1_loss(answer.quality, samples.target, beta=0.1)
    assert held_out.item() == pytest.approx(plain.item())
    assert (training.item() == pytest.approx(plain.item())) is not (cmx or correlation)


@pytest.mark.parametrize(
    "name",
    ["quality-fusion-concat", "quality-fusion-late", "quality-cmx-any", "quality-cmx-across"],
)
def test_other_readings_of_the_paper_learn_too(name: str) -> None:
    torch.manual_seed(0)
    network = SYSTEMS[name].build(Plan(32, STRICT, WeightSource(), stand_ins=True)).network
    assert isinstance(network, Quality)
    samples = _samples(cluster=[0, 0, 0, 1, 1, 1], subject=[0, 1, 2, 3, 4, 5])
    samples = samples._replace(frames=torch.randint(0, 255, (6, 32, 32), dtype=torch.uint8))
    answer = network.train()(samples.frames)
    assert bool(((answer.quality > 0) & (answer.quality < 1)).all())
    network.loss(answer, samples).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in network.head.parameters())


def test_names_tell_what_is_left_out() -> None:
    assert quality_name(QualityParts()) == "quality"
    assert quality_name(QualityParts(cmx=False)) == "quality-no-cmx"
    assert SYSTEMS["quality-no-fusion-no-cmx-no-correlation"].mixup is None
