"""`python -m training COMMAND`: from data set and checkpoint to a bundle of weights."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from acouslic.errors import AcouslicError
from training import commands

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code is 1 where the user has something to mend."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in commands.ALL:
        add(subparsers)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command: Command = options.command
    try:
        command(options)
    except AcouslicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
