"""`fit`: one fold of adapters, decoder and quality head upon a frozen base."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from acouslic.errors import InputError
from acouslic.lora import LoraConfig, add_lora
from acouslic.network import AbdomenNet, NetworkConfig
from dataset.cache import Cache, open_cache
from dataset.folds import split
from training.base import base_sha256, load_base
from training.curves import draw_curves
from training.module import AbdomenTraining, Recipe
from training.runs import Machine, run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """What is fitted: which fold of how many, the adapters' size, and how. `split_seed` is the
    same for all folds.
    """

    fold: int
    folds: int
    split_seed: int
    decoder_width: int
    lora: LoraConfig
    recipe: Recipe
    validate_every: int = 1


def fold_folder(output: Path, fold: int) -> Path:
    return output / f"fold-{fold}"


def fit(
    cache_folder: Path, base: Path, output: Path, options: FitOptions, machine: Machine
) -> dict[str, Any]:
    """Train one fold into `output`/fold-K and draw its curves. Returns the figures of its best
    epoch.
    """
    cache = open_cache(cache_folder)
    network = adapted_network(base, cache, options)
    training, validation = split(
        cache, fold=options.fold, folds=options.folds, seed=options.split_seed
    )
    log.info("%d cases to train on, %d held out", len(training.cases), len(validation.cases))
    folder = fold_folder(output, options.fold)
    module = AbdomenTraining(network, options.recipe, training, validation, workers=machine.workers)
    result = run(
        folder,
        module,
        machine,
        identity=identity(network, base, cache, options),
        validate_every=options.validate_every,
    )
    draw_curves(folder)
    return result


def identity(network: AbdomenNet, base: Path, cache: Cache, options: FitOptions) -> dict[str, Any]:
    """What rebuilds the network of a run without its flags, and tells which base it stands on and
    whether it saw phantoms.
    """
    return {
        "network": network.config.to_dict(),
        "lora": asdict(options.lora),
        "base_sha256": base_sha256(base),
        "fold": options.fold,
        "folds": options.folds,
        "split_seed": options.split_seed,
        "simulated": cache.simulated,
    }


def adapted_network(base: Path, cache: Cache, options: FitOptions) -> AbdomenNet:
    """Fresh heads and adapters, from the recipe's seed, on the frozen base.

    Raises InputError where the cache's frames are not of the base's size.
    """
    config, trunk, _ = load_base(base)
    if config.image_size != cache.size:
        raise InputError(
            expected=f"frames of {config.image_size} px, as {base} was trained on",
            found=f"a cache of {cache.size} px",
            advice=f"prepare it again with --size {config.image_size}",
        )
    torch.manual_seed(options.recipe.seed)
    network = AbdomenNet(NetworkConfig(config, options.decoder_width))
    network.trunk.load_state_dict(trunk.state_dict())
    add_lora(network.trunk, options.lora)
    return network
