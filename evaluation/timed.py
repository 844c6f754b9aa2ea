"""`python -m evaluation.timed`: one run in a process of its own, whose times it prints as JSON.

A run is a whole case, or the network alone. `evaluation.speed` starts it; a fresh process has
imported nothing and holds nothing, as the container's.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from acouslic.errors import InputError

# The exit code of a run whose engine or precision is not there.
NOT_THERE = 3


class Stages:
    """Wall time and CPU time of stages, in seconds."""

    def __init__(self) -> None:
        """Know none yet."""
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = time.perf_counter() - wall
        self.cpu[name] = time.process_time() - cpu


def time_case(order: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a stack and tell what each stage took.

    Args:
        order: `stack`, `model`, `device`, `engine`, `precision`; `frames`: how many of those with
            tissue are computed, None for all.

    Returns:
        Seconds by stage, those of stages on frames scaled to all frames; the answer; peak memory.
    """
    stages = Stages()
    with stages.stage("start"):
        from acouslic.bundle import load_bundle, with_engine
        from acouslic.engine import choose_device
        from acouslic.pipeline import measure
        from acouslic.platform_io import write_outputs
        from acouslic.stack import read_stack

        device = choose_device(order["device"], order["engine"])
        bundle = with_engine(
            load_bundle(order["model"], device), order["engine"], order["precision"]
        )
    with stages.stage("read"):
        stack = read_stack(order["stack"])
        tissue = np.flatnonzero(stack.tissue)
    if order["frames"] is not None:
        taken = tissue[np.linspace(0, len(tissue) - 1, order["frames"]).astype(int)]
        others = np.ones(len(stack.frames), bool)
        others[taken] = False
        stack.frames[others] = 0
        stack = replace(stack)  # which frames show tissue is counted again
    computed = int(stack.tissue.sum())
    with stages.stage("measure"):
        measurement = measure(stack, bundle)
    with tempfile.TemporaryDirectory() as folder, stages.stage("write"):
        write_outputs(Path(folder), stack, measurement, bundle.id, simulated=bundle.is_simulated)
    measured = stages.wall.pop("measure")
    # What the stages of the measurement took of the CPU is known of all of them together.
    cpu_share = stages.cpu.pop("measure") / measured
    for name, seconds in measurement.seconds.items():
        scaled = seconds * len(tissue) / computed
        stages.wall[name], stages.cpu[name] = scaled, scaled * cpu_share
    return {
        "wall_s": stages.wall,
        "cpu_s": stages.cpu,
        "frames_computed": computed,
        "frames": len(tissue),
        "frame": measurement.frame,
        "ac_mm": measurement.ac_mm,
        "peak_mib": _peak_mib(),
    }


def time_network(order: Mapping[str, Any]) -> dict[str, Any]:
    """Compute some frames of noise with a ViT-L/14 of random weights.

    Args:
        order: `engine`, `precision`, `all_tokens`: whether patches outside the fan go through the
            blocks too, as in the reference; `frames`: how many frames.

    Returns:
        Seconds a frame after a first one, and peak memory.
    """
    import torch

    from acouslic.engine import Engine, TorchEngine
    from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig, TrunkPass

    config = NetworkConfig(
        TrunkConfig(224, 14, 1024, 24, 768),
        decoder_width=32,
        patches="all" if order["all_tokens"] else "fan",
    )
    with torch.device("meta"):
        network = AbdomenNet(config)
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.01, 0.02)
    network.trunk_pass = TrunkPass(config)  # `to_empty` took its indices too
    engine: Engine
    stages = Stages()
    with stages.stage("convert"):
        if order["engine"] == "openvino":
            from acouslic.openvino_engine import OpenVinoEngine

            engine = OpenVinoEngine([network], order["precision"])
            del network
        else:
            engine = TorchEngine([network], order["precision"])
    noise = torch.randint(256, (order["frames"], 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        engine.compute(noise[:1])
        with stages.stage("network"):
            for start in range(0, len(noise), engine.batch_size):
                engine.compute(noise[start : start + engine.batch_size])
    return {
        "wall_s": stages.wall["network"] / len(noise),
        "cpu_s": stages.cpu["network"] / len(noise),
        "convert_cpu_s": stages.cpu["convert"],
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run the order on stdin."""
    from acouslic.threads import use_threads

    order = json.load(sys.stdin)
    use_threads(order["threads"])
    load_before = os.getloadavg()[0]
    try:
        result = time_network(order) if "all_tokens" in order else time_case(order)
    except InputError as error:
        print(error, file=sys.stderr)
        return NOT_THERE
    print(json.dumps({**result, "load": load_before}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
