"""Claims: one worker a job, and whoever dies loses it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset import claims as claims_module
from dataset.claims import Claim, Claims

ROOT = Path(__file__).resolve().parents[1]
# Takes jobs until killed, saying which.
HOLDER = (
    "import sys, time; from pathlib import Path; from dataset.claims import Claims\n"
    "with Claims(Path(sys.argv[1])) as claims:\n"
    "    print(*(claims.take(name) is not None for name in sys.argv[2:]), flush=True)\n"
    "    time.sleep(60)"
)
# Takes as many of 200 jobs as it can, never releasing one before all are taken.
RUNNER = (
    "import sys; from pathlib import Path; from dataset.claims import Claims\n"
    "with Claims(Path(sys.argv[1])) as claims:\n"
    "    sys.stdin.readline()\n"
    "    print(*(k for k in range(200) if claims.take(str(k))), flush=True)\n"
    "    sys.stdin.readline()"
)


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def send_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_claim_is_one_workers_until_it_is_released(tmp_path: Path) -> None:
    with Claims(tmp_path / "c") as first, Claims(tmp_path / "c") as second:
        assert first.take("a/b") == Claim("a/b", 0)
        assert first.take("a/b") is None
        assert second.take("a/b") is None
        assert second.take("c") == Claim("c", 0)
        first.release("a/b")
        assert second.take("a/b") == Claim("a/b", 0)
    assert not (tmp_path / "c").exists()


def test_several_processes_never_get_the_same_job(tmp_path: Path) -> None:
    runners = [start(RUNNER, str(tmp_path / "c")) for _ in range(3)]
    for runner in runners:
        send_line(runner)
    taken = [set(read_line(runner).split()) for runner in runners]
    for runner in runners:
        runner.communicate("\n")
    assert sum(map(len, taken)) == 200
    assert set.union(*taken) == {str(k) for k in range(200)}


def test_a_killed_worker_loses_its_claims_at_once_and_its_death_is_counted(tmp_path: Path) -> None:
    for _ in range(2):
        with start(HOLDER, str(tmp_path / "c"), "a", "b") as holder:
            assert read_line(holder) == "True True"
            with Claims(tmp_path / "c") as claims:
                assert claims.take("a") is None
            holder.kill()
    with Claims(tmp_path / "c") as claims:
        assert claims.take("a") == Claim("a", 2)
        claims.release_dead()
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["a"]
    assert not (tmp_path / "c").exists()


def test_another_machine_keeps_its_claim_as_long_as_it_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "c"
    with Claims(folder, beat_s=0.05) as there, Claims(folder, lease_s=0.5, beat_s=9) as here:
        assert there.take("a") == Claim("a", 0)
        monkeypatch.setattr(claims_module, "_kernel", lambda: "another")
        for _ in range(10):
            assert here.take("a") is None
            time.sleep(0.1)
        there._closed.set()
        deadline = time.monotonic() + 10
        while (claim := here.take("a")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert claim == Claim("a", 1)
        there.release("a")  # It wakes up again, and must not take the new worker's claim away.
        assert (folder / "a").exists()
        monkeypatch.undo()
        assert there.take("a") is None


def test_of_two_machines_that_see_a_claim_go_stale_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its step another machine is quicker."""
    folder = tmp_path / "c"
    with Claims(folder) as dead, Claims(folder) as quick, Claims(folder, lease_s=0) as slow:
        dead.take("a")
        monkeypatch.setattr(claims_module, "_kernel", lambda: "another")
        stale = (folder / "a").stat().st_ino
        look = slow._is_stale

        def look_and_wait(path: Path, descriptor: int) -> bool:
            is_stale = look(path, descriptor)
            path.unlink()
            assert quick.take("a") == Claim("a", 0)
            return is_stale

        monkeypatch.setattr(slow, "_is_stale", look_and_wait)
        assert slow.take("a") is None
        assert (folder / "a").stat().st_ino != stale
        assert quick.take("a") is None
        assert [path.name for path in folder.iterdir()] == ["a"]


def test_where_locks_do_not_work_the_touches_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "_try_lock", lambda descriptor: None)
    with Claims(tmp_path / "c") as dead, Claims(tmp_path / "c", lease_s=0.3) as claims:
        assert dead.take("a") == Claim("a", 0)
        assert claims.take("a") is None
        time.sleep(0.4)
        assert claims.take("a") == Claim("a", 1)
