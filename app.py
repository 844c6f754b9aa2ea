"""Answer cases as the platform asks for them over HTTP: one server, its weights loaded once."""

import argparse
from collections.abc import Callable

from acouslic.command import (
    add_platform_options,
    add_shared_options,
    fails_soft,
    load_model,
    run_entry_point,
)
from acouslic.server import PORT, listen, serve
from acouslic.stopping import leave
from acouslic.threads import use_threads


def main() -> int:
    """Run the server and return its exit code: 0 after a signal between two cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_platform_options(parser)
    parser.add_argument(
        "--port", type=int, default=PORT, help="where it listens (default: %(default)s)"
    )
    add_shared_options(parser)
    return run_entry_point(parser, run)


def run(options: argparse.Namespace) -> None:
    """Take the port, load the weights, answer cases."""
    with listen(options.port) as listener:
        serve(listener, lambda: prepare(options))


def prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Load the weights; the function that is returned answers the case that is there."""
    use_threads(options.threads)
    # This takes seconds to import; calls that come before wait for it.
    from acouslic.case import Places, answer_case, warm_up

    bundle = load_model(options)
    warm_up(bundle)
    places = Places(options.input, options.output, options.preview)
    fail_soft = fails_soft(options)
    return lambda: answer_case(places, lambda: bundle, fail_soft=fail_soft)


if __name__ == "__main__":
    leave(main())
