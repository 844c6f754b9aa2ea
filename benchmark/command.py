"""The arguments of `python -m benchmark`; what it runs is imported only when it runs."""

import argparse
from pathlib import Path
from typing import Any

# The protocol's fields, each an option to turn off or on what `--protocol` sets.
TRAPS = {
    "group_by_subject": "no subject in two parts",
    "annotated_sweeps_only": "leave sweeps without an AC out of training and test",
    "fixed_threshold": "each system's own threshold instead of validation's best",
    "shared_weights": "fully trained baselines begin where the last trial ended",
    "centre_crop": "CNNs see the middle 0.875 of the image",
    "reference_adapters": "LoRA where the paper put it, without q, k, v",
    "frozen_segmentation_encoder": "FetalCLIP_SEG trains its decoder only",
    "offline_copies": "two fixed copies of each frame instead of new ones within the fan",
}
ABLATIONS = ("fusion", "cmx", "correlation")


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m benchmark`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark", description="Every system of the two papers in one table."
    )
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="default: all ten")
    parser.add_argument("--protocol", choices=("paper", "strict"), default="strict")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument(
        "--rehearse", action="store_true", help="one batch through every system, and stop"
    )
    parser.add_argument("--note", default="", help="a remark on top of every table")
    _add_training(parser)
    _add_weights(parser)
    _add_ablations(parser)
    _add_protocol(parser)
    _add_machine(parser)
    return parser


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training; the defaults are the paper's")
    group.add_argument("--epochs", type=int, default=5)
    group.add_argument("--batch-size", type=int, default=32)
    group.add_argument("--learning-rate", type=float, default=3e-4)
    group.add_argument("--frames-per-epoch", type=int, help="a random part of each epoch")
    group.add_argument("--soften-frames", type=float, default=0.0, help="soft quality targets")
    group.add_argument("--seed", type=int, default=0)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("weights to begin with")
    group.add_argument("--base", type=Path, help="folder by import-fetalclip, for its systems")
    group.add_argument("--weights", choices=("timm", "none"), default="timm")
    group.add_argument(
        "--pretrained-dir", type=Path, help="files TIMM_NAME.safetensors or .pth, to be offline"
    )
    group.add_argument(
        "--stand-ins", action="store_true", help="a small network of each family, for a trial"
    )


def _add_ablations(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ablations: the system `quality` without a part")
    for part in ABLATIONS:
        group.add_argument(f"--no-{part}", action="store_true")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("parts of the protocol, to be turned on or off by themselves")
    for name, text in TRAPS.items():
        option = "--" + name.replace("_", "-")
        group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    group.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    group.add_argument("--workers", type=int, default=0, help="loader processes")


def run_benchmark(options: argparse.Namespace) -> None:
    from benchmark.run import benchmark, rehearse_all

    if options.rehearse:
        rehearse_all(options.cache, request_of(options))
    else:
        benchmark(options.cache, options.output, request_of(options))


def request_of(options: argparse.Namespace) -> Any:
    """The parsed arguments as a Request."""
    from dataclasses import replace

    from benchmark.protocol import PROTOCOLS
    from benchmark.quality import QualityParts
    from benchmark.run import Request, device_name
    from benchmark.systems import DEFAULT_SYSTEMS, quality_name
    from benchmark.trial import Compute, Schedule
    from benchmark.weights import WeightSource

    changes = {k: getattr(options, k) for k in TRAPS if getattr(options, k) is not None}
    parts = QualityParts(*(not getattr(options, f"no_{part}") for part in ABLATIONS))
    names = options.systems or DEFAULT_SYSTEMS
    return Request(
        systems=tuple(quality_name(parts) if name == "quality" else name for name in names),
        trials=options.trials,
        protocol=replace(PROTOCOLS[options.protocol], **changes),
        schedule=Schedule(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            frames_per_epoch=options.frames_per_epoch,
            soften_frames=options.soften_frames,
            seed=options.seed,
        ),
        weights=WeightSource(options.weights == "timm", options.pretrained_dir, options.base),
        compute=Compute(device_name(options.accelerator), options.precision, options.workers),
        stand_ins=options.stand_ins,
        note=options.note,
    )
