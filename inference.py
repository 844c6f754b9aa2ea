"""Measure one stack as the platform asks for it: the best frame, its mask, the circumference."""

import argparse
import sys

from acouslic.command import (
    add_platform_options,
    add_shared_options,
    fails_soft,
    load_model,
    run_entry_point,
)
from acouslic.threads import use_threads


def main() -> int:
    """Run the command and return its exit code: 0, 1 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_platform_options(parser)
    add_shared_options(parser)
    return run_entry_point(parser, run)


def run(options: argparse.Namespace) -> None:
    """Answer the case."""
    use_threads(options.threads)
    # This takes seconds to import; a usage error need not wait for it.
    from acouslic.case import Places, answer_case

    places = Places(options.input, options.output, options.preview)
    answer_case(places, lambda: load_model(options), fail_soft=fails_soft(options))


if __name__ == "__main__":
    sys.exit(main())
