"""How long a stack takes, stage by stage, with each engine; and a peer's network beside it.

Every run is a process of its own (see `timed`). The variants take turns, so that what else the
machine does falls on all of them, and CPU time stands beside wall time.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from acouslic import files
from acouslic.challenge import FRAMES
from acouslic.errors import InputError
from acouslic.stack import check_header
from evaluation.options import SpeedOptions
from evaluation.runlog import this_code, this_worker
from evaluation.timed import NOT_THERE

SPEED_FILE, TABLE_FILE = "speed.json", "speed.md"
STAGES = ("start", "read", "preprocess", "network", "selection", "write")
HEAD = ("engine", *STAGES, "whole", "least to most", "frames/s", "peak MiB", "frame", "AC")
# The variants of a ViT-L/14: name, engine, whether all tokens are computed.
PEER = "the peer: torch fp32, all tokens"
VIT_L = (
    (PEER, "torch", True),
    ("this: torch fp32, the fan's tokens", "torch", False),
    ("this: openvino fp32, the fan's tokens", "openvino", False),
)
# The reference computes all frames of a stack, black ones too; of a usual stack 664 show tissue.
USUAL_TISSUE = 664


def measure_speed(options: SpeedOptions) -> dict[str, Any]:
    """Run all variants in turns.

    Returns:
        What speed.json holds: `cases` and `networks`, a list of runs a variant; machine and code.

    Raises:
        InputError: the stack is none, or no engine is there.
    """
    check_header(options.stack)
    base = {"threads": options.threads}
    cases: dict[str, list[Any]] = {}
    networks: dict[str, list[Any]] = {}
    for _ in range(options.repeats):
        for engine in options.engines:
            for precision in options.precisions:
                order = base | {
                    "stack": str(options.stack),
                    "model": str(options.model),
                    "device": options.device,
                    "engine": engine,
                    "precision": precision,
                    "frames": options.frames,
                }
                _run(order, cases.setdefault(f"{engine} {precision}", []))
        for name, network_engine, all_tokens in VIT_L if options.peer else ():
            _run(
                base
                | {
                    "engine": network_engine,
                    "precision": "fp32",
                    "all_tokens": all_tokens,
                    "frames": options.peer_frames,
                },
                networks.setdefault(name, []),
            )
    cases = {name: runs for name, runs in cases.items() if runs}
    if not cases:
        raise InputError(
            expected="an engine of --engines that computes in one of --precisions",
            found="none",
            advice="leave both options out",
        )
    return {
        "stack": options.stack.name,
        "cases": cases,
        "networks": {name: runs for name, runs in networks.items() if runs},
        "machine": asdict(this_worker("cpu", "several")),
        "code": asdict(this_code()),
    }


def _run(order: Mapping[str, Any], runs: list[Any]) -> None:
    """Add a run's result, unless its engine or precision is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.timed"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
    )
    if done.returncode == NOT_THERE:
        return
    if done.returncode:
        raise InputError(
            expected=f"a run with {order['engine']} in {order['precision']}",
            found=(done.stderr.strip().splitlines() or ["none"])[-1],
            advice="leave that engine out of --engines",
        )
    runs.append(json.loads(done.stdout.splitlines()[-1]))


def table(speed: Mapping[str, Any]) -> str:
    """The result for people, in Markdown; medians, and the least and the most of the whole."""
    machine, code = speed["machine"], speed["code"]
    some = next(iter(speed["cases"].values()))
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_mib'] / 1024:.0f} GiB; {machine['system']}; Python {machine['python']}, "
        f"torch {machine['libraries']['torch']}, OpenVINO "
        f"{machine['libraries'].get('openvino', 'none')}; acouslic {code['version']}, "
        f"commit {code['commit'] or 'unknown'}. "
        f"Load before a run: {_spread([run['load'] for run in _all_runs(speed)])}.",
        "",
        f"Stack {speed['stack']}: {some[0]['frames']} frames with tissue, of which "
        f"{some[0]['frames_computed']} were computed; preprocess, network and selection are told "
        "for all of them. Each cell: wall / CPU seconds.",
        "",
        "| engine | "
        + " | ".join(STAGES)
        + " | whole | least to most | frames/s | MiB | frame | AC |",
        "|---" * (len(STAGES) + 7) + "|",
    ]
    lines += [_case_line(name, runs) for name, runs in speed["cases"].items()]
    if speed["networks"]:
        lines += ["", *_network_lines(speed["networks"])]
    return "\n".join(lines) + "\n"


def _all_runs(speed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [run for part in ("cases", "networks") for runs in speed[part].values() for run in runs]


def _case_line(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        f"{median(run['wall_s'][stage] for run in runs):.2f} / "
        f"{median(run['cpu_s'][stage] for run in runs):.2f}"
        for stage in STAGES
    ]
    walls, cpus = ([sum(run[key].values()) for run in runs] for key in ("wall_s", "cpu_s"))
    rate = median(run["frames"] / run["wall_s"]["network"] for run in runs)
    answers = ", ".join(sorted({str(run["frame"]) for run in runs}))
    cells += [
        f"{median(walls):.1f} / {median(cpus):.1f}",
        f"{_spread(walls)} / {_spread(cpus)}",
        f"{rate:.1f}",
        f"{max(run['peak_mib'] for run in runs):.0f}",
        answers,
        f"{runs[0]['ac_mm']:.2f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _network_lines(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A ViT-L/14 of random weights; what a stack would take is extrapolated."""
    lines = [
        "A ViT-L/14 of random weights with this decoder, which is cheaper than the reference's: "
        "ratios to the peer are lower bounds. Seconds a frame were measured; those of a stack are "
        f"extrapolated: {FRAMES} frames for the peer, {USUAL_TISSUE} with tissue for this.",
        "",
        "| network | s/frame, wall / CPU | stack, CPU s | times faster, CPU | MiB |",
        "|---|---|---|---|---|",
    ]
    peer = networks.get(PEER)
    base = median(run["cpu_s"] for run in peer) * FRAMES if peer else None
    for name, runs in networks.items():
        wall, cpu = (median(run[key] for run in runs) for key in ("wall_s", "cpu_s"))
        stack = cpu * (FRAMES if name == PEER else USUAL_TISSUE)
        ratio = "" if base is None else f"{base / stack:.1f}"
        memory = max(run["peak_mib"] for run in runs)
        lines.append(f"| {name} | {wall:.2f} / {cpu:.2f} | {stack:.0f} | {ratio} | {memory:.0f} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def write_speed(speed: Mapping[str, Any], folder: Path) -> None:
    """Write speed.json and speed.md.

    Raises:
        OutputError: a file there is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.refuse_foreign_file(folder / SPEED_FILE, '"cases"', "a benchmark's figures")
    files.refuse_foreign_file(folder / TABLE_FILE, "| whole | least to most", "a benchmark's table")
    files.write_json(folder / SPEED_FILE, speed)
    files.write_text(folder / TABLE_FILE, table(speed))
