"""Batches for mix-up: anchors of all kinds, each with a partner that it can be mixed with."""

import numpy as np
import torch

from benchmark.frames import NO_CLUSTER, Draw, FrameTable, in_batches
from training.mixup import MixupConfig, Pool, partner_weights

# Weights of 512 anchors and 50,000 candidates are 100 MB.
ANCHORS_AT_ONCE = 512


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
        config: which frames may be partners.
        generator: of the random numbers.

    Returns:
        Batches in which every second draw is the partner of the one before.
    """
    anchors = draws[: max(1, len(draws) // 2)]
    partners = _partners(anchors, table, clusters, config, generator)
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
    config: MixupConfig,
    generator: np.random.Generator,
) -> list[Draw]:
    """A partner of each anchor, in the anchor's own variation; itself where it has none."""
    torch_generator = torch.Generator().manual_seed(int(generator.integers(2**31)))
    result = list(anchors)
    anchor_clusters = clusters[[draw.row for draw in anchors]]
    for cluster in np.unique(anchor_clusters):
        alike = clusters == cluster
        members = np.flatnonzero(
            ~alike & (clusters != NO_CLUSTER) if config.partners == "across" else alike
        )
        candidates = _pool(table, clusters, members)
        mine = np.flatnonzero(anchor_clusters == cluster)
        for start in range(0, len(mine), ANCHORS_AT_ONCE):
            chunk = mine[start : start + ANCHORS_AT_ONCE]
            index = np.array([anchors[k].row for k in chunk])
            weights = partner_weights(_pool(table, clusters, index), candidates, config)
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
