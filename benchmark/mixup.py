"""Clustering-based mix-up (CMX): partners from the same cluster, of similar quality, elsewhere.

Our interpretation of Chen et al. (2025): k-means on the trunk's embeddings, C-Mixup's kernel
(arXiv 2210.05775) inside a cluster, another subject preferred. Everything here is about training
frames; no other frame is ever handed in.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans

from benchmark.frames import Draw, FrameTable, Samples, in_batches

ANCHORS_AT_ONCE = 512


@dataclass(frozen=True)
class MixupConfig:
    """sigma: of the kernel over quality; beta: of lambda ~ Beta(beta, beta).

    pseudo_samples: for each real one.
    """

    clusters: int = 16
    sigma: float = 0.2
    beta: float = 2.0
    pseudo_samples: int = 3


class Pool(NamedTuple):
    """What partners are chosen by; each (n,)."""

    target: torch.Tensor
    subject: torch.Tensor
    cluster: torch.Tensor


class Pairs(NamedTuple):
    """Pseudo-samples of a batch, each (p,): two rows and the share of the first."""

    first: torch.Tensor
    second: torch.Tensor
    share: torch.Tensor


def fit_clusters(embeddings: np.ndarray, config: MixupConfig, seed: int) -> np.ndarray:
    """The cluster of each training frame, (n,) int64, by the directions of (n, E) embeddings."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = (embeddings / np.maximum(length, 1e-12)).astype(np.float32)
    # Black frames are all alike: there may be fewer different points than clusters.
    different = len(np.unique(directions.round(4), axis=0))
    means = KMeans(min(config.clusters, different), n_init=1, random_state=seed)
    return np.asarray(means.fit_predict(directions), np.int64)


def partner_weights(
    anchors: Samples | Pool, candidates: Samples | Pool, sigma: float
) -> torch.Tensor:
    """(a, c): exp(-(y_i - y_j)^2 / (2 sigma^2)) in the same cluster, else 0.

    Another subject's frames alone, where an anchor has any; the frame itself must be left out by
    the caller.
    """
    near = torch.exp(-((anchors.target[:, None] - candidates.target[None]) ** 2) / (2 * sigma**2))
    weights = near * (anchors.cluster[:, None] == candidates.cluster[None])
    foreign = weights * (anchors.subject[:, None] != candidates.subject[None])
    return torch.where(foreign.sum(dim=1, keepdim=True) > 0, foreign, weights)


def draw_pairs(samples: Samples, config: MixupConfig) -> Pairs:
    """Several pseudo-samples for each sample of a batch that has a partner in it."""
    weights = partner_weights(samples, samples, config.sigma).fill_diagonal_(0)
    first = torch.nonzero(weights.sum(dim=1) > 0)[:, 0]
    if not len(first):
        return Pairs(first, first, weights.new_zeros(0))
    second = torch.multinomial(weights[first], config.pseudo_samples, replacement=True)
    beta = torch.distributions.Beta(config.beta, config.beta)
    share = beta.sample(torch.Size((second.numel(),))).to(weights.device)
    return Pairs(first.repeat_interleave(config.pseudo_samples), second.flatten(), share)


def mix(values: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """(p, ...): share x first + (1 - share) x second of (B, ...) values."""
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
    """Batches that look like the whole set: anchors stratified over cluster and quality, each with
    a partner.

    `clusters` (len(table),), NO_CLUSTER for a frame that is no candidate. Half of the draws are
    used as anchors, so that an epoch costs as much as any other system's.
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
    """For each anchor a frame of its cluster, in the anchor's own copy; itself where alone."""
    torch_generator = torch.Generator().manual_seed(int(generator.integers(2**31)))
    result = list(anchors)
    anchor_clusters = clusters[[draw.row for draw in anchors]]
    for cluster in np.unique(anchor_clusters):
        members = np.flatnonzero(clusters == cluster)
        candidates = _pool(table, clusters, members)
        mine = np.flatnonzero(anchor_clusters == cluster)
        for start in range(0, len(mine), ANCHORS_AT_ONCE):
            part = mine[start : start + ANCHORS_AT_ONCE]
            index = np.array([anchors[k].row for k in part])
            weights = partner_weights(_pool(table, clusters, index), candidates, sigma)
            weights[torch.from_numpy(index[:, None] == members[None])] = 0
            for k, row in zip(part, weights, strict=True):
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
