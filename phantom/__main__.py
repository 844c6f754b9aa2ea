"""`python -m phantom OUT --cases N --seed S` writes a simulated data set; `--statistics` only
counts its truth.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from phantom.dataset import write_dataset
from phantom.statistics import comparison


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.out is None) != options.statistics:
        parser.error("give either OUT, to write a data set there, or --statistics")
    if options.reference is not None and not options.statistics:
        parser.error("--reference belongs to --statistics")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    cases = range(options.first, options.first + options.cases)
    try:
        if options.statistics:
            print(comparison(options.seed, cases, options.reference))
        else:
            write_dataset(options.out, seed=options.seed, cases=cases, workers=options.workers)
    except OSError as error:
        print(f"phantom: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m phantom",
        description="Simulated sweep stacks with known truth, in the layout of the challenge's "
        "training set. They mean nothing for patients.",
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="new or empty folder for the data set"
    )
    parser.add_argument("--cases", type=_at_least(1), required=True, help="number of cases")
    parser.add_argument(
        "--seed", type=_at_least(0), required=True, help="case k of a seed never changes"
    )
    parser.add_argument(
        "--first", type=_at_least(0), default=0, help="first case's number (default 0)"
    )
    parser.add_argument("--workers", type=_at_least(1), default=1, help="processes (default 1)")
    parser.add_argument(
        "--statistics", action="store_true", help="write nothing, print the truth's statistics"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="folder with the real set's two csv files, to compare with",
    )
    return parser


def _at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {lowest}, found {text}"
            )
        return value

    return number


if __name__ == "__main__":
    raise SystemExit(main())
