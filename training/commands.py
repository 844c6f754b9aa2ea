"""The commands' arguments, one function a command; each imports what it runs only when it runs."""

import argparse
from pathlib import Path
from typing import Any

Subparsers = Any  # argparse keeps the type of add_subparsers() private

DEMO_OUTPUT = Path("resources/demo")
FETALCLIP = Path(__file__).resolve().parent.parent / "resources" / "fetalclip.json"


def add_prepare(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("prepare", help="data set -> training cache")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--output", type=Path, required=True, metavar="CACHE")
    parser.add_argument("--size", type=int, default=224, help="side in pixels (default 224)")
    parser.add_argument("--workers", type=int, default=1, help="processes, 1 GB each")
    parser.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from dataset.prepare import prepare

    prepare(options.dataset, options.output, size=options.size, workers=options.workers)


def add_demo(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("demo", help="phantoms -> the demo bundle, from seeds alone")
    parser.add_argument("--output", type=Path, default=DEMO_OUTPUT)
    parser.add_argument("--work", type=Path, default=Path("demo-work"))
    parts = ("A1", "A2", "A3", "A4", "B")
    parser.add_argument("--cases", type=int, nargs=len(parts), metavar=parts)
    parser.add_argument("--epochs", type=int, nargs=len(parts), metavar=parts)
    parser.add_argument("--held-out", type=int, nargs=2, metavar=("A", "B"))
    parser.add_argument("--steps-per-epoch", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--members", type=int)
    _add_machine(parser)
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> None:
    from training.demo.build import build_demo, demo_options

    changes = {
        name: getattr(options, name)
        for name in ("cases", "epochs", "held_out", "steps_per_epoch", "batch_size", "members")
        if getattr(options, name) is not None
    }
    build_demo(options.work, options.output, demo_options(**changes), _machine(options))


def add_import(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("import-fetalclip", help="FetalCLIP's checkpoint -> a base")
    parser.add_argument("checkpoint", type=Path, metavar="FetalCLIP_weights.pt")
    parser.add_argument("--output", type=Path, required=True, metavar="BASE")
    parser.add_argument("--config", type=Path, default=FETALCLIP, help="open_clip model config")
    parser.add_argument("--dtype", choices=("fp16", "fp32"), default="fp16")
    parser.set_defaults(command=_import)


def _import(options: argparse.Namespace) -> None:
    from training.import_fetalclip import import_fetalclip

    dtype = _dtype(options.dtype)
    import_fetalclip(options.checkpoint, options.output, config=options.config, dtype=dtype)


def add_fit(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("fit", help="cache and base -> one fold's adapters and heads")
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="RUNS")
    parser.add_argument("--fold", type=int, required=True, help="held-out fold, from 0")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--split-seed", type=int, default=0, help="the same for every fold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps-per-epoch", type=int, default=250)
    parser.add_argument("--batch-size", type=int, default=32, help="a process and a pass")
    parser.add_argument("--accumulate", type=int, default=1, help="passes an optimiser step")
    parser.add_argument("--head-rate", type=float, default=1e-3)
    parser.add_argument("--trunk-rate", type=float, default=3e-4, help="the adapters' rate")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--decoder-width", type=int, default=32)
    parser.add_argument("--validate-every", type=int, default=1, help="epochs")
    _add_machine(parser)
    parser.set_defaults(command=_fit)


def _fit(options: argparse.Namespace) -> None:
    from acouslic.lora import LoraConfig
    from training.fit import FitOptions, fit
    from training.module import Recipe

    recipe = Recipe(
        epochs=options.epochs,
        steps_per_epoch=options.steps_per_epoch,
        batch_size=options.batch_size,
        seed=options.seed,
        accumulate=options.accumulate,
        head_rate=options.head_rate,
        trunk_rate=options.trunk_rate,
    )
    what = FitOptions(
        fold=options.fold,
        folds=options.folds,
        split_seed=options.split_seed,
        decoder_width=options.decoder_width,
        lora=LoraConfig(options.rank, options.alpha, options.dropout),
        recipe=recipe,
        validate_every=options.validate_every,
    )
    fit(options.cache, options.base, options.output, what, _machine(options))


def add_cross_validate(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "cross-validate", help="all folds -> out-of-fold figures and the fitted selection"
    )
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(command=_cross_validate)


def _cross_validate(options: argparse.Namespace) -> None:
    from acouslic.segment import choose_device
    from training.cross_validate import cross_validate

    cross_validate(options.cache, options.base, options.runs, choose_device(options.device))


def add_pack(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("pack", help="base, folds and selection -> one bundle")
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--name", default="acouslic-fetalclip")
    parser.add_argument("--folds", type=int, nargs="+", default=[0], help="several: an ensemble")
    parser.add_argument("--merge", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--dtype", choices=("fp16", "fp32"), default="fp16")
    parser.set_defaults(command=_pack)


def _pack(options: argparse.Namespace) -> None:
    from training.pack import PackOptions, pack

    what = PackOptions(
        name=options.name,
        folds=tuple(options.folds),
        merge=options.merge,
        dtype=_dtype(options.dtype),
    )
    pack(options.runs, options.base, options.output, what)


def _dtype(name: str) -> Any:
    import torch

    return {"fp16": torch.float16, "fp32": torch.float32}[name]


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--precision", choices=("bf16", "fp16", "fp32"), default="bf16")
    group.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    group.add_argument("--devices", type=int, default=1)
    group.add_argument("--num-nodes", type=int, default=1)
    group.add_argument("--workers", type=int, default=0, help="loader processes")
    group.add_argument(
        "--checkpointing", action="store_true", help="recompute the trunk backwards: less memory"
    )


def _machine(options: argparse.Namespace) -> Any:
    from training.runs import Machine

    return Machine(
        precision=options.precision,
        accelerator=options.accelerator,
        devices=options.devices,
        nodes=options.num_nodes,
        workers=options.workers,
        checkpointing=options.checkpointing,
    )


ALL = (add_prepare, add_demo, add_import, add_fit, add_cross_validate, add_pack)
