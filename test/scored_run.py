"""A small run that a test can look at: stacks whose frames tell their number, answers, a score.

The answers are a tiny random network's: pages are tested, not measurements.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from acouslic.bundle import save_bundle
from acouslic.challenge import (
    AC_TABLE,
    CHALLENGE_FAN,
    FRAME_SHAPE,
    IMAGES,
    MASKS,
    SIMULATED,
    SPACING_MM,
    SWEEPS,
    TABLE_COLUMNS,
)
from acouslic.ellipse import Ellipse
from acouslic.lora import LoraConfig
from acouslic.metaimage import Geometry, write_frames
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from acouslic.selection import SelectionConfig
from evaluation.__main__ import main
from training.adapters import add_lora

FRAMES_PER_SWEEP = 12
N_FRAMES = SWEEPS * FRAMES_PER_SWEEP
CASES = ("case-a", "case-b", "case-c")
# Annotated frames of every case; sweep 2 has an AC too.
QUALITY_LABELS = {4: 2, 5: 1, 6: 1, 7: 2, 16: 2, 17: 2}
REFERENCES_MM = (190.0, 185.0, None, None, None, None)
GEOMETRY = Geometry((SPACING_MM,) * 3, (0.0,) * 3, (1, 0, 0, 0, 1, 0, 0, 0, 1))


@dataclass(frozen=True)
class ScoredRun:
    """Where everything lies."""

    dataset: Path
    """Stacks and truth, in the training set's layout."""
    bundle: Path
    """The network."""
    answers: Path
    """What `run` wrote."""
    scored: Path
    """What `score` wrote."""
    other: Path
    """The score of another rule's answers."""


def grey_of(frame: int) -> int:
    """The grey level of all of a frame's fan: 3 apart, so that no compression mixes them up."""
    return 20 + 3 * frame


def abdomen(case: str) -> np.ndarray:
    """The true section, (H, W) bool."""
    shift_px = 15 * CASES.index(case)
    inside = Ellipse(372 + shift_px, 300, 115, 100, 15).mask(FRAME_SHAPE)
    return np.asarray(inside & CHALLENGE_FAN.mask())


def write_run(folder: Path) -> ScoredRun:
    """Make data, a bundle, answers by two rules, and their scores."""
    run = ScoredRun(*(folder / name for name in ("data", "bundle", "answers", "scored", "other")))
    _write_dataset(run.dataset)
    write_bundle(run.bundle)
    for answers, scored, rule in (
        (run.answers, run.scored, "shipped"),
        (folder / "other-answers", run.other, "largest-area"),
    ):
        place = ["--model", str(run.bundle), "--output", str(answers), "--device", "cpu"]
        # A random network may see no abdomen anywhere: its guess will do.
        how = ["--rule", rule, "--engine", "torch", "--fail-soft"]
        assert main(["run", str(run.dataset), *place, *how]) == 0
        what = [str(answers), str(run.dataset), "--output", str(scored), "--workers", "1"]
        assert main(["score", *what]) == 0
    return run


def _write_dataset(folder: Path) -> None:
    fan = CHALLENGE_FAN.mask()
    for case in CASES:
        frames = [np.where(fan, grey_of(k), 0).astype(np.uint8) for k in range(N_FRAMES)]
        labels = [
            (abdomen(case) * QUALITY_LABELS.get(k, 0)).astype(np.uint8) for k in range(N_FRAMES)
        ]
        for place, volume in ((IMAGES, frames), (MASKS, labels)):
            (folder / place).mkdir(parents=True, exist_ok=True)
            write_frames(folder / place / f"{case}.mha", iter(volume), GEOMETRY)
    (folder / AC_TABLE).parent.mkdir()
    with (folder / AC_TABLE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(TABLE_COLUMNS)
        for case in CASES:
            subject = "s1" if case == "case-a" else "s2"
            writer.writerow([case, subject, *("" if v is None else v for v in REFERENCES_MM)])
    (folder / SIMULATED).write_text("{}")


def write_bundle(folder: Path) -> None:
    """A bundle of one tiny random network, of frames of 32 px."""
    torch.manual_seed(0)
    network = AbdomenNet(NetworkConfig(TrunkConfig(32, 8, 64, 4, 64), decoder_width=4))
    lora = LoraConfig(rank=2, alpha=4)
    add_lora(network.trunk, lora)
    save_bundle(
        folder,
        [network],
        name="tiny",
        selection=SelectionConfig(),
        lora=lora,
        provenance={"simulated": True},
        card="a test's bundle\n",
    )
