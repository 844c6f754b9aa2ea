"""`demo`: the whole demo bundle from nothing but seeds, through the code that real data take.

First stage, the foundation: a small trunk and a decoder learn from phantoms of one seed, half of
them randomised, of which the anatomy of every frame is known. Second stage, the adaptation: the
trunk is frozen and gets adapters and a fresh quality head. They and the decoder learn from
realistic phantoms of another seed with the challenge's own labels and nothing else; once for each
member of the ensemble. Last, the calibration is fitted on whole realistic stacks of a third seed.
Each stage leaves a finished artefact in the work folder and is skipped when it is there.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from acouslic import files
from acouslic.bundle import BUNDLE, save_bundle
from acouslic.calibration import Calibration
from acouslic.challenge import SIMULATED
from acouslic.lora import LoraConfig
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from dataset.cache import Cache, CachedCase, begin_cache, finish_cache, open_cache
from dataset.prepare import add_cases
from dataset.processes import in_processes
from phantom.dataset import case_name, write_dataset
from phantom.look import Look
from training.adapters import add_lora
from training.base import (
    BASE,
    PROVENANCE,
    TORCH_TYPES,
    base_sha256,
    load_base,
    save_base,
)
from training.calibration import HeldOut, calibrate, describe, in_parts, with_calibration
from training.cards import demo_card
from training.cross_validate import case_evidence
from training.demo.anatomy import case_numbers
from training.demo.foundation import AnatomyFrames, AnatomyNet, FoundationTraining
from training.demo.frames import add_frames
from training.module import AbdomenTraining
from training.options import RESOURCES, DemoSize, LossConfig, Machine, Recipe
from training.provenance import code_version
from training.runs import run

TRUNK = RESOURCES / "demo_trunk.json"
INTENDED_USE = (
    "to try the software: trained on simulated images only, it means nothing for patients"
)
# Parts of the held-out phantoms on which the calibration of the others is judged.
CALIBRATION_PARTS = 4
# A whole stack is 125 MB, so that the stacks on the disk at one time are 0.75 GB.
CHUNK_CASES = 6
STACKS = ".stacks-"
# Of the foundation: the best that was tried for Muon (docs/log.md, 2026-11-21), and half of it
# where a trunk goes on.
FOUNDATION_RATE, LATER_RATE = 3e-3, 1.5e-3
# Any numbers would do; those of the phantoms must differ, so that no phantom is in two stages.
FOUNDATION_PHANTOMS_SEED, ADAPTATION_PHANTOMS_SEED, HELD_OUT_PHANTOMS_SEED = 1001, 2002, 2003
FOUNDATION_SEED, ADAPTATION_SEED = 11, 22
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phantoms:
    """The phantoms of a stage: the first cases of a seed."""

    seed: int
    """Their seed."""
    training: int
    """Number of those that are trained on, from case 0."""
    validation: int
    """Number of those after them that are held out."""
    look: str
    """How they are rendered, a value of `phantom.look.Look`."""
    frames: int | None = None
    """Frames of each that are made, see `choose_frames`; None makes whole stacks."""


@dataclass(frozen=True)
class DemoOptions:
    """All that determines the demo bundle, but for the machine's rounding."""

    trunk: TrunkConfig
    """The trunk's architecture."""
    decoder_width: int
    """Channels of the mask decoder."""
    image_levels: int
    """Sizes of the frame that the decoder convolves itself."""
    foundation_data: Phantoms
    """What the foundation learns from."""
    foundation: Recipe
    """How it trains."""
    adaptation_data: Phantoms
    """What adapters and heads learn from."""
    adaptation: Recipe
    """How they train."""
    held_out_data: Phantoms
    """The whole stacks that judge them, and that the calibration is fitted on."""
    lora: LoraConfig
    """The adapters."""
    members: int
    """Networks in the ensemble."""

    @property
    def network(self) -> NetworkConfig:
        """The networks' architecture."""
        return NetworkConfig(self.trunk, self.decoder_width, self.image_levels, "fan")


def demo_options(size: DemoSize, *, goes_on: bool = False) -> DemoOptions:
    """The options behind the shipped demo.

    Args:
        size: how much data and training.
        goes_on: whether the foundation's trunk has been trained before.
    """
    (learnt, adapted), (held_out, judged) = size.cases, size.held_out
    realistic = Look.REALISTIC.value
    return DemoOptions(
        trunk=TrunkConfig.read(TRUNK),
        decoder_width=8,
        image_levels=4,
        foundation_data=Phantoms(
            FOUNDATION_PHANTOMS_SEED, learnt, held_out, Look.MIXED.value, size.frames
        ),
        foundation=Recipe(
            epochs=size.epochs[0],
            steps_per_epoch=size.steps_per_epoch,
            batch_size=size.batch_size,
            seed=FOUNDATION_SEED,
            head_rate=FOUNDATION_RATE,
            trunk_rate=LATER_RATE if goes_on else FOUNDATION_RATE,
        ),
        adaptation_data=Phantoms(ADAPTATION_PHANTOMS_SEED, adapted, 0, realistic, size.frames),
        adaptation=Recipe(
            epochs=size.epochs[1],
            steps_per_epoch=size.steps_per_epoch,
            # Smaller batches, more steps: heads and adapters begin anew.
            batch_size=max(1, size.batch_size // 2),
            seed=ADAPTATION_SEED,
            head_rate=2e-3,
            trunk_rate=1e-3,
            loss=LossConfig(empty_masks="none"),
        ),
        held_out_data=Phantoms(HELD_OUT_PHANTOMS_SEED, 0, judged, realistic),
        # Dropout on the way into every adapter takes a third of a step on a CPU.
        lora=LoraConfig(rank=16, alpha=32, dropout=0.0),
        members=size.members,
    )


def build_demo(
    work: Path,
    output: Path,
    options: DemoOptions,
    machine: Machine,
    *,
    start: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Make the demo bundle.

    Args:
        work: the folder of caches and runs; what is finished there is not made again.
        output: the bundle's folder.
        options: all that determines the bundle.
        machine: what computes.
        start: bundle or base whose trunk the foundation goes on from; None starts from nothing.
        overwrite: whether an older bundle may be replaced.

    Raises:
        OutputError: something is at `output`, or in `work`, that must not be replaced.
        InputError: `work` holds a run with other options.
    """
    files.refuse_stranger(output, BUNDLE, overwrite=overwrite)
    base = work / "base"
    if not (base / PROVENANCE).is_file():
        files.refuse_stranger(base, BASE, overwrite=False)
    first = stage_cache(work / "foundation-cache", options.foundation_data, options)
    decoder = _train_foundation(work / "foundation", base, first, options, machine, start)
    second = stage_cache(work / "adaptation-cache", options.adaptation_data, options)
    held_out = stage_cache(work / "held-out-cache", options.held_out_data, options)
    networks = [
        _adapt(
            work / f"member-{member}", base, decoder, (second, held_out), options, machine, member
        )
        for member in range(options.members)
    ]
    calibration, report = _calibrate(networks, held_out.cases)
    provenance = _provenance(base, options, report)
    save_bundle(
        output,
        networks,
        name="acouslic-demo",
        selection=with_calibration(calibration),
        lora=options.lora,
        provenance=provenance,
        card=demo_card(provenance),
        overwrite=overwrite,
    )
    log.info("the demo bundle is in %s", output)


def stage_cache(folder: Path, phantoms: Phantoms, options: DemoOptions) -> Cache:
    """The cache of a stage's phantoms, made by all cores; see `phantom_cache`."""
    size = options.trunk.image_size
    return phantom_cache(folder, phantoms, size=size, workers=os.cpu_count() or 1)


def phantom_cache(folder: Path, phantoms: Phantoms, *, size: int, workers: int) -> Cache:
    """Make a cache of phantoms: some frames of each, or whole stacks that are prepared and dropped.

    Args:
        folder: the cache's; phantoms that it already holds are not made again.
        phantoms: which ones.
        size: side of the cached frames in pixels.
        workers: number of processes.

    Raises:
        OutputError: the folder has files of these names that are not ours.
    """
    begin_cache(folder)
    files.refuse_foreign_file(folder / SIMULATED, '"validation"', "a record of phantoms")
    if _holds(folder, phantoms):
        return open_cache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    uuids = _add_phantoms(folder, phantoms, size=size, workers=workers)
    finish_cache(folder, uuids, size, simulated=True)
    files.write_json(folder / SIMULATED, asdict(phantoms))
    return open_cache(folder)


def _add_phantoms(folder: Path, phantoms: Phantoms, *, size: int, workers: int) -> list[str]:
    """Put all phantoms into the cache that are not there, and return their uuids."""
    numbers = range(phantoms.training + phantoms.validation)
    if phantoms.frames is not None:
        add = partial(
            add_frames,
            folder=folder,
            seed=phantoms.seed,
            look=Look(phantoms.look),
            count=phantoms.frames,
            size=size,
        )
        list(in_processes(add, numbers, workers, "phantoms"))
        return [case_name(phantoms.seed, number) for number in numbers]
    uuids: list[str] = []
    for start in range(0, len(numbers), CHUNK_CASES):
        chunk = numbers[start : start + CHUNK_CASES]
        uuids += _add_stacks(folder, phantoms, chunk, size=size, workers=workers)
        log.info("%d of %d phantoms of seed %d", len(uuids), len(numbers), phantoms.seed)
    return uuids


def _add_stacks(
    folder: Path, phantoms: Phantoms, numbers: range, *, size: int, workers: int
) -> list[str]:
    seed = phantoms.seed
    done = folder / f"seed-{seed}-from-{numbers.start}-to-{numbers.stop}.json"
    if not done.is_file():
        _sweep(folder)
        # A folder of its own: two runs at once waste work, but do not spoil each other's.
        with tempfile.TemporaryDirectory(prefix=STACKS, dir=folder) as name:
            stacks = Path(name)
            with files.claim(stacks):
                write_dataset(
                    stacks,
                    seed=seed,
                    cases=numbers,
                    workers=max(1, workers),
                    look=Look(phantoms.look),
                )
                uuids = add_cases([stacks], folder, size=size, workers=workers)
        files.write_json(done, uuids)
    known: list[str] = json.loads(done.read_text())
    return known


def _sweep(folder: Path) -> None:
    """Remove the stacks that killed runs left behind."""
    for leftover in folder.glob(f"{STACKS}*"):
        with files.claim(leftover) as is_left:
            if is_left:
                shutil.rmtree(leftover, ignore_errors=True)


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
    folder: Path,
    base: Path,
    cache: Cache,
    options: DemoOptions,
    machine: Machine,
    start: Path | None,
) -> dict[str, torch.Tensor]:
    """Make the base, unless it is there, and return the decoder that learnt with it."""
    recipe = options.foundation
    torch.manual_seed(recipe.seed)
    network = AnatomyNet(options.network)
    began = None if start is None else _begin_from(start, network)
    phantoms = options.foundation_data
    numbers = case_numbers(phantoms.seed, phantoms.training + phantoms.validation)
    training, validation = (
        AnatomyFrames(cases, phantoms.seed, numbers) for cases in _split(cache, phantoms)
    )
    result = run(
        folder,
        FoundationTraining(network, recipe, training, validation, workers=machine.workers),
        machine,
        identity={"network": options.network.to_dict(), "start": began},
        # Ten times: enough for a curve, and little beside the training.
        validate_every=max(1, recipe.epochs // 10),
    )
    if not (base / PROVENANCE).is_file():
        provenance = {
            "simulated": True,
            "what": "trunk of the demo network, trained on the anatomy of phantoms",
            "start": began,
            "phantoms": asdict(phantoms),
            "recipe": asdict(recipe),
            "code": code_version(),
            "phantom_figures_on_held_out_cases": result,
        }
        # fp16 as in the bundle: the adapters learn on the very base that they will meet.
        state = network.trunk.state_dict()
        save_base(base, options.trunk, state, provenance, TORCH_TYPES["fp16"])
    return network.decoder.state_dict()


def _begin_from(start: Path, network: AnatomyNet) -> dict[str, Any]:
    """Give a network the trunk of a bundle or base, and say where that one comes from."""
    _, trunk, provenance = load_base(start)
    network.trunk.load_state_dict(trunk.state_dict())
    return {"sha256": base_sha256(start), "provenance": provenance}


def _adapt(
    folder: Path,
    base: Path,
    decoder: dict[str, torch.Tensor],
    caches: tuple[Cache, Cache],
    options: DemoOptions,
    machine: Machine,
    member: int,
) -> AbdomenNet:
    """Train a member of the ensemble; each has its own first weights and its own frames.

    The caches are of what it learns from and of what judges it.
    """
    recipe = replace(options.adaptation, seed=options.adaptation.seed + member)
    _, trunk, _ = load_base(base)
    torch.manual_seed(recipe.seed)
    network = network_to_adapt(options.network, trunk.state_dict(), decoder, options.lora)
    module = AbdomenTraining(
        network,
        recipe,
        *caches,
        # No label of the challenge tells what the foundation knows of frames without annotation.
        teacher=deepcopy(network),
        workers=machine.workers,
    )
    run(
        folder,
        module,
        machine,
        identity={"network": network.config.to_dict(), "lora": asdict(options.lora)},
        # Once, at the end: the held-out stacks take as long as some fifty epochs.
        validate_every=recipe.epochs,
    )
    return network.eval()


def network_to_adapt(
    config: NetworkConfig,
    trunk: dict[str, torch.Tensor],
    decoder: dict[str, torch.Tensor] | None,
    lora: LoraConfig,
) -> AbdomenNet:
    """A network of the foundation's weights with fresh adapters and a fresh quality head.

    Args:
        config: its architecture.
        trunk: the trunk's weights, to be frozen.
        decoder: the decoder's weights; None leaves it fresh.
        lora: the adapters.
    """
    network = AbdomenNet(config)
    network.trunk.load_state_dict(trunk)
    if decoder is not None:
        network.decoder.load_state_dict(decoder)
    add_lora(network.trunk, lora)
    return network


def _calibrate(
    networks: Sequence[AbdomenNet], held_out: Sequence[CachedCase]
) -> tuple[Calibration, dict[str, Any]]:
    """Fit the calibration to held-out phantoms, and judge it on parts of them in turn."""
    # Subjects of two seeds may share a number; together in one part they do no harm.
    known = [
        HeldOut(case, part, case_evidence(case, networks))
        for case, part in in_parts(held_out, CALIBRATION_PARTS)
    ]
    calibration, report, _ = calibrate(known, lambda _part: networks)
    log.info("%s", describe(report))
    return calibration, {key: value for key, value in report.items() if key != "by_case"}


def _provenance(base: Path, options: DemoOptions, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "simulated": True,
        "intended_use": INTENDED_USE,
        "base": json.loads((base / PROVENANCE).read_text()),
        "phantoms": asdict(options.adaptation_data),
        "held_out_phantoms": asdict(options.held_out_data),
        "recipe": asdict(options.adaptation),
        "lora": asdict(options.lora),
        "members": options.members,
        "code": code_version(),
        "calibration": {**report, "simulated": True, "code": code_version()},
    }
