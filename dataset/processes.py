"""Going through many cases: several processes, and a word now and then on how far it is."""

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import cv2
import SimpleITK as sitk
from tqdm import tqdm

Item = TypeVar("Item")
Job = TypeVar("Job")
SECONDS_BETWEEN_LINES = 10.0
log = logging.getLogger(__name__)


def progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Pass items on, showing how many of `total` are through: a bar on a terminal, else lines."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=label, unit="case")
        return
    spoke = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done == total or time.monotonic() - spoke > SECONDS_BETWEEN_LINES:
            spoke = time.monotonic()
            log.info("%s: %d of %d", label, done, total)


def in_processes(
    function: Callable[[Job], Item], jobs: Sequence[Job], workers: int | None, label: str
) -> Iterator[Item]:
    """Each job's result as it comes, in no particular order; None workers is one a core.

    `function` and jobs have to be picklable. What it raises ends the rest.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        yield from progress(map(function, jobs), len(jobs), label)
        return
    # Not forked: SimpleITK and OpenCV have started threads by now.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_single_threaded) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in progress(as_completed(futures), len(futures), label):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _single_threaded() -> None:
    # torch, where a job imports it, asks the environment when it starts.
    os.environ["OMP_NUM_THREADS"] = "1"
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    cv2.setNumThreads(1)
