"""Measure what docs/proofs.md says was measured, and write it there between its two marks.

A phantom goes through `inference.py` twice, through `python -m evaluation run`, and through the
container where an engine answers, all on one thread. recipes/proofs.sh runs this.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from acouslic.challenge import FRAMES, INPUT_FOLDER, SPACING_MM
from acouslic.command import DEMO_BUNDLE
from acouslic.metaimage import Geometry, write_frames
from acouslic.platform_io import ANSWER_FILES
from acouslic.version import revision
from phantom.render import Renderer
from phantom.truth import truth

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "proofs.md"
MARKS = "<!-- measured by recipes/proofs.sh -->", "<!-- end of what was measured -->"
# No training saw this seed; see test.sh.
SEED, CASE = 900002, 0
# For the comparisons: 20 frames of each sweep, so that each run takes seconds.
EVERY = 7
# Limits of one case: the shortest and the usual one of a phase.
LIMITS_S = (300, 1200)
# The tests whose counts are told.
TESTS = (
    "test_hostile_stacks",
    "test_hostile_predictions",
    "test_bundle_files",
    "test_scarce_machine",
    "test_inference",
    "test_launcher",
    "test_golden",
)


class Machine(NamedTuple):
    """What the platform runs a case on (grand-challenge.org, amazon_sagemaker_base.py)."""

    name: str
    """What its provider calls it."""
    cores: int
    """Its vCPUs."""
    memory_gib: int
    """Its memory; a process may have 1 GiB less."""
    gpu: str
    """Its GPU."""


# The smallest of each kind: those that a case of 16 GB or less gets.
MACHINES = (
    Machine("ml.m7i.large", 2, 8, "none"),
    Machine("ml.r7i.large", 2, 16, "none"),
    Machine("ml.g4dn.xlarge", 4, 16, "T4"),
    Machine("ml.g5.xlarge", 4, 16, "A10G"),
)


class Run(NamedTuple):
    """One case's answer and cost."""

    files: tuple[str, ...]
    """SHA-256 of each file of the answer."""
    cpu_s: float
    """CPU time of the whole process."""
    peak_gib: float
    """Most memory that it held."""


def write_stack(folder: Path, every: int) -> Path:
    """Every n-th frame of the phantom, as the platform hands it over."""
    renderer = Renderer(truth(SEED, CASE))
    path = folder / INPUT_FOLDER / "phantom.mha"
    path.parent.mkdir(parents=True)
    frames = (renderer.frame(index) for index in range(0, FRAMES, every))
    write_frames(path, frames, Geometry.plain(SPACING_MM))
    return folder


def sums(output: Path) -> tuple[str, ...]:
    """SHA-256 of the files of an answer."""
    return tuple(hashlib.sha256((output / path).read_bytes()).hexdigest() for path in ANSWER_FILES)


def call(command: Sequence[object]) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"proofs.py: {' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def cost(text: str) -> tuple[float, float]:
    """CPU time and peak memory as measured.py tells them."""
    figures = re.search(r"CPU time ([\d.]+) s, peak memory ([\d.]+) GiB", text)
    assert figures is not None, text
    return float(figures[1]), float(figures[2])


def run_inference(stack: Path, output: Path) -> Run:
    """One case through the entry point, as a process of its own."""
    measured = [sys.executable, ROOT / "test/tools/measured.py", "--", sys.executable]
    options = ["--input", stack, "--output", output, "--model", output / "none", "--demo"]
    text = call([*measured, ROOT / "inference.py", *options, "--device", "cpu", "--fail-soft"])
    return Run(sums(output), *cost(text))


def run_evaluation(stack: Path, output: Path) -> Run:
    """The same case through the harness; its cost is not told."""
    command = [sys.executable, "-m", "evaluation", "run", stack / INPUT_FOLDER]
    options = ["--model", DEMO_BUNDLE, "--output", output, "--device", "cpu", "--fail-soft"]
    call([*command, *options, "--workers", "1", "--threads", "1"])
    return Run(sums(output / "phantom"), 0, 0)


def run_container(stack: Path, output: Path, image: str) -> Run | None:
    """The same case through the container; None where no engine answers or it has no such image."""
    if not shutil.which("docker"):
        return None
    known = subprocess.run(["docker", "image", "inspect", image], capture_output=True)
    if known.returncode:
        return None
    output.mkdir()
    output.chmod(0o777)
    command = ["docker", "run", "--rm", "--network", "none", "--env", "OMP_NUM_THREADS=1"]
    volumes = [f"{stack}:/input:ro", f"{output}:/output", f"{ROOT / 'test/tools'}:/tools:ro"]
    for volume in volumes:
        command += ["--volume", volume]
    entry = ["/tools/measured.py", "--", "python", "inference.py", "--demo", "--device", "cpu"]
    text = call([*command, "--entrypoint", "python", image, *entry])
    return Run(sums(output), *cost(text))


def told_machine() -> str:
    """What this was measured with."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    known = json.loads((DEMO_BUNDLE / "manifest.json").read_text())["name"]
    parts = [
        f"commit {(revision() or 'unknown')[:12]}",
        f"bundle {known}",
        f"{cpu[1] if cpu else 'unknown CPU'}, one thread",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]
    return "; ".join(parts) + "."


def told_equality(first: Run, others: dict[str, Run | None]) -> Iterator[str]:
    """A row a way of running the same case."""
    yield f"| the same {FRAMES // EVERY} frames | {' | '.join(p.name for p in ANSWER_FILES)} |"
    yield "|---|" + "---|" * len(ANSWER_FILES)
    yield "| `inference.py` | " + " | ".join(f"`{digest[:12]}`" for digest in first.files) + " |"
    for name, other in others.items():
        if other is None:
            cells = ["not run: no engine, or no image"] + [""] * (len(ANSWER_FILES) - 1)
        else:
            pairs = zip(first.files, other.files, strict=True)
            cells = ["the same bytes" if a == b else "**other bytes**" for a, b in pairs]
        yield f"| {name} | {' | '.join(cells)} |"


def told_limits(whole: Run) -> Iterator[str]:
    """A row a machine: what a whole case takes of it on one core of this CPU."""
    yield (
        f"A whole stack, {FRAMES} frames, `inference.py` from start to end: "
        f"{whole.cpu_s:.0f} s of CPU time, {whole.peak_gib:.2f} GiB at most."
    )
    yield ""
    limits = " | ".join(f"of {limit // 60} min, one core of this CPU" for limit in LIMITS_S)
    yield f"| machine of the platform | vCPUs | GPU | memory of a process | of it | {limits} |"
    yield "|---|---|---|---|---|" + "---|" * len(LIMITS_S)
    for machine in MACHINES:
        memory = machine.memory_gib - 1
        times = " | ".join(f"{100 * whole.cpu_s / limit:.0f} %" for limit in LIMITS_S)
        yield (
            f"| {machine.name} | {machine.cores} | {machine.gpu} | {memory} GiB | "
            f"{100 * whole.peak_gib / memory:.0f} % | {times} |"
        )


def told_tests(report: Path) -> Iterator[str]:
    """A row a module of tests, and one a property that a test recorded."""
    tree = ET.parse(report)
    counts: dict[str, Counter[str]] = {name: Counter() for name in TESTS}
    for case in tree.iter("testcase"):
        if "classname" not in case.attrib:
            continue  # the test at which a run was interrupted
        module = case.attrib["classname"].split(".")[1]
        outcome = {child.tag for child in case} & {"failure", "error", "skipped"}
        counts[module][outcome.pop() if outcome else "passed"] += 1
    yield "| tests | passed | failed | skipped |"
    yield "|---|---|---|---|"
    for name, count in counts.items():
        failed = count["failure"] + count["error"]
        yield f"| `test/{name}.py` | {count['passed']} | {failed} | {count['skipped']} |"
    yield ""
    yield "| counted by them | |"
    yield "|---|---|"
    labels = {
        "headers": "mutated headers, and those of them that are read have the right pixels",
        "flips": "stacks with one flipped bit",
        "kills": "kills at random moments, by what they leave of the answer's files",
    }
    for entry in tree.iter("property"):
        values = json.loads(entry.attrib["value"])
        told = ", ".join(f"{key} {value}".lower() for key, value in sorted(values.items()))
        yield f"| {labels[entry.attrib['name']]} | {told} |"


def measure(work: Path, image: str) -> Iterator[str]:
    """All lines."""
    few, whole = write_stack(work / "few", EVERY), write_stack(work / "whole", 1)
    first = run_inference(few, work / "first")
    others = {
        "`inference.py`, again": run_inference(few, work / "second"),
        "`python -m evaluation run`": run_evaluation(few, work / "harness"),
        f"the container (`{image}`)": run_container(few, work / "container", image),
    }
    yield told_machine()
    yield ""
    yield from told_equality(first, others)
    yield ""
    yield from told_limits(run_inference(whole, work / "alone"))
    yield ""
    report = work / "tests.xml"
    tests = [f"test/{name}.py" for name in TESTS]
    options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
    subprocess.run([sys.executable, "-m", "pytest", *tests, *options], cwd=ROOT)
    yield from told_tests(report)


def replaced(page: str, lines: Sequence[str]) -> str:
    """The page with other lines between its marks."""
    begin, end = MARKS
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return "\n".join([before + begin, "", *lines, "", end + after])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="acouslic", help="the container's image")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as work:
        lines = list(measure(Path(work), options.image))
    PAGE.write_text(replaced(PAGE.read_text(), lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
