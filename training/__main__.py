"""`python -m training COMMAND`: from data set and checkpoint to a bundle of weights."""

from collections.abc import Sequence

from dataset.command import run
from training.commands import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run(
        COMMANDS,
        prog="python -m training",
        description="From data set and checkpoint to a bundle of weights.",
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
