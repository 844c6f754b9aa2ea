"""What the challenge would give a system: the shipped pipeline over whole stacks.

The system is packed with what draws its masks, a calibration is fitted to the validation part, and
the test part's stacks go through the shipped choice by expected score. Frames are the cache's, as
the pipeline makes them, whatever images the system was trained on.

challenge.json   beside a trial's result: the calibration, and the figures of every test case
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acouslic import files
from acouslic.network import AbdomenNet
from acouslic.selection import SelectionConfig
from benchmark.frames import FrameTable
from benchmark.packing import as_one_network, trained
from benchmark.systems import SYSTEMS, Plan, System
from dataset.cache import Cache, CachedCase
from evaluation.calibrate import fit
from evaluation.metrics import CaseMetrics
from training.calibration import HeldOut, with_calibration
from training.cross_validate import case_evidence
from training.whole_stack import figures, judge, predict_case

CHALLENGE = "challenge.json"
# What draws the masks of a system that draws none.
MASKS = "joint"
MEASURES = ("score", "wfss", "dice_soft", "nae", "right_sweep")


def packed(output: Path, system: System, trial: int, plan: Plan) -> AbdomenNet:
    """A finished trial as the pipeline's network; see `packing.as_one_network`."""
    built = trained(output / system.name / f"trial-{trial}", system, plan)
    if system.draws_masks:
        return as_one_network(built, None)
    return as_one_network(built, trained(output / MASKS / f"trial-{trial}", SYSTEMS[MASKS], plan))


def judge_trial(
    output: Path,
    system: System,
    trial: int,
    plan: Plan,
    *,
    validation: Cache,
    test: Cache,
    device: str,
) -> None:
    """Write a trial's challenge.json, unless it is there.

    Args:
        output: the benchmark's folder.
        system: which one.
        trial: the trial's number, from 0.
        plan: what the system was built for.
        validation: the cases that the calibration is fitted to.
        test: the cases that are judged.
        device: what computes.

    Raises:
        InputError: the trial, or the one that draws its masks, is not finished.
    """
    folder = output / system.name / f"trial-{trial}"
    if (folder / CHALLENGE).is_file():
        return
    members = [packed(output, system, trial, plan).to(device)]
    with torch.inference_mode():
        known = [HeldOut(case, 0, case_evidence(case, members)).known for case in validation.cases]
        calibration = fit(known)
        selection = with_calibration(calibration)
        cases = {case.facts.uuid: _judged(case, members, selection) for case in test.cases}
    files.write_json(
        folder / CHALLENGE,
        {
            "calibration": calibration.to_dict(),
            "calibrated_on": len(known),
            "cases": cases,
        },
    )


def _judged(
    case: CachedCase, members: list[AbdomenNet], selection: SelectionConfig
) -> dict[str, float]:
    metrics = judge(case, predict_case(members, case), selection)
    of_case = figures(metrics)
    return {
        "score": of_case.score,
        "wfss": of_case.wfss,
        "dice_soft": of_case.dice_soft,
        "nae": of_case.nae,
        "right_sweep": float(_has_reference(metrics)),
    }


def _has_reference(metrics: CaseMetrics) -> bool:
    """Whether the chosen frame is in a sweep whose AC is known."""
    return metrics.reference_mm is not None


def read_judged(output: Path, system: str, test: FrameTable) -> list[np.ndarray]:
    """The challenge's figures of the judged trials of a system.

    Args:
        output: the benchmark's folder.
        system: its name.
        test: the test frames; its cases are the rows.

    Returns:
        (cases, MEASURES) of each judged trial.
    """
    judged = []
    for path in sorted((output / system).glob(f"trial-*/{CHALLENGE}")):
        cases: dict[str, Any] = json.loads(path.read_text())["cases"]
        rows = [cases[case.facts.uuid] for case in test.cache.cases]
        judged.append(np.array([[row[name] for name in MEASURES] for row in rows]))
    return judged
