"""The program as the platform runs it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def run(tmp_path: Path, input_dir: Path, model: Path, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "inference.py"), "--input", str(input_dir)]
    command += ["--output", str(tmp_path / "output"), "--model", str(model), "--device", "cpu"]
    return subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, **kwargs
    )


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_stack_goes_in_and_three_files_come_out(tmp_path, write_stack, frames, tiny_bundle):
    done = run(tmp_path, write_stack(frames), tiny_bundle)
    assert done.returncode == 0, done.stderr
    assert len(written(tmp_path / "output")) == 3
    assert "seconds: read" in done.stdout
    assert "\r" not in done.stdout + done.stderr


@pytest.mark.parametrize("defect", ["no file", "several files", "all black", "cut short"])
def test_wrong_input_is_one_line_and_no_output(tmp_path, write_stack, frames, tiny_bundle, defect):
    folder = write_stack(np.zeros_like(frames) if defect == "all black" else frames)
    path = next(folder.rglob("*.mha"))
    if defect == "no file":
        path.unlink()
    elif defect == "several files":
        (path.parent / "second.mha").write_bytes(path.read_bytes())
    elif defect == "cut short":
        path.write_bytes(path.read_bytes()[:-1000])
    done = run(tmp_path, folder, tiny_bundle)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: expected")
    assert written(tmp_path / "output") == []


def test_a_damaged_bundle_is_one_line_and_no_output(tmp_path, write_stack, frames, tiny_bundle):
    (tiny_bundle / "trunk.safetensors").write_bytes(b"x")
    done = run(tmp_path, write_stack(frames), tiny_bundle)
    assert done.returncode == 1
    assert "sha256" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert written(tmp_path / "output") == []


def test_an_output_folder_that_cannot_be_written_is_one_line(
    tmp_path, write_stack, frames, tiny_bundle
):
    (tmp_path / "output").touch()
    done = run(tmp_path, write_stack(frames), tiny_bundle)
    assert done.returncode == 1
    assert "can be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_runs_where_home_cannot_be_written(tmp_path, write_stack, frames, tiny_bundle):
    environment = os.environ | {"HOME": "/nonexistent"}
    assert run(tmp_path, write_stack(frames), tiny_bundle, env=environment).returncode == 0
