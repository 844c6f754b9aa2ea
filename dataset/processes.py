"""Going through many cases or jobs: several processes, and a line now and then on how far it is."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import cv2
from tqdm import tqdm

from dataset.command import call

Item = TypeVar("Item")
Job = TypeVar("Job")
# Often enough to be trusted, seldom enough for a log.
SECONDS_BETWEEN_LINES = 10.0
# A process that is to end and has not by then is killed; its parent may have no more than 5 s.
SECONDS_TO_END = 3.0
GPUS = "CUDA_VISIBLE_DEVICES"
log = logging.getLogger(__name__)
# Not forked: SimpleITK, OpenCV and torch have started threads by now.
_CONTEXT = multiprocessing.get_context("spawn")


def progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Pass items on, showing how many of `total` are through: a bar on a terminal, else lines."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=label, unit="case")
        return
    told_s = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done == total or time.monotonic() - told_s > SECONDS_BETWEEN_LINES:
            told_s = time.monotonic()
            log.info("%s: %d of %d", label, done, total)


@contextmanager
def show_progress(total: int, count: Callable[[], int], label: str) -> Iterator[None]:
    """While the block runs, show now and then how many of `total` others have done, by `count`."""
    ended = threading.Event()
    shows_bar = sys.stderr.isatty()

    def show() -> None:
        with tqdm(total=total, desc=label, unit="case", disable=not shows_bar) as bar:
            while not ended.wait(1.0 if shows_bar else SECONDS_BETWEEN_LINES):
                done = count()
                bar.update(done - bar.n)
                if not shows_bar:
                    log.info("%s: %d of %d", label, done, total)

    shower = threading.Thread(target=show, daemon=True)
    shower.start()
    try:
        yield
    finally:
        ended.set()
        shower.join()


def in_processes(
    function: Callable[[Job], Item], jobs: Sequence[Job], workers: int | None, label: str
) -> Iterator[Item]:
    """Go through jobs in several processes. The first error of a job ends the rest.

    Args:
        function: takes a job; both have to be picklable.
        jobs: all that is to be done.
        workers: number of processes; None is one a core. One needs no process of its own.
        label: what to call the work in progress lines.

    Yields:
        Each job's result as it comes, in no particular order.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        yield from progress(map(function, jobs), len(jobs), label)
        return
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, mp_context=_CONTEXT, initializer=_begin_worker) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in progress(as_completed(futures), len(futures), label):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # Nobody wants what they are at; files appear whole or not at all.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def visible_gpus(count: int) -> list[str]:
    """The names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them."""
    visible = os.environ.get(GPUS)
    return visible.split(",")[:count] if visible else [str(gpu) for gpu in range(count)]


def side_by_side(
    function: Callable[..., object],
    jobs: Sequence[tuple[Any, ...]],
    places: Sequence[Mapping[str, str]],
) -> list[int]:
    """Run every job in a process of its own, as many at a time as there are places.

    Args:
        function: takes a job's entries; both have to be picklable.
        jobs: all that is to be done, in this order.
        places: variables of the environment that a process gets beside its parent's.

    Returns:
        The exit code of each job's process, in the order of the jobs.
    """
    free = list(places)
    codes = [0] * len(jobs)
    waiting = list(enumerate(jobs))
    running: list[tuple[SpawnProcess, int, Mapping[str, str]]] = []
    try:
        while waiting or running:
            while waiting and free:
                (number, job), place = waiting.pop(0), free.pop(0)
                running.append((_start_at(place, function, job), number, place))
            wait([process.sentinel for process, _, _ in running])
            for process, number, place in [entry for entry in running if not entry[0].is_alive()]:
                running.remove((process, number, place))
                codes[number] = process.exitcode or 0
                free.append(place)
    finally:
        _end([process for process, _, _ in running])
    return codes


def _start_at(
    place: Mapping[str, str], function: Callable[..., object], job: tuple[Any, ...]
) -> SpawnProcess:
    """Start a process that shows no bar, as others write beside it."""
    before = os.environ.copy()
    os.environ |= {**place, "TQDM_DISABLE": "1"}
    try:
        process = _CONTEXT.Process(target=_run_job, args=(function, job))
        process.start()
    finally:
        os.environ.clear()
        os.environ |= before
    return process


def _run_job(function: Callable[..., object], job: tuple[Any, ...]) -> None:
    def command(entries: tuple[Any, ...]) -> None:
        function(*entries)

    _end_with_parent()
    raise SystemExit(call(command, job))


def _end(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline_s = time.monotonic() + SECONDS_TO_END
    for process in processes:
        process.join(max(0.0, deadline_s - time.monotonic()))
        process.kill()


def _begin_worker() -> None:
    _end_with_parent()
    # Ctrl-C reaches every process of a terminal; the parent answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads(1)


def limit_threads(count: int) -> None:
    """Have this process compute with so many threads, whichever library computes."""
    # torch and ITK ask the environment when they are imported, and have to be told afterwards.
    os.environ["OMP_NUM_THREADS"] = str(count)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "SimpleITK" in sys.modules:
        itk = sys.modules["SimpleITK"].ProcessObject
        itk.SetGlobalDefaultNumberOfThreads(count)
    cv2.setNumThreads(count)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended.

    A pool's process would otherwise wait for its next job for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
