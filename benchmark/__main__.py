"""`python -m benchmark CACHE --output DIR`: every system of the two papers in one table."""

import logging
import sys
from collections.abc import Sequence

from acouslic.errors import AcouslicError
from benchmark.command import parser, run_benchmark


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 1 where the user has something to put right."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run_benchmark(options)
    except AcouslicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
