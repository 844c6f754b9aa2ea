"""`python -m benchmark COMMAND`: every system of the two papers in one table."""

from collections.abc import Sequence

from benchmark.command import COMMANDS
from dataset.command import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run(
        COMMANDS,
        prog="python -m benchmark",
        description="Every system of the two papers in one table.",
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
