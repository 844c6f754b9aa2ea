"""The program as the platform runs it, in a process of its own."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import acouslic
from acouslic.bundle_files import BundleFolder
from acouslic.case import prepare_preview
from acouslic.challenge import FRAME_SHAPE, FRAMES
from acouslic.command import DEMO_BUNDLE
from acouslic.errors import OutputError

ROOT = Path(__file__).parents[1]
N_KILLS = int(os.environ.get("ACOUSLIC_KILLS", "10"))


def command_line(tmp_path: Path, input_dir: Path, model: Path) -> list[str]:
    command = [sys.executable, str(ROOT / "inference.py"), "--input", str(input_dir)]
    return [
        *command,
        "--output",
        str(tmp_path / "output"),
        "--model",
        str(model),
        "--device",
        "cpu",
    ]


def run(
    tmp_path: Path,
    input_dir: Path,
    model: Path,
    *more: str,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    command = [*command_line(tmp_path, input_dir, model), *more]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_stack_goes_in_and_three_files_come_out(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    done = run(tmp_path, write_stack(frames), tiny_bundle)
    assert done.returncode == 0, done.stderr
    assert len(written(tmp_path / "output")) == 3
    assert "seconds: read" in done.stdout
    assert "\r" not in done.stdout + done.stderr


@pytest.mark.parametrize("defect", ["no file", "several files", "all black", "cut short"])
def test_wrong_input_is_one_line_and_no_output(
    tmp_path: Path,
    write_stack: Callable[..., Path],
    frames: np.ndarray,
    tiny_bundle: Path,
    defect: str,
) -> None:
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


def test_a_damaged_bundle_is_one_line_and_no_output(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    (tiny_bundle / "trunk.safetensors").write_bytes(b"x")
    done = run(tmp_path, write_stack(frames), tiny_bundle)
    assert done.returncode == 1
    assert "sha256" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert written(tmp_path / "output") == []


def test_without_a_bundle_it_fails_and_with_the_switch_the_demo_answers(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray
) -> None:
    folder, model = write_stack(frames), tmp_path / "model"
    model.mkdir()
    done = run(tmp_path, folder, model)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "upload model.tar.gz" in done.stderr
    assert written(tmp_path / "output") == []
    for more, environment in ((["--demo"], os.environ), ([], os.environ | {"ACOUSLIC_DEMO": "1"})):
        done = run(tmp_path, folder, model, *more, environment=dict(environment))
        assert done.returncode == 0, done.stderr
        assert "trained on simulated images; they mean nothing for patients" in done.stdout
        described = json.loads((tmp_path / "output/fetal-abdominal-circumference.json").read_text())
        assert described["simulated"] is True
        assert described["bundle_id"].startswith("acouslic-demo")
    done = run(tmp_path, folder, model, environment=os.environ | {"ACOUSLIC_DEMO": "yes"})
    assert "0 or 1 in ACOUSLIC_DEMO" in done.stderr and done.returncode == 1


def test_an_image_that_is_bound_to_a_bundle_refuses_another(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    folder, id_ = write_stack(frames), BundleFolder(tiny_bundle).id
    bound = os.environ | {"ACOUSLIC_BUNDLE_ID": id_[:-1] + "x"}
    done = run(tmp_path, folder, tiny_bundle, environment=bound)
    assert done.returncode == 1
    assert f"found {id_} in" in done.stderr and len(done.stderr.splitlines()) == 1
    assert written(tmp_path / "output") == []
    bound["ACOUSLIC_BUNDLE_ID"] = id_
    done = run(tmp_path, folder, tiny_bundle, environment=bound)
    assert done.returncode == 0, done.stderr


def test_fail_soft_answers_an_odd_stack_and_no_damaged_one(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    soft = os.environ | {"ACOUSLIC_FAIL_SOFT": "1"}
    folder = write_stack(np.zeros_like(frames))
    done = run(tmp_path, folder, tiny_bundle, environment=soft)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a guess of confidence 0") == 1
    described = json.loads((tmp_path / "output/fetal-abdominal-circumference.json").read_text())
    assert described["confidence"] == 0 and "all black" in described["not_measured"]
    assert len(written(tmp_path / "output")) == 3
    path = next(folder.rglob("*.mha"))
    path.write_bytes(path.read_bytes()[:-100])
    done = run(tmp_path, folder, tiny_bundle, environment=soft)
    assert done.returncode == 1
    assert written(tmp_path / "output") == []


def test_an_output_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    (tmp_path / "output").touch()
    done = run(tmp_path, write_stack(frames), tiny_bundle)
    assert done.returncode == 1
    assert "can be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_older_answer_does_not_survive_a_run_that_fails(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    folder = write_stack(frames)
    assert run(tmp_path, folder, tiny_bundle).returncode == 0
    left = tmp_path / "output" / ".files.0123abcd.partial"  # by a run that was killed
    left.mkdir()
    (left / "fetal-abdomen-frame-number.json").touch()
    next(folder.rglob("*.mha")).write_bytes(b"damaged")
    assert run(tmp_path, folder, tiny_bundle).returncode == 1
    assert written(tmp_path / "output") == []


def test_a_second_run_on_one_output_is_refused_and_the_first_keeps_its_answer(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    folder = write_stack(frames)
    assert run(tmp_path, folder, tiny_bundle).returncode == 0
    descriptor = os.open(tmp_path / "output", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # what a run does as long as it runs
    done = run(tmp_path, folder, tiny_bundle)
    os.close(descriptor)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "another run that is writing there" in line
    assert len(written(tmp_path / "output")) == 3


@pytest.mark.parametrize("after_s", [0.7, 2.0, 3.0])
def test_sigterm_ends_it_within_two_seconds_with_nothing_half_written(
    tmp_path: Path, write_stack: Callable[..., Path], after_s: float
) -> None:
    """At different moments of a run that takes at least ten seconds of one core."""
    row = np.random.default_rng(0).integers(1, 255, (1, 1, FRAME_SHAPE[1]), dtype=np.uint8)
    stack = np.tile(row, (FRAMES, FRAME_SHAPE[0], 1))
    pipe = subprocess.PIPE
    command = [*command_line(tmp_path, write_stack(stack), DEMO_BUNDLE), "--threads", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        time.sleep(after_s)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert time.monotonic() - began < 2
        assert process.returncode == 143
        assert process.stderr is not None
        assert process.stderr.read() == "error: terminated; nothing is half written\n"
    assert not (tmp_path / "output").exists() or list((tmp_path / "output").iterdir()) == []


def test_it_runs_where_home_cannot_be_written(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    environment = os.environ | {"HOME": "/nonexistent"}
    assert run(tmp_path, write_stack(frames), tiny_bundle, environment=environment).returncode == 0


def test_a_preview_is_written_beside_the_output(
    tmp_path: Path, write_stack: Callable[..., Path], frames: np.ndarray, tiny_bundle: Path
) -> None:
    path = tmp_path / "pictures" / "preview.png"
    done = run(tmp_path, write_stack(frames), tiny_bundle, "--preview", str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(written(tmp_path / "output")) == 3
    prepare_preview(path, tmp_path / "output")  # an older preview may be replaced


def test_a_preview_goes_never_into_the_output_and_replaces_no_strangers_file(
    tmp_path: Path,
) -> None:
    inside = tmp_path / "output" / "images" / ".." / "preview.png"
    with pytest.raises(OutputError, match="a --preview outside --output"):
        prepare_preview(inside, tmp_path / "output")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG of somebody else")
    with pytest.raises(OutputError, match="never deleted"):
        prepare_preview(picture, tmp_path / "output")
    with pytest.raises(OutputError, match="can be written"):
        prepare_preview(picture / "preview.png", tmp_path / "output")
    assert written(tmp_path) == [picture]


def test_a_wrong_input_is_told_before_any_weights_are_loaded(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "absent", tmp_path / "no bundle")
    assert done.returncode == 1
    assert "one .mha file" in done.stderr
    assert "bundle" not in done.stdout + done.stderr


def test_the_version_is_told(tmp_path: Path) -> None:
    environment = os.environ | {"ACOUSLIC_REVISION": "0123abcd"}
    done = run(tmp_path, tmp_path, tmp_path, "--version", environment=environment)
    assert done.stdout == f"acouslic {acouslic.__version__} (revision 0123abcd)\n"


def test_a_kill_leaves_whole_files_or_none_and_the_next_run_sweeps(
    tmp_path: Path,
    write_stack: Callable[..., Path],
    frames: np.ndarray,
    tiny_bundle: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    tool, places = ROOT / "test/tools/kill.py", (write_stack(frames), tmp_path / "output")
    command = map(str, (sys.executable, tool, *places, tiny_bundle, "--kills", N_KILLS))
    done = subprocess.run([*command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    record_testsuite_property("kills", json.dumps(counts))
    assert counts.get("half", 0) == 0
    assert sum(counts.get(kind, 0) for kind in ("none", "some", "whole")) == N_KILLS
    assert counts["clean"] and counts["same"]
