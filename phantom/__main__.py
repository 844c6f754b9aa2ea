"""`python -m phantom` writes a simulated data set, or counts what the truth of one looks like."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from acouslic.challenge import AC_TABLE, FRAMES, SIMULATED
from acouslic.errors import AcouslicError
from dataset.sequences import RUNS_FILE
from phantom.compare import comparison_of_looks
from phantom.dataset import write_dataset
from phantom.look import Look
from phantom.observer import table as observers_table
from phantom.site import Site
from phantom.statistics import comparison

INTERRUPTED = 130  # what a shell reports of a process that Ctrl-C ended: 128 and SIGINT's number


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: those of the command line, or None for the process's own.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C; wrong use ends with 2.
    """
    command_line = parser()
    options = command_line.parse_args(arguments)
    wanted = (
        options.out is not None,
        options.statistics,
        options.compare is not None,
        options.ideal_observer,
    )
    if wanted.count(True) != 1:
        command_line.error(
            "give one of OUT, to write a data set there, --statistics, --compare FRAMES and "
            "--ideal-observer"
        )
    if options.reference is not None and not options.statistics:
        command_line.error("--reference belongs to --statistics")
    if options.site is not None and options.look is not None:
        command_line.error("--site brings its own look; leave --look away")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _run(options)
    except (OSError, AcouslicError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the data set is not complete", file=sys.stderr)
        return INTERRUPTED
    return 0


def _run(options: argparse.Namespace) -> None:
    seed, cases = options.seed, range(options.first, options.first + options.cases)
    site = None if options.site is None else Site(options.site)
    look = Look(options.look or (Look.PLAIN if site is None else Look.REALISTIC))
    if options.statistics:
        print(comparison(seed, cases, options.reference, site))
    elif options.ideal_observer:
        print(observers_table(seed, cases, site, options.workers))
    elif options.compare is not None:
        print(comparison_of_looks(options.compare, seed=seed, cases=cases, look=look, site=site))
    else:
        write_dataset(
            options.out, seed=seed, cases=cases, workers=options.workers, look=look, site=site
        )


def parser() -> argparse.ArgumentParser:
    """The command line: what it takes, and help on it."""
    command_line = _Parser(
        prog="python -m phantom",
        description="Write simulated sweep stacks with known truth, in the layout of the "
        f"challenge's training set and marked by {SIMULATED}. They say nothing about patients.",
    )
    command_line.add_argument(
        "out",
        type=Path,
        nargs="?",
        metavar="OUT",
        help="folder for the data set: new, empty, or one of this seed, look and site to go on "
        "with (required unless figures are asked for)",
    )
    _add_case_options(command_line)
    _add_figures_options(command_line)
    return command_line


def _add_case_options(command_line: argparse.ArgumentParser) -> None:
    cases = f"how many cases, each a stack of {FRAMES} frames (required)"
    seed = "where chance starts from; case k of a seed is always the same (required)"
    first = "number of the first case (default: %(default)s)"
    workers = "how many processes (default: %(default)s)"
    command_line.add_argument("--cases", type=_at_least(1), required=True, metavar="N", help=cases)
    command_line.add_argument("--seed", type=_at_least(0), required=True, metavar="S", help=seed)
    command_line.add_argument("--first", type=_at_least(0), default=0, metavar="K", help=first)
    command_line.add_argument("--workers", type=_at_least(1), default=1, metavar="W", help=workers)
    command_line.add_argument(
        "--look",
        choices=[look.value for look in Look],
        help="how frames look: plain (smooth organs in dark fluid), realistic, random (far beyond "
        "what is plausible), or mixed (half of the cases realistic, half random; default: plain)",
    )
    command_line.add_argument(
        "--site",
        choices=[site.value for site in Site],
        help="hospital that scans and annotates: its own corner of the realistic look, annotators "
        "who miss sweeps and undervalue frames, and look-alikes (default: none)",
    )


def _add_figures_options(command_line: argparse.ArgumentParser) -> None:
    command_line.add_argument(
        "--statistics",
        action="store_true",
        help="write nothing; print figures of the truth as a Markdown table (default: off)",
    )
    command_line.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help=f"folder with the real set's {AC_TABLE.name} and {RUNS_FILE}, for a second column in "
        "that table (default: none)",
    )
    command_line.add_argument(
        "--compare",
        type=Path,
        metavar="FRAMES",
        help="write nothing; print image statistics of the real frames in a folder (PNG), beside "
        "those of phantoms (default: none)",
    )
    command_line.add_argument(
        "--ideal-observer",
        action="store_true",
        help="write nothing; print what the labels let anybody score who sees the anatomy without "
        "error and does not know the annotator (default: off)",
    )


def _at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {lowest}, found {text}"
            )
        return int(text)

    return number


if __name__ == "__main__":
    raise SystemExit(main())
