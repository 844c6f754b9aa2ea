"""One case as the platform hands it over: from its input folder to the output's three files.

Both of the container's entry points call `answer_case`, so that they answer alike.
"""

import logging
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from acouslic import files
from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM, SWEEPS
from acouslic.errors import OutputError
from acouslic.metaimage import Geometry
from acouslic.platform_io import find_input, own_output, require_writable, write_outputs
from acouslic.stack import Stack, check_header, read_stack

if TYPE_CHECKING:
    from acouslic.bundle import Bundle

# With less the stack waits for the libraries. The demo fits into 2 GiB.
SCARCE_BYTES = 2 << 30
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Where the platform puts a case, and where it takes the answer from."""

    input: Path
    """The folder with `inputs.json`, or with the challenge's own folder of images."""
    output: Path
    """The folder that gets the three files of the answer."""
    preview: Path | None = None
    """A picture of the answer, outside `output`; None: there is none."""


def answer_case(places: Places, load: Callable[[], "Bundle"], *, fail_soft: bool = False) -> None:
    """Check input and output, get the weights, measure, write.

    An older answer in the output is gone once this has begun, however it ends.

    Args:
        places: where the case is.
        load: gives the weights. It is called when the input's header has been checked, so that a
            wrong input is told before the weights cost their time.
        fail_soft: whether a stack that can be read but not measured is answered; see `measure`.

    Raises:
        AcouslicError: there is no answer.
    """
    with own_output(places.output):
        if places.preview is not None:
            prepare_preview(places.preview, places.output)
        start = time.perf_counter()
        stack, bundle = _read_while_loading(find_input(places.input), load, fail_soft=fail_soft)
        seconds = {"read and load": time.perf_counter() - start}
        from acouslic.pipeline import measure

        measurement = measure(stack, bundle, fail_soft=fail_soft)
        start = time.perf_counter()
        write_outputs(places.output, stack, measurement, bundle.id, simulated=bundle.is_simulated)
        seconds |= measurement.seconds | {"write": time.perf_counter() - start}
        log.info("seconds: %s", ", ".join(f"{stage} {time:.1f}" for stage, time in seconds.items()))
        log.info("%s: %s", stack.name, measurement)
        if places.preview is not None:
            from acouslic.preview import write_preview

            write_preview(
                places.preview,
                stack,
                measurement,
                bundle_id=bundle.id,
                simulated=bundle.is_simulated,
            )


def _read_while_loading(
    path: Path, load: Callable[[], "Bundle"], *, fail_soft: bool
) -> tuple[Stack, "Bundle"]:
    """Read a stack in a thread while libraries and weights are loaded here; see `answer_case`.

    Raises:
        AcouslicError: the stack or the weights cannot be read; of both, what is wrong with the
            stack is told.
    """
    check_header(path, fail_soft=fail_soft)
    if _is_memory_scarce():
        bundle = load()
        return read_stack(path, fail_soft=fail_soft), bundle
    with ThreadPoolExecutor(1) as reader:
        stack = reader.submit(read_stack, path, fail_soft=fail_soft)
        try:
            bundle = load()
        except Exception:
            stack.result()
            raise
        return stack.result(), bundle


def _is_memory_scarce() -> bool:
    """Whether libraries may find none beside a stack: C++ then ends the process without a word."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return limit != resource.RLIM_INFINITY and limit < SCARCE_BYTES


def warm_up(bundle: "Bundle") -> None:
    """Measure noise once, so that the first case does not pay for what is set up at first use."""
    from acouslic.pipeline import measure

    measure(noise_stack(), bundle, fail_soft=True)


def noise_stack() -> Stack:
    """The smallest stack: a frame a sweep, noise in the fan."""
    noise = np.random.default_rng(0).integers(1, 120, (SWEEPS, *FRAME_SHAPE), dtype=np.uint8)
    return Stack("noise", noise * CHALLENGE_FAN.mask(), Geometry.plain(SPACING_MM))


def prepare_preview(preview: Path, output: Path) -> None:
    """Find out before the work whether the preview may be written, and remove an older one.

    Raises:
        OutputError: it would lie in the platform's output, replace another file, or cannot be
            written.
    """
    from acouslic.preview import MARK

    if preview.resolve().is_relative_to(output.resolve()):
        raise OutputError(
            expected="a --preview outside --output, as the platform takes all that is in there",
            found=f"{preview} in {output}",
            advice="name another file",
        )
    files.refuse_foreign_file(preview, MARK, "a preview")
    require_writable(preview.resolve().parent)
    preview.unlink(missing_ok=True)
