"""Re-running a data set: the same bytes as inference.py, whatever interrupts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.bundle import Bundle
from acouslic.challenge import SPACING_MM
from acouslic.pipeline import Measurement, measure
from acouslic.selection import Rule
from acouslic.stack import Stack
from evaluation import run as run_module
from evaluation.__main__ import main

ROOT = Path(__file__).parent.parent
CASES = ("case-a", "case-b", "case-c")
FILES = (
    "images/fetal-abdomen-segmentation/output.mha",
    "fetal-abdomen-frame-number.json",
    "fetal-abdominal-circumference.json",
)


@pytest.fixture
def dataset(tmp_path: Path, frames: np.ndarray) -> Path:
    folder = tmp_path / "dataset" / "images" / "stacked_fetal_ultrasound"
    folder.mkdir(parents=True)
    for number, case in enumerate(CASES):
        image = sitk.GetImageFromArray(np.roll(frames, 2 * number, axis=0))
        image.SetSpacing((SPACING_MM,) * 3)
        sitk.WriteImage(image, str(folder / f"{case}.mha"))
    return tmp_path / "dataset"


def run(dataset: Path, bundle: Path, output: Path, *more: str) -> int:
    arguments = ["run", str(dataset), "--model", str(bundle), "--output", str(output)]
    return main([*arguments, "--device", "cpu", *more])


def stack_path(dataset: Path, case: str) -> Path:
    return dataset / "images" / "stacked_fetal_ultrasound" / f"{case}.mha"


def times(output: Path) -> dict[str, int]:
    return {case: (output / case / FILES[0]).stat().st_mtime_ns for case in CASES}


def test_every_case_is_byte_for_byte_what_inference_writes(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out") == 0
    given = tmp_path / "given" / "images" / "stacked-fetal-ultrasound"
    given.mkdir(parents=True)
    shutil.copy2(stack_path(dataset, "case-b"), given)
    command = [sys.executable, "inference.py", "--input", str(tmp_path / "given")]
    command += ["--output", str(tmp_path / "one"), "--model", str(tiny_bundle), "--device", "cpu"]
    # One thread here as in the tests: how sums are split over threads shows in their last digits.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (
            tmp_path / "out" / "case-b" / name
        ).read_bytes(), name


def test_a_run_leaves_notes_and_score_curves(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out", "--limit", "2") == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["simulated"] is True
    assert record["bundle_id"].startswith("tiny-")
    assert list(record["seconds"]) == ["case-a", "case-b"]
    scores = json.loads((tmp_path / "out" / "case-a" / "frame_scores.json").read_text())
    assert len(scores["frame_scores"]) == 12
    assert not (tmp_path / "out" / "case-c").exists()


def test_what_is_done_and_whole_is_not_done_again(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert run(dataset, tiny_bundle, output) == 0
    before = times(output)
    mask = output / "case-b" / FILES[0]
    mask.write_bytes(mask.read_bytes()[:-40])
    (output / "case-c" / FILES[1]).unlink()
    assert run(dataset, tiny_bundle, output) == 0
    after = times(output)
    assert after["case-a"] == before["case-a"]
    assert after["case-b"] > before["case-b"]
    assert after["case-c"] > before["case-c"]
    assert (output / "case-c" / FILES[1]).is_file()


def test_a_failing_case_is_recorded_and_the_others_go_on(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = stack_path(dataset, "case-b")
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert run(dataset, tiny_bundle, tmp_path / "out") == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(record["failed"]) == ["case-b"]
    assert "InputError" in record["failed"]["case-b"]
    assert sorted(record["seconds"]) == ["case-a", "case-c"]
    assert not (tmp_path / "out" / "case-b").exists()
    path.write_bytes(whole)
    assert run(dataset, tiny_bundle, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["failed"] == {}


def test_a_defect_of_ours_in_one_case_does_not_end_the_run(
    dataset: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(stack: Stack, bundle: Bundle, rule: Rule, *, fail_soft: bool) -> Measurement:
        if stack.name == "case-a":
            raise ZeroDivisionError("a defect")
        return measure(stack, bundle, rule, fail_soft=fail_soft)

    monkeypatch.setattr(run_module, "measure", fails_once)
    assert run(dataset, tiny_bundle, tmp_path / "out") == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["failed"] == {"case-a": "ZeroDivisionError: a defect"}
    assert sorted(record["seconds"]) == ["case-b", "case-c"]


def test_a_killed_run_goes_on_where_it_stopped(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "evaluation", "run", str(dataset), "--model", str(tiny_bundle)]
    command += ["--output", str(output), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (output / "case-a").is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [case for case in CASES if (output / case).is_dir()]
    assert "case-a" in done
    before = {case: (output / case / FILES[0]).stat().st_mtime_ns for case in done}
    (output / ".case-b.0123abcd.partial").mkdir(exist_ok=True)
    assert run(dataset, tiny_bundle, output) == 0
    after = times(output)
    assert {case: after[case] for case in done} == before
    assert not list(output.glob(".*"))


def test_another_bundles_answers_are_not_mixed_in(
    dataset: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out", "--limit", "1") == 0
    path = tmp_path / "out" / "run.json"
    record = json.loads(path.read_text()) | {"bundle_id": "other-1"}
    path.write_text(json.dumps(record))
    assert run(dataset, tiny_bundle, tmp_path / "out") == 1
    assert "other-1" in capsys.readouterr().err


def test_named_cases_and_unknown_ones(
    dataset: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out", "--cases", "case-c") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("case-*")) == ["case-c"]
    assert run(dataset, tiny_bundle, tmp_path / "out", "--cases", "case-x") == 1
    assert "case-x" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", tiny_bundle, tmp_path / "out") == 1
    assert "nowhere" in capsys.readouterr().err
