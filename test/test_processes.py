"""The pool that all rooms share, and one process a GPU."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset.processes import GPUS, in_processes, side_by_side, visible_gpus

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'test'}"}


def square(number: int) -> int:
    return number * number


def fail_at_once_or_sleep(number: int) -> int:
    if number == 0:
        raise ValueError("job 0")
    time.sleep(60)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    assert sorted(in_processes(square, range(5), workers, "squared")) == [0, 1, 4, 9, 16]


def test_an_error_ends_the_other_jobs_too() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="job 0"):
        list(in_processes(fail_at_once_or_sleep, range(2), 2, "slept"))
    assert time.monotonic() - began < 30


def note_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(120)


def is_running(pid: str) -> bool:
    try:
        # The state follows the name in brackets; a zombie has ended.
        state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    text = (
        "import sys; from pathlib import Path; import test_processes as t\n"
        "if __name__ == '__main__':\n"
        "    list(t.in_processes(t.note_and_sleep, [Path(sys.argv[1])] * 2, 2, 'slept'))"
    )
    script = tmp_path / "parent.py"
    script.write_text(text)
    notes = tmp_path / "notes"
    notes.mkdir()
    with subprocess.Popen([sys.executable, str(script), str(notes)], env=ENVIRONMENT) as parent:
        wait_until(lambda: len(list(notes.iterdir())) == 2)
        parent.kill()
    wait_until(lambda: not any(is_running(path.name) for path in notes.iterdir()))


def note_the_gpu(folder: Path, job: int) -> None:
    """Leave the job's GPU and its time; job 2 fails."""
    began = time.monotonic()
    time.sleep(1)
    (folder / f"{job}").write_text(f"{os.environ[GPUS]} {began} {time.monotonic()}")
    if job == 2:
        raise SystemExit(3)


@pytest.mark.parametrize("visible", [None, "5,7"])
def test_each_job_sees_one_gpu_that_no_other_has(
    tmp_path: Path, visible: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GPUS, raising=False)
    if visible:
        monkeypatch.setenv(GPUS, visible)
    places = [{GPUS: gpu} for gpu in visible_gpus(2)]
    codes = side_by_side(note_the_gpu, [(tmp_path, job) for job in range(3)], places)
    assert codes == [0, 0, 3]
    assert os.environ.get(GPUS) == visible
    notes = [(tmp_path / str(job)).read_text().split() for job in range(3)]
    assert {gpu for gpu, _, _ in notes} == set((visible or "0,1").split(","))
    for gpu in {gpu for gpu, _, _ in notes}:
        spans = sorted((float(began), float(ended)) for on, began, ended in notes if on == gpu)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
