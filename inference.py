"""One stack in; the best frame, its abdomen mask and the abdominal circumference out."""

import argparse
import logging
import sys
import time
from pathlib import Path

from acouslic.errors import AcouslicError

DEMO_BUNDLE = Path(__file__).parent / "resources" / "demo"
log = logging.getLogger("inference")


def main() -> int:
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(name)s: %(message)s", level="INFO")
    try:
        run(parse_arguments())
    except AcouslicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    parser.add_argument("--model", type=Path, default=Path("/opt/ml/model"))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    # These take seconds to import; a usage error need not wait for them.
    from acouslic.bundle import choose_bundle, load_bundle
    from acouslic.pipeline import measure
    from acouslic.platform_io import find_input, prepare_output, write_outputs
    from acouslic.segment import choose_device
    from acouslic.stack import read_stack

    prepare_output(arguments.output)
    device = choose_device(arguments.device)
    bundle = load_bundle(choose_bundle(arguments.model, DEMO_BUNDLE), device)
    log.info("bundle %s on %s", bundle.id, device)
    start = time.perf_counter()
    stack = read_stack(find_input(arguments.input))
    seconds = {"read": time.perf_counter() - start}
    measurement = measure(stack, bundle)
    start = time.perf_counter()
    write_outputs(arguments.output, stack, measurement, bundle.id)
    seconds |= measurement.seconds | {"write": time.perf_counter() - start}
    log.info("seconds: %s", ", ".join(f"{stage} {time:.1f}" for stage, time in seconds.items()))
    log.info(
        "%s: frame %d of sweep %d, AC %.1f mm, confidence %.2f",
        stack.name,
        measurement.frame,
        measurement.sweep,
        measurement.ac_mm,
        measurement.confidence,
    )


if __name__ == "__main__":
    sys.exit(main())
