"""Measure the fetal abdominal circumference in a stack of ultrasound sweeps, or in many."""

import argparse
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from acouslic.command import (
    DEMO_BUNDLE,
    Compute,
    add_shared_options,
    asks_for_demo,
    exit_code,
    fails_soft,
    load,
    load_model,
)
from acouslic.errors import InputError
from acouslic.threads import use_threads

if TYPE_CHECKING:
    from acouslic.bundle import Bundle

log = logging.getLogger("acouslic")


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: those of the command line, or None for the process's own.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C; a wrong usage ends with 2.
    """
    options = parser().parse_args(arguments)
    has_bar = options.input.is_dir() and sys.stderr.isatty()
    level = logging.WARNING if has_bar else logging.INFO
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=level)
    return exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Check the input, load the weights, and measure what has no answer yet."""
    use_threads(options.threads)
    # Reading headers needs no torch, which takes seconds to import: wrong input is told at once.
    from acouslic.stack import check_header, find_stacks

    stacks = find_stacks(options.input)
    if not options.input.is_dir():
        check_header(options.input, fail_soft=fails_soft(options))
    if options.model is None and not DEMO_BUNDLE.is_dir():
        raise InputError(
            expected="a bundle of weights, --model DIR",
            found="none, and this installation brings no demo weights",
            advice="name one; `resources/demo` of the project's repository is one to try",
        )
    if options.preview:
        import_module("acouslic.preview")  # what it lacks is told now, not after the work
    if options.input.is_dir():
        _measure_folder(stacks, options)
    else:
        _measure_file(options)


def _measure_file(options: argparse.Namespace) -> None:
    from acouslic.answers import Job, answer_stack, unanswered
    from acouslic.platform_io import require_writable

    require_writable(options.output.resolve().parent)
    bundle = _load_bundle(options)
    job = Job(options.input, options.output, options.preview)
    if unanswered([job], bundle, overwrite=options.overwrite):
        answer_stack(job, bundle, fail_soft=fails_soft(options))
    else:
        log.info("%s: this bundle's answer is in %s already", job.case, options.output)


def _measure_folder(stacks: list[Path], options: argparse.Namespace) -> None:
    from acouslic.answers import SUMMARY_FILE, Job, Summary, answer_stacks, check_stacks
    from acouslic.platform_io import require_writable

    require_writable(options.output)
    summary = Summary(options.output / SUMMARY_FILE)
    jobs = [Job(stack, options.output / stack.stem, options.preview) for stack in stacks]
    fail_soft = fails_soft(options)
    sound = check_stacks(jobs, summary, fail_soft=fail_soft)
    bundle = _load_bundle(options)
    answer_stacks(sound, bundle, summary, overwrite=options.overwrite, fail_soft=fail_soft)
    if summary.failed:
        raise InputError(
            expected=f"an answer for each of the {len(jobs)} stacks",
            found=f"none for {', '.join(summary.failed)}",
            advice=f"see {summary.path}",
        )
    print(f"{len(jobs)} stacks are answered, see {summary.path}")


def _load_bundle(options: argparse.Namespace) -> "Bundle":
    """The bundle of --model, or the demo's; without either the checkout's in model/."""
    if options.model is None and asks_for_demo(options):
        return load(DEMO_BUNDLE, Compute.of(options), sweep_prior=options.sweep_prior)
    options.model = options.model or DEMO_BUNDLE.parents[1] / "model"
    return load_model(options)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="acouslic", description=__doc__)
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="a stack (.mha), or a folder: every .mha in it, one after the other",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the answer; for a folder of stacks: one folder a stack in it, named like "
        "the stack, and summary.csv; whole answers that are there already are kept (required)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="bundle of weights (default: model/ of the checkout; without a checkout: required)",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="also write preview.png, a picture of each answer for people (default: no)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace answers of other bundles; other files are never deleted (default: no)",
    )
    add_shared_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
