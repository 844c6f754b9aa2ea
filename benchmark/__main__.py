"""`python -m benchmark CACHE --output DIR`: every system of the two papers in one table."""

from collections.abc import Sequence

from benchmark.command import run_benchmark
from dataset.command import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    return run(
        run_benchmark,
        prog="python -m benchmark",
        description="Every system of the two papers in one table.",
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
