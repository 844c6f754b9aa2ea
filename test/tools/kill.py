"""Kill a case at random moments, again and again, and tell what each kill left in the output.

The weights are loaded once, and each try is forked from there, so that many are cheap. Counts go to
stdout as JSON.
"""

import argparse
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from acouslic.bundle import Bundle, load_bundle
from acouslic.case import Places, answer_case
from acouslic.platform_io import ANSWER_FILES


def begin(places: Places, bundle: Bundle) -> int:
    """Start to answer the case in a process of its own; its number."""
    process = os.fork()
    if process == 0:
        try:
            answer_case(places, lambda: bundle, fail_soft=True)
        finally:
            os._exit(0)
    return process


def answer(output: Path) -> tuple[bytes | None, ...]:
    """The files of the answer; None for one that is not there."""
    paths = [output / path for path in ANSWER_FILES]
    return tuple(path.read_bytes() if path.is_file() else None for path in paths)


def kind(left: tuple[bytes | None, ...], whole: tuple[bytes | None, ...]) -> str:
    """What is left of an answer: none of its files, all, some of them, or half a file."""
    if any(data not in (None, expected) for data, expected in zip(left, whole, strict=True)):
        return "half"
    return "whole" if None not in left else "some" if any(left) else "none"


def main() -> None:
    """Answer the case once, kill it many times, and answer it once more."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("input", "output", "model"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kills", type=int, required=True)
    options = parser.parse_args()
    places, bundle = Places(options.input, options.output), load_bundle(options.model)
    start = time.monotonic()
    os.waitpid(begin(places, bundle), 0)
    seconds, whole = time.monotonic() - start, answer(options.output)
    moment, counts = random.Random(0), Counter[str]()
    for _ in range(options.kills):
        process = begin(places, bundle)
        time.sleep(moment.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        counts[kind(answer(options.output), whole)] += 1
    os.waitpid(begin(places, bundle), 0)
    names = {path.name for path in options.output.rglob("*") if path.is_file()}
    hidden = [path.name for path in options.output.rglob(".*")]
    is_clean = not hidden and names == {path.name for path in ANSWER_FILES}
    is_same = answer(options.output) == whole and None not in whole
    print(json.dumps({**counts, "clean": is_clean, "same": is_same}))


if __name__ == "__main__":
    main()
