"""`python -m acouslic.self_check`: one small case through all that the container runs.

The image's build ends with it. A stack of noise goes in, the demo bundle answers, three files come
out; what lacks, cannot be read by the image's user, or needs a network fails here.
"""

import sys
import tempfile
import time
from pathlib import Path

from acouslic.bundle import load_bundle, with_engine
from acouslic.case import Places, answer_case, noise_stack
from acouslic.challenge import INPUT_FOLDER
from acouslic.command import DEMO_BUNDLE, exit_code
from acouslic.metaimage import write_frames
from acouslic.platform_io import ANSWER_FILES


def main() -> None:
    """Measure the case, and say what came out.

    Raises:
        AcouslicError: a step failed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        given, output = Path(work, "input"), Path(work, "output")
        stack = noise_stack()
        (given / INPUT_FOLDER).mkdir(parents=True)
        write_frames(given / INPUT_FOLDER / "noise.mha", stack.frames, stack.geometry)
        answer_case(
            Places(given, output), lambda: with_engine(load_bundle(DEMO_BUNDLE)), fail_soft=True
        )
        sizes = [f"{path.name} {(output / path).stat().st_size} bytes" for path in ANSWER_FILES]
    seconds = time.perf_counter() - start
    print(f"{', '.join(sizes)}; {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(exit_code(main))
