"""From the command line's options to a request; what it runs is imported only when it runs."""

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmark.options import (
    PROTOCOLS,
    BenchmarkOptions,
    Compute,
    PackOptions,
    PrepareOptions,
    WeightSource,
)
from dataset.command import Command

if TYPE_CHECKING:
    from benchmark.request import Request


def run_benchmark(options: BenchmarkOptions) -> None:
    """Train and test every system of the two papers and write them into one table.

    A system whose trials are finished is not trained again. Tables and plots show all that are
    finished in the folder.
    """
    from benchmark.run import benchmark, rehearse_all

    if options.rehearse:
        rehearse_all(options.cache, request_of(options))
    else:
        benchmark(options.cache, options.output, request_of(options))


def prepare(options: PrepareOptions) -> None:
    """Make the images of the protocol `paper` beside a cache, as the paper's code makes them."""
    from benchmark.images import prepare_images

    prepare_images(options.dataset, options.cache, options.images, workers=options.workers)


def request_of(options: BenchmarkOptions) -> "Request":
    """What the options ask for."""
    from benchmark.request import Request
    from benchmark.run import device_name
    from benchmark.systems import DEFAULT_SYSTEMS, quality_name
    from training.precision import fastest

    changes = {name: value for name, value in vars(options.changes).items() if value is not None}
    names = options.systems or DEFAULT_SYSTEMS
    weights, machine = options.weights, options.machine
    precision = fastest(machine.accelerator) if machine.precision == "auto" else machine.precision
    return Request(
        systems=tuple(quality_name(options.quality) if n == "quality" else n for n in names),
        trials=options.trials,
        protocol=replace(PROTOCOLS[options.protocol], **changes),
        schedule=options.schedule,
        weights=WeightSource(weights.weights == "timm", weights.pretrained_dir, weights.base),
        compute=Compute(device_name(machine.accelerator), precision, machine.readers),
        where=machine.where,
        test_cache=options.test_cache,
        tokens=options.tokens,
        intensity=options.intensity,
        stand_ins=weights.stand_ins,
        note=options.note,
    )


def pack(options: PackOptions) -> None:
    """Make a bundle of a judged trial, which `inference.py` and `./test.sh --model` take."""
    from benchmark.pack import pack_trial

    weights = options.weights
    pack_trial(
        options.benchmark,
        options.cache,
        options.system,
        options.trial,
        WeightSource(weights.weights == "timm", weights.pretrained_dir, weights.base),
        options.output,
        overwrite=options.overwrite,
    )


COMMANDS: dict[str, Command] = {"prepare": prepare, "run": run_benchmark, "pack": pack}
