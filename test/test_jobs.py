"""Jobs on every backend: each is done once, whatever becomes of the workers."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from acouslic.errors import InputError
from dataset.backends import Backend, Needs, free_mib, run_jobs, share_cores
from dataset.jobs import CLAIMS_FOLDER, MOST_DEATHS, Takes, work

# Ray sets an option of its own that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
ROOT = Path(__file__).resolve().parents[1]
NEEDS = Needs(gpu=False, memory_mib=100)
BACKENDS = (
    Backend("local", workers=1),
    Backend("local", workers=2),
    Backend("ray", workers=2),
    Backend("slurm", workers=2),
)


@dataclass(frozen=True)
class Notes:
    """Each job leaves a file, which must not be there already, with its worker's number."""

    folder: Path
    names: tuple[str, ...]
    deadly: tuple[str, ...] = ()
    deaths: int = 1

    def is_over(self, name: str) -> bool:
        return (self.folder / name).exists() or (self.folder / f"{name}.failed").exists()

    def give_up(self, name: str, reason: str) -> None:
        (self.folder / f"{name}.failed").write_text(reason)

    def open(self) -> Callable[[Takes], None]:
        return self.go_through

    def go_through(self, takes: Takes) -> None:
        for name in takes:
            died = list(self.folder.glob(f"{name}.died-*"))
            if name in self.deadly and len(died) < self.deaths:
                (self.folder / f"{name}.died-{len(died)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            with (self.folder / name).open("x") as file:
                file.write(str(os.getpid()))


def names(count: int) -> tuple[str, ...]:
    return tuple(f"job-{k}" for k in range(count))


@pytest.fixture(autouse=True)
def importable_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import this module by its name."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'test'}")


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.backend}-{b.workers}")
def test_every_job_is_done_once_on_every_backend(backend: Backend, tmp_path: Path) -> None:
    jobs = Notes(tmp_path, names(12))
    assert run_jobs(jobs, backend, NEEDS) == []
    assert {path.name for path in tmp_path.glob("job-*")} == set(jobs.names)
    assert not (tmp_path / CLAIMS_FOLDER).exists()


@pytest.mark.parametrize("backend", BACKENDS[1:], ids=lambda b: b.backend)
def test_nothing_is_lost_and_nothing_done_twice_where_two_workers_are_killed(
    backend: Backend, tmp_path: Path
) -> None:
    jobs = Notes(tmp_path, names(12), deadly=("job-2", "job-8"))
    assert run_jobs(jobs, backend, NEEDS) == []
    assert len(list(tmp_path.glob("*.died-0"))) == 2
    assert all((tmp_path / name).exists() for name in jobs.names)
    assert not (tmp_path / CLAIMS_FOLDER).exists()


def test_a_job_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    jobs = Notes(tmp_path, names(4), deadly=("job-1",), deaths=99)
    assert run_jobs(jobs, Backend(workers=2), NEEDS) == []
    assert (tmp_path / "job-1.failed").read_text() == f"{MOST_DEATHS} workers died at it"
    assert len(list(tmp_path.glob("job-1.died-*"))) == MOST_DEATHS
    assert all((tmp_path / name).exists() for name in jobs.names if name != "job-1")


@dataclass(frozen=True)
class Doomed(Notes):
    """Its workers die before they take anything."""

    def open(self) -> Callable[[Takes], None]:
        os.kill(os.getpid(), signal.SIGKILL)
        return self.go_through


def test_jobs_whose_workers_never_start_are_named_in_the_end(tmp_path: Path) -> None:
    assert run_jobs(Doomed(tmp_path, names(4)), Backend(workers=2), NEEDS) == list(names(4))


def test_a_worker_does_not_repeat_what_is_over(tmp_path: Path) -> None:
    jobs = Notes(tmp_path, names(3))
    (tmp_path / "job-1").touch()
    work(jobs)
    assert (tmp_path / "job-1").read_text() == ""
    assert all((tmp_path / name).read_text() for name in ("job-0", "job-2"))


@pytest.mark.parametrize(
    ("jobs", "backend", "free_mib", "expected"),
    [
        (100, Backend(), 99_999, (8, 1)),
        (100, Backend(), 3_000, (3, 2)),
        (6, Backend(), 99_999, (3, 2)),
        (3, Backend(), 99_999, (1, None)),
        (100, Backend(workers=2), 99_999, (2, 4)),
        (100, Backend(workers=1, threads=2), 99_999, (1, 2)),
        (100, Backend(), 100, (1, None)),
    ],
)
def test_the_cores_are_shared_out_to_as_many_processes_as_fit(
    jobs: int, backend: Backend, free_mib: int, expected: tuple[int, int | None]
) -> None:
    shared = share_cores(jobs, backend, cores=8, free_mib=free_mib, worker_mib=1000)
    assert shared == expected


def test_files_that_are_kept_at_hand_count_as_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a data set was read most of the memory holds it, and can be had all the same."""
    table = "MemTotal: 4096000 kB\nMemFree: 102400 kB\nMemAvailable: 3072000 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda path: {"/proc/meminfo": table}[str(path)])
    assert free_mib() == 3000


def test_slurm_has_to_be_told_how_many(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--workers"):
        run_jobs(Notes(tmp_path, names(2)), Backend("slurm"), NEEDS)
    backend = Backend("slurm", workers=1, slurm=("partition",))
    with pytest.raises(InputError, match="name=value"):
        run_jobs(Notes(tmp_path, names(2)), backend, NEEDS)
