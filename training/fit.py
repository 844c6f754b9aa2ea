"""`fit`: one fold of adapters, decoder and quality head upon a frozen base, or all folds."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from acouslic.errors import InputError
from acouslic.lora import add_lora
from acouslic.network import AbdomenNet, NetworkConfig
from dataset.cache import Cache, open_cache
from dataset.folds import split
from dataset.processes import one_a_gpu
from training.base import base_sha256, load_base
from training.module import AbdomenTraining
from training.options import FitOptions, Machine
from training.runs import run

log = logging.getLogger(__name__)


def fold_folder(output: Path, fold: int) -> Path:
    """The folder of a fold's run."""
    return output / f"fold-{fold}"


def fit(
    cache_folder: Path, base: Path, output: Path, fold: int, options: FitOptions, machine: Machine
) -> dict[str, Any]:
    """Train one fold into `output`/fold-K, or go on with it.

    Args:
        cache_folder: the training cache.
        base: the folder of the base, or of a bundle, of which the trunk is taken.
        output: the folder of all folds' runs.
        fold: which one is held out, from 0.
        options: what is fitted.
        machine: what computes.

    Returns:
        The figures of its best epoch.

    Raises:
        InputError: the cache is of another size than the base, there is no such fold, or the run
            there has other options.
        OutputError: the fold's folder holds something that is no run.
    """
    cache = open_cache(cache_folder)
    network = adapted_network(base, cache, options)
    training, held_out = split(cache, fold=fold, folds=options.folds, seed=options.split_seed)
    folder = fold_folder(output, fold)
    module = AbdomenTraining(network, options.recipe, training, held_out, workers=machine.workers)
    return run(
        folder,
        module,
        machine,
        identity=identity(network, base, cache, fold, options),
        validate_every=options.validate_every,
    )


def fit_all(
    cache_folder: Path, base: Path, output: Path, options: FitOptions, machine: Machine
) -> None:
    """Train all folds: side by side, one a GPU, where there are several; else in their order.

    Args:
        cache_folder: the training cache.
        base: the folder of the base, or of a bundle, of which the trunk is taken.
        output: the folder of all folds' runs.
        options: what is fitted.
        machine: what computes.

    Raises:
        InputError: see `fit`; or each fold is to be trained on several devices.
    """
    if machine.devices * machine.num_nodes > 1:
        raise InputError(
            expected="one device and one node a fold for --fold all",
            found=f"--devices {machine.devices} --num-nodes {machine.num_nodes}",
            advice="train one fold after the other, or leave these options away",
        )
    jobs = [(cache_folder, base, output, fold, options, machine) for fold in range(options.folds)]
    gpus = 0 if machine.accelerator == "cpu" else gpu_count()
    if gpus < 2:
        for job in jobs:
            fit(*job)
        return
    failed = [fold for fold, code in enumerate(one_a_gpu(fit, jobs, gpus)) if code]
    if failed:
        raise InputError(
            expected=f"all {options.folds} folds trained",
            found=f"folds {failed} failed, as told above",
            advice="mend that and give the same command: what is finished is kept",
        )


def gpu_count() -> int:
    """How many GPUs this process sees."""
    return torch.cuda.device_count()


def identity(
    network: AbdomenNet, base: Path, cache: Cache, fold: int, options: FitOptions
) -> dict[str, Any]:
    """What rebuilds a run's network without its options, and what it stands on and saw."""
    return {
        "network": network.config.to_dict(),
        "lora": asdict(options.lora),
        "base_sha256": base_sha256(base),
        "fold": fold,
        "folds": options.folds,
        "split_seed": options.split_seed,
        "simulated": cache.simulated,
    }


def adapted_network(base: Path, cache: Cache, options: FitOptions) -> AbdomenNet:
    """Fresh heads and adapters, from the recipe's seed, on the frozen base.

    Args:
        base: the folder of the base, or of a bundle, of which the trunk is taken.
        cache: what it will be trained on.
        options: what is fitted.

    Raises:
        InputError: the cache's frames are not of the base's size, or there is no base.
    """
    config, trunk, _ = load_base(base)
    cache.require_size(config.image_size, f"as {base} was trained on")
    torch.manual_seed(options.recipe.seed)
    network = AbdomenNet(
        NetworkConfig(config, options.decoder_width, options.image_levels, options.intensity)
    )
    network.trunk.load_state_dict(trunk.state_dict())
    add_lora(network.trunk, options.lora)
    return network
