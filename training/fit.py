"""`fit`: one fold of adapters, decoder and quality head upon a frozen base, or all folds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from acouslic.errors import InputError
from acouslic.network import AbdomenNet, NetworkConfig, NumberHeadName
from dataset.backends import Backend, Needs, finish, gpu_count
from dataset.cache import Cache, open_cache
from dataset.folds import split
from dataset.jobs import FileJobs
from training.adapters import add_lora
from training.base import base_sha256, load_base, patches_for
from training.mixture import MIXED_IN, mixture_facts, mixture_of
from training.module import AbdomenTraining
from training.options import FitOptions, Machine
from training.runs import WEIGHTS, run

# Set by hand: a ViT-L/14, its optimiser and what reads batches ahead.
MEMORY_MIB = 8 * 1024
# Folds' seeds follow the recipe's; it has fewer folds than lie between two of these.
SEEDS_APART = 1000


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
        The figures of its last validation.

    Raises:
        InputError: the cache is of another size than the base, there is no such fold, the run there
            has other options, or its phantoms cannot be mixed in, see `mixture_of`.
        OutputError: the fold's folder holds something that is no run.
    """
    cache, options = open_cache(cache_folder), of_fold(options, fold)
    mixture = mixture_of(cache, options.mixing)
    network = adapted_network(base, cache, options)
    training, held_out = split(cache, fold=fold, folds=options.folds, seed=options.split_seed)
    folder = fold_folder(output, fold)
    module = AbdomenTraining(
        network,
        options.recipe,
        training,
        held_out,
        rating=options.rating,
        mixture=mixture,
        workers=machine.workers,
    )
    mixed_in = {} if mixture is None else {MIXED_IN: mixture_facts(mixture)}
    return run(
        folder,
        module,
        machine,
        identity=identity(network, base, cache, fold, options) | mixed_in,
        validate_every=options.validate_every,
    )


def of_fold(options: FitOptions, fold: int) -> FitOptions:
    """The options of one fold: members of an ensemble that began alike would err alike."""
    seed = options.recipe.seed * SEEDS_APART + fold
    return replace(options, recipe=replace(options.recipe, seed=seed))


@dataclass(frozen=True)
class Folds(FileJobs):
    """Every fold, a job each; a worker that takes over where another died goes on with its run."""

    cache_folder: Path
    """The training cache."""
    base: Path
    """The base, or a bundle, of which the trunk is taken."""
    options: FitOptions
    """What is fitted."""
    machine: Machine
    """What computes each."""

    def result(self, name: str) -> Path:
        """The weights, which are written last."""
        return self.folder / name / WEIGHTS

    def begin(self) -> Callable[[str], None]:
        """Trains a fold, each on a network of its own."""
        return self._train

    def _train(self, name: str) -> None:
        fold = self.names.index(name)
        fit(self.cache_folder, self.base, self.folder, fold, self.options, self.machine)


def fit_all(
    cache_folder: Path,
    base: Path,
    output: Path,
    options: FitOptions,
    machine: Machine,
    backend: Backend,
) -> None:
    """Train all folds with a backend's workers: one a GPU, on CPUs one in all unless told.

    Args:
        cache_folder: the training cache.
        base: the folder of the base, or of a bundle, of which the trunk is taken.
        output: the folder of all folds' runs.
        options: what is fitted.
        machine: what computes each.
        backend: where.

    Raises:
        InputError: a fold failed, or is another run, see `fit`; or each is to be trained on several
            devices.
    """
    if machine.devices * machine.num_nodes > 1:
        raise InputError(
            expected="one device and one node a fold for --fold all",
            found=f"--devices {machine.devices} --num-nodes {machine.num_nodes}",
            advice="train one fold after the other, or leave these options away",
        )
    gpu = machine.accelerator == "gpu" or (machine.accelerator == "auto" and gpu_count() > 0)
    if not gpu and backend.backend == "local" and backend.workers is None:
        # One fold knows how to use all cores.
        backend = replace(backend, workers=1)
    mixture_of(open_cache(cache_folder), options.mixing)  # else each worker would refuse
    if options.mixing.phantoms is not None:
        phantoms = options.mixing.phantoms.resolve()
        options = replace(options, mixing=replace(options.mixing, phantoms=phantoms))
    names = tuple(fold_folder(output, fold).name for fold in range(options.folds))
    folders = output.resolve(), names, cache_folder.resolve(), base.resolve()
    folds = Folds(*folders, options, machine)
    for fold, name in enumerate(names):
        if folds.result(name).is_file():
            # No job any more; this makes sure that it is the run that is asked for.
            fit(cache_folder, base, output, fold, options, machine)
    finish(folds, backend, Needs(gpu, MEMORY_MIB), "folds")


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
        **({"rating": asdict(options.rating)} if options.head in get_args(NumberHeadName) else {}),
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
    config, trunk, provenance = load_base(base)
    cache.require_size(config.image_size, f"as {base} was trained on")
    torch.manual_seed(options.recipe.seed)
    network = AbdomenNet(
        NetworkConfig(
            config,
            options.decoder_width,
            options.image_levels,
            options.intensity,
            head=options.head,
            patches=patches_for(options.tokens, provenance),
            norms=options.norms,
        )
    )
    network.trunk.load_state_dict(trunk.state_dict())
    add_lora(network.trunk, options.lora)
    return network
