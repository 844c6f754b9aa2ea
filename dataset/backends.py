"""Starting workers for jobs: on this machine, on a Ray cluster, or as an array of SLURM jobs.

Each backend only starts workers. Which worker does which job is settled by claims, see `jobs`: so a
backend may lose workers, and several may work on one folder.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib

from acouslic.errors import InputError
from dataset.claims import Claims
from dataset.jobs import (
    CLAIMS_FOLDER,
    FAILURES_FOLDER,
    MOST_DEATHS,
    FileJobs,
    Jobs,
    Takes,
    work,
)
from dataset.processes import GPUS, limit_threads, show_progress, side_by_side, visible_gpus

# A worker takes some seconds to start, so it should have more than one job.
JOBS_A_WORKER = 2
# Jobs that a Ray worker gets at a time: it reads the next while it computes one, which it cannot
# across two of Ray's batches. Few, so that all workers end at about the same time.
RAY_BATCH = 4
SLURM_LOGS = ".slurm"
# What most clusters allow; a job that is stopped then goes on in the next one.
SLURM_MINUTES = 4 * 60
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """Where the work is done."""

    backend: Literal["local", "ray", "slurm"] = "local"
    """What starts the workers: this machine, a Ray cluster, or SLURM (the extra `cluster`)."""
    workers: int | None = None
    """Number of processes; None: one a GPU, on a CPU as docs/scale.md tells; SLURM needs one."""
    threads: int | None = None
    """Threads a process on a CPU; None shares the cores out. Sums in another number of threads may
    differ in their last digits."""
    address: str | None = None
    """Ray: the cluster's address, or auto; None starts one on this machine for the run."""
    slurm: tuple[str, ...] | None = None
    """SLURM: parameters of each job, as submitit names them: slurm_partition=gpu
    timeout_min=600 ..."""


@dataclass(frozen=True)
class Needs:
    """What a worker needs of its machine."""

    gpu: bool
    """Whether it computes on a GPU of its own."""
    memory_mib: int
    """The most memory that it holds."""


def run_jobs(jobs: Jobs, backend: Backend, needs: Needs) -> list[str]:
    """Go through all jobs with a backend's workers.

    Args:
        jobs: what is to be done.
        backend: where.
        needs: what each worker needs.

    Returns:
        The jobs that are not over, as their workers died: none, as a rule.

    Raises:
        InputError: the backend cannot be had.
    """
    start = {"local": _local, "ray": _ray, "slurm": _slurm}[backend.backend]
    waiting, idle_rounds = [name for name in jobs.names if not jobs.is_over(name)], 0
    with show_progress(len(waiting), lambda: sum(map(jobs.is_over, jobs.names)), "done"):
        # A job that kills its workers is given up at MOST_DEATHS, so that this ends.
        while waiting and idle_rounds < MOST_DEATHS:
            start(jobs, waiting, backend, needs)
            left = [name for name in waiting if not jobs.is_over(name)]
            idle_rounds = idle_rounds + 1 if len(left) == len(waiting) else 0
            waiting = left
    with Claims(jobs.folder / CLAIMS_FOLDER) as claims:
        claims.release_dead()
    return waiting


def finish(jobs: FileJobs, backend: Backend, needs: Needs, label: str) -> None:
    """Go through all jobs, those that failed before once more.

    Args:
        jobs: what is to be done.
        backend: where.
        needs: what each worker needs.
        label: what the jobs are called where they failed.

    Raises:
        InputError: the backend cannot be had, or a job failed; the first one is told.
    """
    notes = jobs.folder / FAILURES_FOLDER
    shutil.rmtree(notes, ignore_errors=True)
    try:
        failed = dict.fromkeys(run_jobs(jobs, backend, needs), "all workers at it died")
        failed |= {path.name: path.read_text() for path in notes.glob("*")}
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    if failed:
        name, reason = min(failed.items())
        raise InputError(
            expected=f"all {len(jobs.names)} {label} done",
            found=f"{len(failed)} failed, the first being {name}: {reason}",
            advice="mend that and give the same command: what is finished is kept",
        )


def share_cores(
    n_jobs: int, backend: Backend, *, cores: int, free_mib: int, worker_mib: int
) -> tuple[int, int | None]:
    """Processes, and threads of each, on a machine without GPU.

    As many processes as cores, with a thread each, unless the memory or the number of jobs is too
    small: half of a case's stages know one thread only, and threads that wait for others spin.

    Args:
        n_jobs: how much there is to do.
        backend: what was asked for.
        cores: those that this process may use.
        free_mib: memory that nobody uses.
        worker_mib: memory that a worker needs.

    Returns:
        Their numbers; None for threads leaves them to the libraries, which take all cores.
    """
    most = max(1, min(cores, free_mib // worker_mib, n_jobs // JOBS_A_WORKER))
    workers = backend.workers or most
    if workers == 1:
        return 1, backend.threads
    return workers, backend.threads or max(1, cores // workers)


def _local(jobs: Jobs, names: Sequence[str], backend: Backend, needs: Needs) -> None:
    """Processes side by side, one a GPU; a single worker is this process."""
    threads: int | None
    if needs.gpu:
        places = [{GPUS: gpu} for gpu in visible_gpus(gpu_count())][: backend.workers]
        workers, threads = len(places), backend.threads
    else:
        workers, threads = share_cores(
            len(names),
            backend,
            cores=joblib.cpu_count(),
            free_mib=free_mib(),
            worker_mib=needs.memory_mib,
        )
        places = [{}] * workers
    if workers == 1:
        _work(jobs, 0, 1, threads)
        return
    log.info("%d workers, threads a worker: %s", workers, threads or "all")
    codes = side_by_side(_work, [(jobs, k, workers, threads) for k in range(workers)], places)
    for worker, code in enumerate(codes):
        if code:
            log.warning("worker %d ended with code %d; others take its jobs over", worker, code)


def free_mib() -> int:
    """Memory that could be had: what is free, and what only keeps files at hand."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(available.split()[1]) >> 10


def _work(jobs: Jobs, worker: int, workers: int, threads: int | None) -> None:
    if threads is not None:
        limit_threads(threads)
    work(jobs, worker=worker, workers=workers)


def gpu_count() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count()


def _ray(jobs: Jobs, names: Sequence[str], backend: Backend, needs: Needs) -> None:
    """Ray Data: a row a job, and actors that load what they need once."""
    import ray

    threads = backend.threads or 1
    # Nothing of a run is told to Ray's makers. A cluster of our own needs no page for its state,
    # nor the lowest of priorities for its workers, at which they stand still beside other work.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address=backend.address,
        include_dashboard=False if backend.address is None else None,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        resource, share = ("GPU", 1) if needs.gpu else ("CPU", threads)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        most = int(resources.get(resource, 0)) // share
        workers = backend.workers or max(1, min(most, len(names) // JOBS_A_WORKER))
        batch = max(1, min(RAY_BATCH, len(names) // (RAY_BATCH * workers)))
        rows = ray.data.from_items(
            [{"name": name} for name in names], override_num_blocks=-(-len(names) // batch)
        )
        over = rows.map_batches(
            RayWorker,
            fn_constructor_args=(jobs, threads),
            batch_size=batch,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=threads,
            num_gpus=int(needs.gpu),
        )
        over.materialize()
    finally:
        ray.shutdown()


class RayWorker:
    """What one of Ray's actors does with the jobs that it gets."""

    def __init__(self, jobs: Jobs, threads: int) -> None:
        """Load what the jobs need."""
        limit_threads(threads)
        self._jobs, self._go_through = jobs, jobs.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the jobs of a batch, and pass their names on."""
        with Claims(self._jobs.folder / CLAIMS_FOLDER) as claims:
            self._go_through(Takes(self._jobs, claims, [str(name) for name in batch["name"]]))
        return batch


def _slurm(jobs: Jobs, names: Sequence[str], backend: Backend, needs: Needs) -> None:
    """submitit: an array of jobs, a worker each; without SLURM, processes on this machine."""
    import submitit

    if backend.workers is None:
        raise InputError(
            expected="the number of jobs in the array, --workers, for --backend slurm",
            found="none",
            advice="give as many as the cluster lets you run at a time",
        )
    executor = submitit.AutoExecutor(folder=jobs.folder / SLURM_LOGS)
    log.info("an array of %d jobs by %s", backend.workers, executor.cluster)
    threads = backend.threads or 1
    parameters = {
        "name": "acouslic",
        "timeout_min": SLURM_MINUTES,
        "cpus_per_task": threads,
        "gpus_per_node": 1 if needs.gpu else None,
        "mem_gb": -(-needs.memory_mib // 1024),
        "slurm_array_parallelism": backend.workers,
    }
    executor.update_parameters(**parameters | _slurm_parameters(backend.slurm or ()))
    with executor.batch():
        tasks = [
            executor.submit(SlurmWorker(jobs, number, backend.workers, threads))
            for number in range(backend.workers)
        ]
    for task in tasks:
        if (error := task.exception()) is not None:
            log.warning("job %s: %s; others take its work over", task.job_id, error)


@dataclass(frozen=True)
class SlurmWorker:
    """One job of the array. SLURM may stop it and begin it again: what is done stays done."""

    jobs: Jobs
    """All jobs."""
    number: int
    """This worker's number, from 0."""
    workers: int
    """How many there are."""
    threads: int
    """Threads that it computes with."""

    def __call__(self) -> None:
        """Work until all is over."""
        _work(self.jobs, self.number, self.workers, self.threads)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again when the job's time is up."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _slurm_parameters(texts: Sequence[str]) -> dict[str, str | int]:
    """Parameters given as name=value, numbers as numbers."""
    parameters: dict[str, str | int] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(
                expected="name=value after --slurm",
                found=repr(text),
                advice="for example --slurm slurm_partition=gpu timeout_min=600",
            )
        parameters[name] = int(value) if value.isdigit() else value
    return parameters
