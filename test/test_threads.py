import os
from pathlib import Path

import pytest

from acouslic import threads


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process in /a/b of both versions' hierarchies, on a machine of eight cores."""
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/a/b\n")
    monkeypatch.setattr(threads, "OWN_CGROUP", own)
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "cpu/a/b").mkdir(parents=True)
    return tmp_path


def test_without_a_quota_all_cores_count(cgroup: Path) -> None:
    assert threads.usable_cores() == 8
    (cgroup / "a/b/cpu.max").write_text("max 100000\n")
    (cgroup / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (cgroup / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert threads.usable_cores() == 8


@pytest.mark.parametrize("folder", ["a/b", "a", ""])
def test_the_quota_of_any_group_around_counts(cgroup: Path, folder: str) -> None:
    (cgroup / folder / "cpu.max").write_text("250000 100000\n")
    assert threads.usable_cores() == 3


def test_the_first_versions_quota_counts(cgroup: Path) -> None:
    (cgroup / "cpu/a/cpu.cfs_quota_us").write_text("50000\n")
    (cgroup / "cpu/a/cpu.cfs_period_us").write_text("100000\n")
    assert threads.usable_cores() == 1


def test_threads_wait_without_spinning_and_are_as_many_as_asked_for(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set first, so that all is put back afterwards.
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    threads.use_threads(None)
    assert os.environ["OMP_NUM_THREADS"] == "8"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    threads.use_threads(3)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    threads.use_threads(None)
    assert os.environ["OMP_NUM_THREADS"] == "3", "what the environment says is the user's"
