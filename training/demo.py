"""`demo`: the whole demo bundle from nothing but seeds, through the code that real data take.

Phantoms of seed A, of which the anatomy of every frame is known, train a small trunk: the
"foundation" stage. Frozen, it gets adapters and fresh heads, trained on phantoms of seed B with the
challenge's own labels and nothing else. Every stage leaves a finished
artefact in the work folder and is skipped when it is there.
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acouslic.bundle import save_bundle
from acouslic.lora import LoraConfig, add_lora
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from acouslic.selection import SelectionConfig
from phantom.dataset import write_dataset
from training.anatomy import case_numbers
from training.augment import Augmentation
from training.base import PROVENANCE, load_base, save_base
from training.cache import Cache, CachedCase, finish_cache, open_cache, write_atomically
from training.cards import demo_card
from training.cross_validate import grid, judge_on_grid
from training.curves import draw_curves
from training.foundation import AnatomyFrames, AnatomyNet, FoundationTraining
from training.module import AbdomenTraining, Recipe
from training.prepare import add_cases
from training.provenance import code_version
from training.runs import Machine, run

TRUNK = Path(__file__).resolve().parent.parent / "resources" / "demo_trunk.json"
INTENDED_USE = (
    "to try the software: trained on simulated images only, it means nothing for patients"
)
CHUNK_CASES = 6
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phantoms:
    """Cases 0 .. training - 1 of a seed are trained on, the `validation` cases after them are held
    out.
    """

    seed: int
    training: int
    validation: int


@dataclass(frozen=True)
class DemoOptions:
    """All that determines the demo bundle, but for the machine's rounding."""

    trunk: TrunkConfig
    decoder_width: int
    foundation_data: Phantoms
    foundation: Recipe
    adaptation_data: Phantoms
    adaptation: Recipe
    lora: LoraConfig


def demo_options(
    *,
    cases: tuple[int, int] = (120, 80),
    held_out: int = 8,
    epochs: tuple[int, int] = (76, 24),
    steps_per_epoch: int = 80,
    batch_size: int = 32,
) -> DemoOptions:
    """The options behind the shipped demo; the arguments are those worth making smaller for a
    trial.
    """
    augmentation = Augmentation()
    return DemoOptions(
        trunk=TrunkConfig.read(TRUNK),
        decoder_width=8,
        foundation_data=Phantoms(seed=1001, training=cases[0], validation=held_out),
        foundation=Recipe(
            epochs=epochs[0],
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            seed=11,
            head_rate=3e-3,
            trunk_rate=3e-3,
            augmentation=augmentation,
        ),
        adaptation_data=Phantoms(seed=2002, training=cases[1], validation=held_out),
        adaptation=Recipe(
            epochs=epochs[1],
            steps_per_epoch=steps_per_epoch,
            # Smaller batches, more steps: heads and adapters begin anew.
            batch_size=max(1, batch_size // 2),
            seed=22,
            head_rate=2e-3,
            trunk_rate=1e-3,
            augmentation=augmentation,
        ),
        # Dropout on the way into every adapter takes a third of a step on a CPU.
        lora=LoraConfig(rank=16, alpha=32, dropout=0.0),
    )


def build_demo(work: Path, output: Path, options: DemoOptions, machine: Machine) -> None:
    """Make the demo bundle at `output`, keeping caches and runs in `work`."""
    base = work / "base"
    first = _cache(work / "foundation-cache", options.foundation_data, options, machine)
    if not (base / PROVENANCE).is_file():
        _train_foundation(work / "foundation", base, first, options, machine)
    second = _cache(work / "adaptation-cache", options.adaptation_data, options, machine)
    network, result = _adapt(work / "adaptation", base, second, options, machine)
    held_out = (
        *_split(first, options.foundation_data)[1].cases,
        *_split(second, options.adaptation_data)[1].cases,
    )
    selection, score = _fit_selection(network, held_out)
    provenance = {
        **_provenance(base, result, options),
        "selection_fitted_on_held_out_phantoms": {"cases": len(held_out), "score": score},
    }
    save_bundle(
        output,
        [network],
        name="acouslic-demo",
        selection=selection,
        lora=options.lora,
        provenance=provenance,
        card=demo_card(provenance),
    )
    log.info("the demo bundle is in %s", output)


def _cache(folder: Path, phantoms: Phantoms, options: DemoOptions, machine: Machine) -> Cache:
    size = options.trunk.image_size
    return phantom_cache(folder, phantoms, size=size, workers=os.cpu_count() or 1)


def phantom_cache(folder: Path, phantoms: Phantoms, *, size: int, workers: int) -> Cache:
    """Simulate a few cases at a time, prepare them like any data set, and drop the stacks: a whole
    set is 125 MB a case.
    """
    if _holds(folder, phantoms):
        return open_cache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total = phantoms.training + phantoms.validation
    uuids: list[str] = []
    for first in range(0, total, CHUNK_CASES):
        numbers = range(first, min(first + CHUNK_CASES, total))
        uuids += _add_phantoms(folder, phantoms.seed, numbers, size=size, workers=workers)
        log.info("%d of %d phantoms of seed %d", len(uuids), total, phantoms.seed)
    finish_cache(folder, uuids, size)
    write_atomically(folder / "phantoms.json", json.dumps(asdict(phantoms)))
    return open_cache(folder)


def _add_phantoms(folder: Path, seed: int, numbers: range, *, size: int, workers: int) -> list[str]:
    done = folder / f"seed-{seed}-from-{numbers.start}-to-{numbers.stop}.json"
    if not done.is_file():
        # A folder of its own: two runs at once waste work, but do not spoil each other's.
        with tempfile.TemporaryDirectory(prefix=".stacks-", dir=folder) as name:
            stacks = Path(name)
            write_dataset(stacks, seed=seed, cases=numbers, workers=max(1, workers))
            uuids = add_cases(stacks, folder, size=size, workers=workers)
        write_atomically(done, json.dumps(uuids))
    found: list[str] = json.loads(done.read_text())
    return found


def _holds(folder: Path, phantoms: Phantoms) -> bool:
    path = folder / "phantoms.json"
    return path.is_file() and json.loads(path.read_text()) == asdict(phantoms)


def _split(cache: Cache, phantoms: Phantoms) -> tuple[Cache, Cache]:
    """Training and held-out cases; a held-out subject is never trained on, in no scan."""
    uuids = [case.facts.uuid for case in cache.cases]
    held_out = cache.select(uuids[phantoms.training :])
    subjects = {case.facts.subject for case in held_out.cases}
    rest = [case for case in cache.cases if case.facts.subject not in subjects]
    return cache.select([case.facts.uuid for case in rest]), held_out


def _train_foundation(
    folder: Path, base: Path, cache: Cache, options: DemoOptions, machine: Machine
) -> None:
    torch.manual_seed(options.foundation.seed)
    network = AnatomyNet(options.trunk)
    phantoms = options.foundation_data
    numbers = case_numbers(phantoms.seed, phantoms.training + phantoms.validation)
    training, validation = (
        AnatomyFrames(part, phantoms.seed, numbers) for part in _split(cache, phantoms)
    )
    module = FoundationTraining(
        network, options.foundation, training, validation, workers=machine.workers
    )
    result = run(
        folder,
        module,
        machine,
        identity={"trunk": asdict(options.trunk)},
        validate_every=max(1, options.foundation.epochs // 4),
    )
    draw_curves(folder)
    provenance = {
        "simulated": True,
        "what": "trunk of the demo network, trained from scratch on the anatomy of phantoms",
        "phantoms": asdict(phantoms),
        "recipe": asdict(options.foundation),
        "code": code_version(),
        "phantom_figures_on_held_out_cases": result,
    }
    # fp16 as in the bundle: the adapters learn on the very base that they will meet.
    save_base(base, options.trunk, network.trunk.state_dict(), provenance, torch.float16)


def _adapt(
    folder: Path, base: Path, cache: Cache, options: DemoOptions, machine: Machine
) -> tuple[AbdomenNet, dict[str, Any]]:
    _, trunk, _ = load_base(base)
    torch.manual_seed(options.adaptation.seed)
    network = AbdomenNet(NetworkConfig(options.trunk, options.decoder_width))
    network.trunk.load_state_dict(trunk.state_dict())
    add_lora(network.trunk, options.lora)
    training, validation = _split(cache, options.adaptation_data)
    module = AbdomenTraining(
        network, options.adaptation, training, validation, workers=machine.workers
    )
    result = run(
        folder,
        module,
        machine,
        identity={"network": network.config.to_dict(), "lora": asdict(options.lora)},
        validate_every=max(1, options.adaptation.epochs // 2),
    )
    draw_curves(folder)
    return network, result


def _fit_selection(
    network: AbdomenNet, held_out: Sequence[CachedCase]
) -> tuple[SelectionConfig, float]:
    """The selection with the best mean score on cases that nothing was trained on, and that score,
    which is optimistic.
    """
    configs = grid()
    network.eval()
    judged = [[found.score for found in judge_on_grid(case, network, configs)] for case in held_out]
    means = np.mean(judged, axis=0)
    best = int(np.argmax(means))
    log.info("on %d held-out phantoms: %.3f, fitted %.3f", len(held_out), means[0], means[best])
    return configs[best], float(means[best])


def _provenance(base: Path, result: dict[str, Any], options: DemoOptions) -> dict[str, Any]:
    return {
        "simulated": True,
        "intended_use": INTENDED_USE,
        "base": json.loads((base / PROVENANCE).read_text()),
        "phantoms": asdict(options.adaptation_data),
        "recipe": asdict(options.adaptation),
        "lora": asdict(options.lora),
        "code": code_version(),
        "phantom_figures_on_held_out_cases": result,
    }
