"""`pack`: a judged trial of a benchmark as a bundle."""

import json
from pathlib import Path

from acouslic import files
from acouslic.bundle import BUNDLE
from acouslic.calibration import Calibration
from acouslic.errors import InputError
from benchmark.challenge_score import CHALLENGE, packed
from benchmark.options import Protocol, WeightSource
from benchmark.packing import save_system
from benchmark.run import OPTIONS
from benchmark.summary import trial_folder
from benchmark.systems import SYSTEMS, Plan
from benchmark.trial import RESULT
from dataset.cache import open_cache
from training.base import load_base


def pack_trial(
    benchmark: Path,
    cache_folder: Path,
    name: str,
    trial: int,
    weights: WeightSource,
    output: Path,
    *,
    overwrite: bool,
) -> None:
    """Write a bundle of a trial, with the calibration that it was judged with.

    Args:
        benchmark: the benchmark's folder.
        cache_folder: the cache that it ran on.
        name: the system's name.
        trial: the trial's number, from 0.
        weights: what the systems began with, as the benchmark was told.
        output: the bundle's folder.
        overwrite: whether an older bundle may be replaced.

    Raises:
        InputError: there is no such system, or the trial is not judged.
        OutputError: the folder holds something else, or a bundle that is not to be replaced.
    """
    files.refuse_stranger(output, BUNDLE, overwrite=overwrite)
    folder = trial_folder(benchmark, name, trial)
    if name not in SYSTEMS or not (folder / CHALLENGE).is_file():
        raise InputError(
            expected=f"a trial with {CHALLENGE} in {folder}",
            found="none",
            advice="name a system and a trial that `python -m benchmark run` has judged",
        )
    asked = json.loads((benchmark / OPTIONS).read_text())
    protocol, cache = Protocol(**asked["protocol"]), open_cache(cache_folder)
    # What `joint` was before folders said it.
    joint = (
        asked.get("tokens", "fan"),
        asked.get("norms", "shared"),
        asked.get("intensity", "as-is"),
    )
    plan = Plan(asked["size_px"], protocol, weights, asked["stand_ins"], *joint)
    network = packed(benchmark, SYSTEMS[name], trial, plan)
    judged = json.loads((folder / CHALLENGE).read_text())
    result = json.loads((folder / RESULT).read_text())
    base = None if weights.base is None else load_base(weights.base)[2]
    facts = {
        "name": f"benchmark-{name}",
        "simulated": cache.simulated or bool(base and base["simulated"]),
        "base": base or {"what": result["origin"], "simulated": cache.simulated},
        "network": result["network"],
        "stand_in": result["stand_in"],
        "trained": result["trained"],
        "protocol": protocol.name,
        "trial": trial,
        "calibrated_on": judged["calibrated_on"],
    }
    save_system(
        output, network, Calibration.from_dict(judged["calibration"]), facts, overwrite=overwrite
    )
