"""The golden run: what the demo bundle answers on three phantoms, and whether it still does.

`python test/tools/golden.py` writes the answers anew, into test/golden; test_golden.py compares. Of
each phantom every fourteenth frame is measured, which takes seconds. Sums of floating-point numbers
differ between processors in their last digits, so masks and circumferences may differ a little, and
the frame may not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from acouslic.bundle import Bundle, load_bundle
from acouslic.challenge import FRAMES, SPACING_MM
from acouslic.command import DEMO_BUNDLE
from acouslic.metaimage import Geometry
from acouslic.pipeline import measure
from acouslic.stack import Stack
from phantom.look import Look
from phantom.render import Renderer
from phantom.truth import truth

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ANSWERS_FILE = "answers.json"
# No training saw this seed.
SEED, CASES, EVERY = 900002, range(3), 14
# Far above what processors differ by, far below what a change of the method does.
AC_TOLERANCE, LEAST_IOU = 0.002, 0.99


@dataclass(frozen=True)
class Answer:
    """What is compared of one phantom's answer."""

    frame: int
    """The chosen frame's number in the stack of every fourteenth frame."""
    ac_mm: float
    """Its circumference."""
    mask: np.ndarray
    """(H, W) uint8, 0/1, as it is written."""


@dataclass(frozen=True)
class Golden:
    """A golden run."""

    bundle_id: str
    """The weights that answered."""
    answers: Mapping[int, Answer]
    """By the phantom's number."""


def phantom_stack(case: int) -> Stack:
    """Every fourteenth frame of a phantom: 10 a sweep."""
    renderer = Renderer(truth(SEED, case), Look.REALISTIC)
    frames = np.stack([renderer.frame(index) for index in range(0, FRAMES, EVERY)])
    return Stack(f"golden-{case}", frames, Geometry.plain(SPACING_MM))


def answers(bundle: Bundle) -> Golden:
    """What a bundle answers now."""
    made = {}
    for case in CASES:
        measured = measure(phantom_stack(case), bundle, fail_soft=True)
        made[case] = Answer(measured.frame, measured.ac_mm, measured.mask)
    return Golden(bundle.id, made)


def differences(golden: Golden, now: Golden) -> list[str]:
    """In what an answer has changed, in words; empty where nothing has."""
    if golden.bundle_id != now.bundle_id:
        return [f"the bundle is {now.bundle_id}, the golden answers are of {golden.bundle_id}"]
    lines = []
    for case, old in golden.answers.items():
        new = now.answers[case]
        if new.frame != old.frame:
            lines.append(f"phantom {case}: frame {new.frame}, was {old.frame}")
        if abs(new.ac_mm - old.ac_mm) > AC_TOLERANCE * old.ac_mm:
            lines.append(f"phantom {case}: AC {new.ac_mm:.2f} mm, was {old.ac_mm:.2f}")
        iou = float((old.mask & new.mask).sum() / (old.mask | new.mask).sum())
        if iou < LEAST_IOU:
            lines.append(f"phantom {case}: the masks' IoU is {iou:.3f}")
    return lines


def read(folder: Path = GOLDEN) -> Golden:
    """The golden run in a folder."""
    content = json.loads((folder / ANSWERS_FILE).read_text())
    read_answers = {
        entry["case"]: Answer(
            entry["frame"],
            entry["ac_mm"],
            np.asarray(Image.open(folder / f"mask_{entry['case']}.png")).astype(np.uint8),
        )
        for entry in content["answers"]
    }
    return Golden(content["bundle_id"], read_answers)


def write(golden: Golden, folder: Path = GOLDEN) -> None:
    """Write a golden run into a folder."""
    folder.mkdir(exist_ok=True)
    entries = []
    for case, answer in golden.answers.items():
        entries.append({"case": case, "frame": answer.frame, "ac_mm": answer.ac_mm})
        picture = Image.fromarray(answer.mask.astype(bool))
        picture.save(folder / f"mask_{case}.png", optimize=True)
    content = {"bundle_id": golden.bundle_id, "answers": entries}
    (folder / ANSWERS_FILE).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    write(answers(load_bundle(DEMO_BUNDLE)))
