"""`demo`: the whole demo bundle from nothing but seeds, through the code that real data take.

Phantoms of seed A, of which the anatomy of every frame is known, train a small trunk: the
"foundation" stage. Frozen, it gets adapters and fresh heads, trained on phantoms of seed B with the
challenge's own labels and nothing else; as often as the ensemble has members. Every stage leaves a
finished artefact in the work folder and is skipped when it is there.
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acouslic import files
from acouslic.bundle import BUNDLE, save_bundle
from acouslic.challenge import SIMULATED
from acouslic.lora import LoraConfig, add_lora
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from acouslic.selection import SelectionConfig
from dataset.cache import Cache, CachedCase, finish_cache, open_cache
from dataset.prepare import add_cases
from phantom.dataset import write_dataset
from training.augment import Augmentation
from training.base import PROVENANCE, load_base, save_base
from training.cards import demo_card
from training.cross_validate import choose_config, grid, judge_on_grid
from training.curves import draw_curves
from training.demo.anatomy import case_numbers
from training.demo.foundation import AnatomyFrames, AnatomyNet, FoundationTraining
from training.module import AbdomenTraining, Recipe
from training.provenance import code_version
from training.runs import Machine, run
from training.whole_stack import Figures, mean_figures

TRUNK = Path(__file__).resolve().parents[2] / "resources" / "demo_trunk.json"
INTENDED_USE = (
    "to try the software: trained on simulated images only, it means nothing for patients"
)
CHUNK_CASES = 6
FOUNDATION_RATES = (3e-3, 1.5e-3, 1.5e-3, 1e-3)
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
class FoundationPart:
    """A part of the foundation stage: a recipe, and how many of its phantoms, the first ones, it
    trains on.
    """

    recipe: Recipe
    phantoms: int


@dataclass(frozen=True)
class DemoOptions:
    """All that determines the demo bundle, but for the machine's rounding; the parts of the
    foundation follow one another.
    """

    trunk: TrunkConfig
    decoder_width: int
    foundation_data: Phantoms
    foundation: tuple[FoundationPart, ...]
    adaptation_data: Phantoms
    adaptation: Recipe
    lora: LoraConfig
    members: int


def demo_options(
    *,
    cases: Sequence[int] = (120, 120, 280, 280, 252),
    epochs: Sequence[int] = (76, 60, 66, 56, 36),
    held_out: Sequence[int] = (8, 60),
    steps_per_epoch: int = 80,
    batch_size: int = 32,
    members: int = 2,
) -> DemoOptions:
    """The options behind the shipped demo; the arguments are those worth making smaller for a
    trial. cases, epochs: of each part of the foundation, and of the adaptation; held_out: of the
    foundation and of the adaptation.
    """
    augmentation = Augmentation()
    foundation = tuple(
        FoundationPart(
            Recipe(
                epochs=part_epochs,
                steps_per_epoch=steps_per_epoch,
                batch_size=batch_size,
                seed=11 + number,
                head_rate=rate,
                trunk_rate=rate,
                augmentation=augmentation,
            ),
            phantoms,
        )
        for number, (rate, phantoms, part_epochs) in enumerate(
            zip(FOUNDATION_RATES, cases[:-1], epochs[:-1], strict=True)
        )
    )
    return DemoOptions(
        trunk=TrunkConfig.read(TRUNK),
        decoder_width=8,
        foundation_data=Phantoms(seed=1001, training=max(cases[:-1]), validation=held_out[0]),
        foundation=foundation,
        adaptation_data=Phantoms(seed=2002, training=cases[-1], validation=held_out[1]),
        adaptation=Recipe(
            epochs=epochs[-1],
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
        members=members,
    )


def build_demo(
    work: Path, output: Path, options: DemoOptions, machine: Machine, *, overwrite: bool = False
) -> None:
    """Make the demo bundle at `output`, keeping caches and runs in `work`.

    Raises:
        OutputError: something is at `output` that must not be replaced.
    """
    files.refuse_stranger(output, BUNDLE, overwrite=overwrite)
    base = work / "base"
    first = _cache(work / "foundation-cache", options.foundation_data, options, machine)
    if not (base / PROVENANCE).is_file():
        _train_foundation(work / "foundation", base, first, options, machine)
    second = _cache(work / "adaptation-cache", options.adaptation_data, options, machine)
    networks = [
        _adapt(work / f"member-{member}", base, second, options, machine, member)
        for member in range(options.members)
    ]
    held_out = (
        *_split(first, options.foundation_data)[1].cases,
        *_split(second, options.adaptation_data)[1].cases,
    )
    fitted = _fit_selection(networks, held_out)
    provenance = _provenance(base, options, fitted, len(held_out))
    save_bundle(
        output,
        networks,
        name="acouslic-demo",
        selection=fitted.selection,
        lora=options.lora,
        provenance=provenance,
        card=demo_card(provenance),
        overwrite=overwrite,
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
    finish_cache(folder, uuids, size, simulated=True)
    files.write_json(folder / SIMULATED, asdict(phantoms))
    return open_cache(folder)


def _add_phantoms(folder: Path, seed: int, numbers: range, *, size: int, workers: int) -> list[str]:
    done = folder / f"seed-{seed}-from-{numbers.start}-to-{numbers.stop}.json"
    if not done.is_file():
        # A folder of its own: two runs at once waste work, but do not spoil each other's.
        with tempfile.TemporaryDirectory(prefix=".stacks-", dir=folder) as name:
            stacks = Path(name)
            write_dataset(stacks, seed=seed, cases=numbers, workers=max(1, workers))
            uuids = add_cases(stacks, folder, size=size, workers=workers)
        files.write_json(done, uuids)
    found: list[str] = json.loads(done.read_text())
    return found


def _holds(folder: Path, phantoms: Phantoms) -> bool:
    path = folder / SIMULATED
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
    torch.manual_seed(options.foundation[0].recipe.seed)
    network = AnatomyNet(options.trunk)
    phantoms = options.foundation_data
    numbers = case_numbers(phantoms.seed, phantoms.training + phantoms.validation)
    cases, held_out = _split(cache, phantoms)
    validation = AnatomyFrames(held_out, phantoms.seed, numbers)
    for number, part in enumerate(options.foundation):
        first = cases.select([case.facts.uuid for case in cases.cases[: part.phantoms]])
        training = AnatomyFrames(first, phantoms.seed, numbers)
        module = FoundationTraining(
            network, part.recipe, training, validation, workers=machine.workers
        )
        result = run(
            folder / f"part-{number}",
            module,
            machine,
            identity={"trunk": asdict(options.trunk)},
            validate_every=max(1, part.recipe.epochs // 4),
        )
        draw_curves(folder / f"part-{number}")
    provenance = {
        "simulated": True,
        "what": "trunk of the demo network, trained from scratch on the anatomy of phantoms",
        "phantoms": asdict(phantoms),
        "parts": [asdict(part) for part in options.foundation],
        "code": code_version(),
        "phantom_figures_on_held_out_cases": result,
    }
    # fp16 as in the bundle: the adapters learn on the very base that they will meet.
    save_base(base, options.trunk, network.trunk.state_dict(), provenance, torch.float16)


def _adapt(
    folder: Path, base: Path, cache: Cache, options: DemoOptions, machine: Machine, member: int
) -> AbdomenNet:
    """Train a member of the ensemble; each has its own first weights and its own frames."""
    recipe = replace(options.adaptation, seed=options.adaptation.seed + member)
    _, trunk, _ = load_base(base)
    torch.manual_seed(recipe.seed)
    network = AbdomenNet(NetworkConfig(options.trunk, options.decoder_width))
    network.trunk.load_state_dict(trunk.state_dict())
    add_lora(network.trunk, options.lora)
    training, validation = _split(cache, options.adaptation_data)
    module = AbdomenTraining(network, recipe, training, validation, workers=machine.workers)
    run(
        folder,
        module,
        machine,
        identity={"network": network.config.to_dict(), "lora": asdict(options.lora)},
        validate_every=recipe.epochs,
    )
    draw_curves(folder)
    return network.eval()


@dataclass(frozen=True)
class _Fitted:
    """The selection that held-out cases chose, the means on them with it, which are optimistic, and
    with the default.
    """

    selection: SelectionConfig
    figures: Figures
    default_figures: Figures


def _fit_selection(networks: Sequence[AbdomenNet], held_out: Sequence[CachedCase]) -> _Fitted:
    configs = grid()
    judged = [judge_on_grid(case, networks, configs) for case in held_out]
    scores = np.array([[each.score for each in found] for found in judged])
    # Subjects of two seeds may share a number; resampled together they do no harm.
    best = choose_config(scores, np.array([case.facts.subject for case in held_out]))
    default, fitted = (mean_figures([found[k] for found in judged]) for k in (0, best))
    log.info("%d held-out phantoms: default %s, fitted %s", len(held_out), default, fitted)
    return _Fitted(configs[best], fitted, default)


def _provenance(base: Path, options: DemoOptions, fitted: _Fitted, cases: int) -> dict[str, Any]:
    return {
        "simulated": True,
        "intended_use": INTENDED_USE,
        "base": json.loads((base / PROVENANCE).read_text()),
        "phantoms": asdict(options.adaptation_data),
        "recipe": asdict(options.adaptation),
        "lora": asdict(options.lora),
        "members": options.members,
        "code": code_version(),
        "phantom_figures_on_held_out_cases": {
            "cases": cases,
            "default_selection": asdict(fitted.default_figures),
            "fitted_selection": asdict(fitted.figures),
        },
    }
