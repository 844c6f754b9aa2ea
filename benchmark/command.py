"""From the command line's options to a request; what it runs is imported only when it runs."""

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmark.options import PROTOCOLS, BenchmarkOptions, Compute, WeightSource

if TYPE_CHECKING:
    from benchmark.run import Request


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


def request_of(options: BenchmarkOptions) -> "Request":
    """What the options ask for."""
    from benchmark.run import Request, device_name
    from benchmark.systems import DEFAULT_SYSTEMS, quality_name

    changes = {name: value for name, value in vars(options.changes).items() if value is not None}
    names = options.systems or DEFAULT_SYSTEMS
    weights, machine = options.weights, options.machine
    return Request(
        systems=tuple(quality_name(options.quality) if n == "quality" else n for n in names),
        trials=options.trials,
        protocol=replace(PROTOCOLS[options.protocol], **changes),
        schedule=options.schedule,
        weights=WeightSource(weights.weights == "timm", weights.pretrained_dir, weights.base),
        compute=Compute(device_name(machine.accelerator), machine.precision, machine.workers),
        stand_ins=weights.stand_ins,
        note=options.note,
    )
