"""Clustering-based mix-up (CMX): partners of the same cluster, of similar quality.

Our interpretation of Chen et al. (2025): k-means on the trunk's embeddings, C-Mixup's kernel
(arXiv 2210.05775) inside a cluster, another subject preferred. `MixupConfig.partners` has two other
readings. All frames here are training frames.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans

# Of 32 frames each: as many as tell 16 clusters apart.
BATCHES_KEPT = 64


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
    partners: Literal["similar", "any", "across"] = "similar"
    """similar: of the same cluster and of similar quality; any: of the same cluster; across: of
    another cluster and of similar quality."""


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


class Clusters(torch.nn.Module):
    """Which cluster a frame is in, where there is no time to embed all frames beforehand.

    Of the last frames that were seen the directions of their embeddings are kept; k-means on them
    gives the centres by which the next frames are told apart.
    """

    def __init__(self, width: int, config: MixupConfig | None = None) -> None:
        """Keep nothing yet.

        Args:
            width: numbers an embedding.
            config: the number of clusters.
        """
        super().__init__()
        self.config = config or MixupConfig()
        self.centres: torch.Tensor
        # Zeros until they are fitted: a checkpoint holds them in one shape.
        self.register_buffer("centres", torch.zeros(self.config.clusters, width))
        self._kept: deque[np.ndarray] = deque(maxlen=BATCHES_KEPT)

    @torch.no_grad()
    def forward(self, embeddings: torch.Tensor) -> torch.Tensor | None:
        """The clusters (N,) of embeddings (N, width), which are kept; None before the first fit."""
        directions = torch.nn.functional.normalize(embeddings.float(), dim=1)
        self._kept.append(directions.cpu().numpy())
        if not self.centres.any():
            return None
        return (directions @ self.centres.T).argmax(dim=1)

    def fit(self, seed: int) -> None:
        """Move the centres to where the last embeddings are; too few of them move nothing."""
        points = np.concatenate([np.zeros((0, self.centres.shape[1])), *self._kept])
        self._kept.clear()
        if len(np.unique(points.round(4), axis=0)) < self.config.clusters:
            return
        means = KMeans(self.config.clusters, n_init=1, random_state=seed).fit(points)
        self.centres.copy_(torch.from_numpy(means.cluster_centers_))


def partner_weights(anchors: Pool, candidates: Pool, config: MixupConfig) -> torch.Tensor:
    """How likely each candidate is to become each anchor's partner.

    exp(-(y_i - y_j)^2 / (2 sigma^2)) in the same cluster, else 0; `config.partners` has other
    readings. Where candidates of other subjects may be partners, only these count. The caller has
    to leave the anchor itself out.

    Args:
        anchors: a of them.
        candidates: c of them.
        config: width of the kernel over quality, and the reading.

    Returns:
        (a, c), not normalised.
    """
    apart = (anchors.target[:, None] - candidates.target[None]) ** 2
    near = torch.exp(-apart / (2 * config.sigma**2))
    same = anchors.cluster[:, None] == candidates.cluster[None]
    weights = {"similar": near * same, "any": same.to(near.dtype), "across": near * ~same}[
        config.partners
    ]
    foreign = weights * (anchors.subject[:, None] != candidates.subject[None])
    return torch.where(foreign.sum(dim=1, keepdim=True) > 0, foreign, weights)


def draw_pairs(samples: Pool, config: MixupConfig) -> Pairs:
    """Draw pseudo-samples for each sample of a batch that has a partner in it."""
    weights = partner_weights(samples, samples, config).fill_diagonal_(0)
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
