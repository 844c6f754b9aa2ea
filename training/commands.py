"""The commands; each imports what it runs only when it runs."""

from dataset.command import Command
from training.options import (
    Ablation,
    Calibrate,
    CrossValidate,
    Demo,
    Fit,
    ImportFetalclip,
    Pack,
    Prepare,
    TrainSweepHead,
)


def prepare(options: Prepare) -> None:
    """Check a data set and write its training cache."""
    from dataset import prepare

    datasets = [options.dataset, *options.more]
    prepare.prepare(datasets, options.output, size=options.size, workers=options.workers)


def demo(options: Demo) -> None:
    """Make the demo bundle from seeds: phantoms, a small trunk, adapters and heads."""
    from training.demo.build import build_demo, demo_options

    build_demo(
        options.work,
        options.output,
        demo_options(options.size, goes_on=options.start is not None),
        options.machine,
        start=options.start,
        overwrite=options.overwrite,
    )


def ablation(options: Ablation) -> None:
    """Try what parts of the demo's recipe are worth on labelled frames that are not simulated."""
    from training.demo import ablation

    print(
        ablation.ablation(
            options.output, options.frames, options.size, options.machine, options.study
        )
    )


def import_fetalclip(options: ImportFetalclip) -> None:
    """Make a base of FetalCLIP's published checkpoint, without running code from it."""
    from training import import_fetalclip

    import_fetalclip.import_fetalclip(
        options.checkpoint,
        options.output,
        config=options.config,
        dtype=options.dtype,
        images=options.images,
        overwrite=options.overwrite,
    )


def fit(options: Fit) -> None:
    """Train adapters, mask decoder and quality head on a frozen base, with one fold held out."""
    from training import fit

    folders = (options.cache, options.base, options.output)
    how = (options.training, options.machine)
    if options.fold == "all":
        fit.fit_all(*folders, *how, options.where)
    else:
        fit.fit(*folders, options.fold, *how)


def cross_validate(options: CrossValidate) -> None:
    """Judge every case by the fold that held it out, and fit the calibration."""
    from acouslic.engine import choose_device
    from training import cross_validate

    device = choose_device(options.device)
    folders = options.cache, options.base, options.runs
    cross_validate.cross_validate(*folders, device, options.where)


def sweep_head(options: TrainSweepHead) -> None:
    """Cross-validate with a head along each sweep too; `pack` takes it where it is better."""
    from acouslic.engine import choose_device
    from training import cross_validate

    device = choose_device(options.device)
    folders = options.cache, options.base, options.runs
    cross_validate.cross_validate(*folders, device, options.where, options.recipe)


def calibrate(options: Calibrate) -> None:
    """Fit a bundle's calibration to labelled cases that it never saw; its weights stay."""
    from training import recalibrate

    recalibrate.recalibrate(options)


def pack(options: Pack) -> None:
    """Make a bundle of the base, one or several folds, and the calibration."""
    from training import pack

    pack.pack(options.runs, options.base, options.output, options.bundle)


COMMANDS: dict[str, Command] = {
    "prepare": prepare,
    "demo": demo,
    "ablation": ablation,
    "import-fetalclip": import_fetalclip,
    "fit": fit,
    "cross-validate": cross_validate,
    "sweep-head": sweep_head,
    "calibrate": calibrate,
    "pack": pack,
}
