"""Measure one stack as the platform asks for it: the best frame, its mask, the circumference."""

import argparse
import logging
import sys
import time
from pathlib import Path

from acouslic.command import DEMO_BUNDLE, add_shared_options, exit_code, load
from acouslic.errors import OutputError

log = logging.getLogger("inference")


def main() -> int:
    """Run the command and return its exit code: 0, 1 after an error, 130 after Ctrl-C."""
    options = parse_arguments()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(name)s: %(message)s", level="INFO")
    return exit_code(lambda: run(options))


def parse_arguments() -> argparse.Namespace:
    """The options; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input",
        type=Path,
        default=Path("/input"),
        metavar="DIR",
        help="folder with one stack in images/stacked-fetal-ultrasound/ (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("/output"),
        metavar="DIR",
        help="folder that the three files of the answer go to (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("/opt/ml/model"),
        metavar="DIR",
        help="bundle of weights; while it is empty, the demo bundle is used, which means nothing "
        "for patients (default: %(default)s)",
    )
    parser.add_argument(
        "--preview",
        type=Path,
        metavar="FILE",
        help="also write a picture of the answer for people, a PNG outside --output, which the "
        "platform takes whole (default: none)",
    )
    add_shared_options(parser)
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Check input and output, load the weights, measure, write."""
    # These take seconds to import; a usage error need not wait for them.
    from acouslic.bundle import choose_bundle
    from acouslic.pipeline import measure
    from acouslic.platform_io import find_input, prepare_output, write_outputs
    from acouslic.stack import read_stack

    prepare_output(options.output)
    if options.preview is not None:
        prepare_preview(options.preview, options.output)
    start = time.perf_counter()
    stack = read_stack(find_input(options.input))
    seconds = {"read": time.perf_counter() - start}
    bundle = load(choose_bundle(options.model, DEMO_BUNDLE), options)
    measurement = measure(stack, bundle)
    start = time.perf_counter()
    write_outputs(options.output, stack, measurement, bundle.id)
    seconds |= measurement.seconds | {"write": time.perf_counter() - start}
    log.info("seconds: %s", ", ".join(f"{stage} {time:.1f}" for stage, time in seconds.items()))
    log.info("%s: %s", stack.name, measurement)
    if options.preview is not None:
        from acouslic.preview import write_preview

        write_preview(
            options.preview,
            stack,
            measurement,
            bundle_id=bundle.id,
            simulated=bundle.is_simulated,
        )


def prepare_preview(preview: Path, output: Path) -> None:
    """Find out before the work whether the preview may be written.

    Raises:
        OutputError: it would lie in the platform's output, replace another file, or cannot be
            written.
    """
    from acouslic import files
    from acouslic.platform_io import require_writable
    from acouslic.preview import MARK

    if preview.resolve().is_relative_to(output.resolve()):
        raise OutputError(
            expected="a --preview outside --output, as the platform takes all that is in there",
            found=f"{preview} in {output}",
            advice="name another file",
        )
    files.refuse_foreign_file(preview, MARK, "a preview")
    require_writable(preview.resolve().parent)


if __name__ == "__main__":
    sys.exit(main())
