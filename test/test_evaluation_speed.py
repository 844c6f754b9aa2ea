import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acouslic.errors import OutputError
from evaluation import speed
from evaluation.options import SpeedOptions


def test_a_stack_is_timed_with_each_engine(
    tmp_path: Path, tiny_bundle: Path, frames: np.ndarray, write_stack: Callable[..., Path]
) -> None:
    stack = next(write_stack(frames).rglob("*.mha"))
    options = SpeedOptions(
        stack, tiny_bundle, tmp_path / "speed", precisions=("fp32", "fp16"), repeats=1, threads=1
    )
    result = speed.measure_speed(options)
    # No CPU computes float16 with OpenVINO that these tests run on; torch does it on every one.
    assert {"torch fp32", "torch fp16", "openvino fp32"} <= result["cases"].keys()
    (torch_run,), (other,) = (result["cases"][f"{name} fp32"] for name in ("torch", "openvino"))
    assert list(torch_run["wall_s"]) == ["start", "read", "write", *speed.STAGES[2:5]]
    assert (torch_run["frame"], torch_run["frames"], torch_run["frames_computed"]) == (
        other["frame"],
        6,
        6,
    )
    speed.write_speed(result, options.output)
    assert json.loads((options.output / speed.SPEED_FILE).read_text()) == result
    assert "| openvino fp32 |" in (options.output / speed.TABLE_FILE).read_text()
    speed.write_speed(result, options.output)
    (options.output / speed.TABLE_FILE).write_text("a shopping list")
    with pytest.raises(OutputError, match="something else of that name"):
        speed.write_speed(result, options.output)


def test_the_peer_is_told_as_extrapolated() -> None:
    run = {"wall_s": 1.0, "cpu_s": 2.0, "peak_mib": 10.0}
    fast = {"wall_s": 0.5, "cpu_s": 1.0, "peak_mib": 10.0}
    lines = speed._network_lines({speed.PEER: [run], "this": [fast]})
    assert "extrapolated" in lines[0]
    assert lines[-2:] == [
        f"| {speed.PEER} | 1.00 / 2.00 | 1680 | 1.0 | 10 |",
        "| this | 0.50 / 1.00 | 664 | 2.5 | 10 |",
    ]
