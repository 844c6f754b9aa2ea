"""Re-running a data set: the same bytes as inference.py, whatever interrupts it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import acouslic
from acouslic.bundle import Bundle
from acouslic.challenge import SPACING_MM
from acouslic.errors import InputError
from acouslic.pipeline import Measurement, measure
from acouslic.selection import Rule
from acouslic.stack import Stack
from evaluation import worker
from evaluation.__main__ import main
from evaluation.run import parse_shard
from evaluation.runlog import RECORD_FILE, SCHEMA, RunLog, read_log, read_record

# Ray sets an option of its own that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
ROOT = Path(__file__).parent.parent
CASES = ("case-a", "case-b", "case-c")
FILES = (
    "images/fetal-abdomen-segmentation/output.mha",
    "fetal-abdomen-frame-number.json",
    "fetal-abdominal-circumference.json",
)

# What a run does about its cases is the same with each engine, and PyTorch converts nothing.
QUICK = ("--device", "cpu", "--engine", "torch")


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
    return main([*arguments, *QUICK, *more])


def stack_path(dataset: Path, case: str) -> Path:
    return dataset / "images" / "stacked_fetal_ultrasound" / f"{case}.mha"


def done(log: RunLog) -> list[str]:
    return sorted(name for name, case in log.cases.items() if case["status"] == "done")


def times(output: Path) -> dict[str, int]:
    return {case: (output / case / FILES[0]).stat().st_mtime_ns for case in CASES}


def test_every_case_is_byte_for_byte_what_inference_writes(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out", "--engine", "auto") == 0
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
    assert list(record["cases"]) == ["case-a", "case-b"]
    assert record["schema"] == SCHEMA
    assert record["status"] == "finished"
    assert record["cases"]["case-b"]["status"] == "done"
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
    record = read_log(tmp_path / "out")
    assert list(record.failed) == ["case-b"]
    assert record.failed["case-b"].startswith("LengthError: ")
    assert done(record) == ["case-a", "case-c"]
    assert not (tmp_path / "out" / "case-b").exists()
    path.write_bytes(whole)
    assert run(dataset, tiny_bundle, tmp_path / "out") == 0
    assert read_log(tmp_path / "out").failed == {}


def test_a_defect_of_ours_in_one_case_does_not_end_the_run(
    dataset: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(stack: Stack, bundle: Bundle, rule: Rule, *, fail_soft: bool) -> Measurement:
        if stack.name == "case-a":
            raise ZeroDivisionError("a defect")
        return measure(stack, bundle, rule, fail_soft=fail_soft)

    monkeypatch.setattr(worker, "measure", fails_once)
    assert run(dataset, tiny_bundle, tmp_path / "out") == 1
    record = read_log(tmp_path / "out")
    assert record.failed == {"case-a": "ZeroDivisionError: a defect"}
    assert done(record) == ["case-b", "case-c"]


def test_a_killed_run_goes_on_where_it_stopped(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "evaluation", "run", str(dataset), "--model", str(tiny_bundle)]
    command += ["--output", str(output), *QUICK]
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


def answers(output: Path) -> dict[str, bytes]:
    """All files of all answers but their records, by path."""
    paths = sorted(path for path in output.glob("case-*/**/*") if path.is_file())
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in paths
        if path.name != RECORD_FILE
    }


def test_a_record_tells_how_a_case_went(dataset: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out") == 0
    log = read_log(tmp_path / "out")
    record = log.record("case-b")
    assert record == read_record(tmp_path / "out" / "case-b" / RECORD_FILE)
    assert list(record.seconds) == ["read", "preprocess", "network", "selection", "write"]
    assert all(seconds >= 0 for seconds in record.seconds.values())
    # A process that has imported torch holds more than 100 MiB, and this machine less than 10 TiB.
    assert record.peak_memory_mib is not None
    assert 100 < record.peak_memory_mib < 1e7
    assert record.peak_gpu_memory_mib is None
    assert record.started <= record.ended
    stack = stack_path(dataset, "case-b")
    assert record.stack["bytes"] == stack.stat().st_size
    assert record.stack["sha256"] == hashlib.sha256(stack.read_bytes()).hexdigest()
    assert record.worker.device == "cpu"
    assert record.worker.threads == 1
    assert record.worker.libraries["torch"] == metadata.version("torch")
    assert record.code.version == acouslic.__version__
    # One process, one code: the log holds each once.
    assert (len(log.workers), len(log.codes)) == (1, 1)


def test_the_fingerprint_of_the_data_changes_with_any_stack(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "a", "--limit", "2") == 0
    assert run(dataset, tiny_bundle, tmp_path / "b", "--limit", "2") == 0
    shutil.copy(stack_path(dataset, "case-c"), stack_path(dataset, "case-b"))
    assert run(dataset, tiny_bundle, tmp_path / "c", "--limit", "2") == 0
    a, b, c = (read_log(tmp_path / name).data_sha256 for name in "abc")
    assert a == b != c


def test_a_stack_that_changed_is_answered_again_and_one_only_touched_is_not(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert run(dataset, tiny_bundle, output) == 0
    before = times(output)
    shutil.copyfile(stack_path(dataset, "case-c"), stack_path(dataset, "case-b"))
    os.utime(stack_path(dataset, "case-a"))
    assert run(dataset, tiny_bundle, output) == 0
    after = times(output)
    assert [case for case in CASES if after[case] != before[case]] == ["case-b"]


def test_added_cases_leave_what_is_done(dataset: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(dataset, tiny_bundle, output, "--limit", "2") == 0
    before = {name: (output / name / RECORD_FILE).read_bytes() for name in CASES[:2]}
    assert run(dataset, tiny_bundle, output) == 0
    assert before == {name: (output / name / RECORD_FILE).read_bytes() for name in CASES[:2]}
    assert done(read_log(output)) == list(CASES)


def test_retry_runs_only_what_failed(dataset: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    output, path = tmp_path / "out", stack_path(dataset, "case-b")
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert run(dataset, tiny_bundle, output, "--rule", "largest-area") == 1
    retry = ["retry", str(output), "--model", str(tiny_bundle), "--device", "cpu"]
    assert main(retry) == 1
    log = read_log(output)
    assert log.status == "incomplete"
    assert log.record("case-b").attempts == 2
    path.write_bytes(whole)
    before = {name: (output / name / RECORD_FILE).read_bytes() for name in ("case-a", "case-c")}
    assert main(retry) == 0
    log = read_log(output)
    assert (log.status, log.failed, log.unfinished) == ("finished", {}, ())
    assert log.record("case-b").attempts == 3
    assert {log.record(case).rule for case in CASES} == {"largest-area"}
    assert before == {name: (output / name / RECORD_FILE).read_bytes() for name in before}
    assert not list(output.glob("*.failed.json"))


def test_retry_refuses_another_bundle_and_a_folder_without_a_run(
    dataset: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "out", "--limit", "1") == 0
    path = tmp_path / "out" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bundle_id": "other-1"}))
    assert main(["retry", str(tmp_path / "out"), "--model", str(tiny_bundle)]) == 1
    assert "other-1" in capsys.readouterr().err
    assert main(["retry", str(tmp_path), "--model", str(tiny_bundle)]) == 1
    assert "run.json" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["local", "ray", "slurm"])
def test_every_backend_gives_the_answers_of_the_serial_run(
    backend: str,
    dataset: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run(dataset, tiny_bundle, tmp_path / "serial", "--workers", "1") == 0
    more = ("--backend", backend, "--workers", "2", "--threads", "1")
    assert run(dataset, tiny_bundle, tmp_path / "out", *more) == 0
    assert answers(tmp_path / "out") == answers(tmp_path / "serial")
    log = read_log(tmp_path / "out")
    assert (log.status, done(log)) == ("finished", list(CASES))
    assert os.getpid() not in {worker.process for worker in log.workers}


def test_two_commands_on_one_output_share_the_cases(
    dataset: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "serial") == 0
    command = [sys.executable, "-m", "evaluation", "run", str(dataset), "--model", str(tiny_bundle)]
    command += ["--output", str(tmp_path / "out"), *QUICK]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert answers(tmp_path / "out") == answers(tmp_path / "serial")
    log = read_log(tmp_path / "out")
    assert [log.record(case).attempts for case in CASES] == [1, 1, 1]


def test_shards_together_are_the_whole(dataset: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert run(dataset, tiny_bundle, tmp_path / "serial") == 0
    shards = [tmp_path / "shard-0", tmp_path / "shard-1"]
    for number, shard in enumerate(shards):
        assert run(dataset, tiny_bundle, shard, "--shard", f"{number}/2") == 0
    assert done(read_log(shards[0])) == ["case-a", "case-c"]
    assert done(read_log(shards[1])) == ["case-b"]
    merge = ["merge", *map(str, shards), "--output", str(tmp_path / "out")]
    assert main(merge) == 0
    assert main(merge) == 0  # What was interrupted goes on.
    assert answers(tmp_path / "out") == answers(tmp_path / "serial")
    log, serial = read_log(tmp_path / "out"), read_log(tmp_path / "serial")
    assert (log.status, log.shard, log.selection) == ("finished", None, CASES)
    assert log.data_sha256 == serial.data_sha256
    assert run(dataset, tiny_bundle, tmp_path / "out") == 0
    assert all(log.cases[case] == read_log(tmp_path / "out").cases[case] for case in CASES)


def test_merge_refuses_holes_doubles_and_mixtures(
    dataset: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "0", tmp_path / "1"
    for number, shard in enumerate((first, second)):
        assert run(dataset, tiny_bundle, shard, "--shard", f"{number}/2") == 0

    def refused(*shards: Path) -> str:
        output = tmp_path / "out"
        assert main(["merge", *map(str, shards), "--output", str(output)]) == 1
        assert not output.exists()
        return capsys.readouterr().err

    assert "none for 1, the first being case-b" in refused(first)
    assert "case-a in" in refused(first, first, second)
    shutil.rmtree(second / "case-b")
    assert "none for 1, the first being case-b" in refused(first, second)
    assert run(dataset, tiny_bundle, second, "--shard", "1/2", "--cases", "case-a", "case-b") == 0
    assert "list of cases" in refused(first, second)
    log = json.loads((second / "run.json").read_text()) | {"bundle_id": "other-1"}
    (second / "run.json").write_text(json.dumps(log))
    assert "with the bundle of" in refused(first, second)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (None, {}, None),
        ("2/8", {}, "2/8"),
        ("0/1", {}, None),
        ("2/8", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "6"}, "2/8"),
        (None, {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "6"}, "5/6"),
        (
            None,
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_COUNT": "6",
            },
            "4/6",
        ),
        ("/8", {"JOB_COMPLETION_INDEX": "7"}, "7/8"),
        ("/8", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, "3/8"),
        ("0/1", {"JOB_COMPLETION_INDEX": "7"}, None),
    ],
)
def test_a_shard_is_given_or_the_schedulers(
    text: str | None, environment: dict[str, str], expected: str | None
) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("8/8", {}),
        ("3", {}),
        ("a/8", {}),
        ("-1/8", {}),
        ("/8", {}),
        (None, {"JOB_COMPLETION_INDEX": "3"}),
        ("/8", {"JOB_COMPLETION_INDEX": "8"}),
    ],
)
def test_a_shard_that_is_none_is_refused(text: str | None, environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match="--shard"):
        parse_shard(text, environment)
