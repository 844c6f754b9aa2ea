"""Clustering-based mix-up (CMX): partners of the same cluster, of similar quality.

Our interpretation of Chen et al. (2025): k-means on the trunk's embeddings, C-Mixup's kernel
(arXiv 2210.05775) inside a cluster, another subject preferred. All frames here are training frames.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans

from benchmark.frames import Draw, FrameTable, Samples, in_batches

# Weights of 512 anchors and 50,000 candidates are 100 MB.
ANCHORS_AT_ONCE = 512


@dataclass(frozen=True)
class MixupConfig:
    """How frames are mixed. The paper gives none of these numbers; they are ours."""

    clusters: int = 16
    """Number of clusters of embeddings."""
    sigma: float = 0.2
    """Width of the kernel over quality: optimal (1) with suboptimal (0.6) has the weight 0.14."""
    beta: float = 2.0
    """Shares are drawn from Beta(beta, beta): mostly near one half."""
    pseudo_samples: int = 3
    """Mixed samples for each real one."""


class Pool(NamedTuple):
    """What partners are chosen by."""

    target: torch.Tensor
    """(n,), quality as a number."""
    subject: torch.Tensor
    """(n,), number of the subject."""
    cluster: torch.Tensor
    """(n,), number of the cluster."""


class Pairs(NamedTuple):
    """Pseudo-samples of a batch."""

    first: torch.Tensor
    """(p,), row of the first sample."""
    second: torch.Tensor
    """(p,), row of the second sample."""
    share: torch.Tensor
    """(p,), share of the first sample, 0 to 1."""


def fit_clusters(embeddings: np.ndarray, config: MixupConfig, seed: int) -> np.ndarray:
    """Cluster training frames by the directions of their embeddings.

    Args:
        embeddings: (n, E).
        config: the number of clusters.
        seed: of k-means.

    Returns:
        (n,) int64, the cluster of each frame.
    """
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = (embeddings / np.maximum(length, 1e-12)).astype(np.float32)
    # Black frames are all alike: there may be fewer different points than clusters.
    different = len(np.unique(directions.round(4), axis=0))
    means = KMeans(min(config.clusters, different), n_init=1, random_state=seed)
    return np.asarray(means.fit_predict(directions), np.int64)


def partner_weights(
    anchors: Samples | Pool, candidates: Samples | Pool, sigma: float
) -> torch.Tensor:
    """How likely each candidate is to become each anchor's partner.

    exp(-(y_i - y_j)^2 / (2 sigma^2)) in the same cluster, else 0. Where an anchor's cluster has
    frames of other subjects, only these count. The caller has to leave the anchor itself out.

    Args:
        anchors: a of them.
        candidates: c of them.
        sigma: width of the kernel over quality.

    Returns:
        (a, c), not normalised.
    """
    near = torch.exp(-((anchors.target[:, None] - candidates.target[None]) ** 2) / (2 * sigma**2))
    weights = near * (anchors.cluster[:, None] == candidates.cluster[None])
    foreign = weights * (anchors.subject[:, None] != candidates.subject[None])
    return torch.where(foreign.sum(dim=1, keepdim=True) > 0, foreign, weights)


def draw_pairs(samples: Samples, config: MixupConfig) -> Pairs:
    """Draw pseudo-samples for each sample of a batch that has a partner in it."""
    weights = partner_weights(samples, samples, config.sigma).fill_diagonal_(0)
    first = torch.nonzero(weights.sum(dim=1) > 0)[:, 0]
    if not len(first):
        return Pairs(first, first, weights.new_zeros(0))
    second = torch.multinomial(weights[first], config.pseudo_samples, replacement=True)
    beta = torch.distributions.Beta(config.beta, config.beta)
    share = beta.sample(torch.Size((second.numel(),))).to(weights.device)
    return Pairs(first.repeat_interleave(config.pseudo_samples), second.flatten(), share)


def mix(values: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """Mix values.

    Args:
        values: (B, ...), of the batch's samples.
        pairs: p of them.

    Returns:
        (p, ...): share x first + (1 - share) x second.
    """
    share = pairs.share.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return share * values[pairs.first] + (1 - share) * values[pairs.second]


def plan_batches(
    draws: list[Draw],
    table: FrameTable,
    clusters: np.ndarray,
    *,
    batch_size: int,
    config: MixupConfig,
    generator: np.random.Generator,
) -> list[list[Draw]]:
    """Plan batches that look like the whole set: anchors of all kinds, each with a partner.

    A kind is a cluster and a quality. Half of the draws are used as anchors, so that an epoch costs
    as much as any other system's.

    Args:
        draws: those of the epoch.
        table: the training frames.
        clusters: (len(table),), NO_CLUSTER for a frame that cannot be a partner.
        batch_size: frames a batch, partners included.
        config: the kernel's width.
        generator: of the random numbers.

    Returns:
        Batches in which every second draw is the partner of the one before.
    """
    anchors = draws[: max(1, len(draws) // 2)]
    partners = _partners(anchors, table, clusters, config.sigma, generator)
    index = np.array([draw.row for draw in anchors])
    strata = np.lexsort((generator.random(len(index)), table.target[index], clusters[index]))
    n_batches = len(in_batches(anchors, max(1, batch_size // 2)))
    batches = []
    for number in range(n_batches):
        # Every n-th of the sorted anchors: each stratum gets its share of each batch.
        chosen = strata[number::n_batches]
        batches.append([draw for k in chosen for draw in (anchors[k], partners[k])])
    return [batches[k] for k in generator.permutation(n_batches)]


def _partners(
    anchors: list[Draw],
    table: FrameTable,
    clusters: np.ndarray,
    sigma: float,
    generator: np.random.Generator,
) -> list[Draw]:
    """A frame of each anchor's cluster, in the anchor's own variation; itself where it is alone."""
    torch_generator = torch.Generator().manual_seed(int(generator.integers(2**31)))
    result = list(anchors)
    anchor_clusters = clusters[[draw.row for draw in anchors]]
    for cluster in np.unique(anchor_clusters):
        members = np.flatnonzero(clusters == cluster)
        candidates = _pool(table, clusters, members)
        mine = np.flatnonzero(anchor_clusters == cluster)
        for start in range(0, len(mine), ANCHORS_AT_ONCE):
            chunk = mine[start : start + ANCHORS_AT_ONCE]
            index = np.array([anchors[k].row for k in chunk])
            weights = partner_weights(_pool(table, clusters, index), candidates, sigma)
            weights[torch.from_numpy(index[:, None] == members[None])] = 0
            for k, row in zip(chunk, weights, strict=True):
                if row.sum() > 0:
                    chosen = int(torch.multinomial(row, 1, generator=torch_generator))
                    result[k] = Draw(int(members[chosen]), anchors[k].variation)
    return result


def _pool(table: FrameTable, clusters: np.ndarray, index: np.ndarray) -> Pool:
    return Pool(
        torch.from_numpy(table.target[index]),
        torch.from_numpy(table.subject[index]),
        torch.from_numpy(clusters[index]),
    )
