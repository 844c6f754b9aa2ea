"""`prepare`: from a data set in the challenge's layout to the training cache, checking everything
on the way.

Every problem of the whole data set is reported together; with any problem the cache stays
unfinished.
"""

import logging
import math
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from acouslic.errors import AcouslicError
from acouslic.stack import read_stack
from phantom.dataset import SIMULATED
from training.cache import finish_cache, has_case, store_case
from training.dataset import DatasetError, Entry, frame_labels, read_entries, read_labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One case to be checked and, unless the data set is known to be faulty, stored."""

    entry: Entry
    cache: Path
    size: int
    store: bool


def prepare(dataset: Path, cache: Path, *, size: int, workers: int) -> None:
    """Check `dataset` and write its cache; cases that the cache already holds are not read again.
    A cache of phantoms says so, to all that is made of it.

    Raises DatasetError after logging every problem, one a line.
    """
    uuids = add_cases(dataset, cache, size=size, workers=workers)
    finish_cache(cache, uuids, size, simulated=(dataset / SIMULATED).is_file())


def add_cases(dataset: Path, cache: Path, *, size: int, workers: int) -> list[str]:
    """The same for one of several parts of a cache, which stays unfinished; returns the uuids.

    Raises DatasetError after logging every problem, one a line.
    """
    entries, problems = read_entries(dataset)
    if not entries and not problems:
        problems = ["the table of circumferences has no rows"]
    jobs = [Job(entry, cache, size, store=not problems) for entry in entries]
    waiting = [job for job in jobs if not _is_stored(job)]
    log.info("%d cases, %d of them already in the cache", len(jobs), len(jobs) - len(waiting))
    for found in _progress(_run(waiting, workers), len(waiting)):
        problems += found
    if problems:
        for problem in sorted(problems):
            log.error("%s", problem)
        raise DatasetError(
            expected="a data set in the challenge's training layout, version 1.1",
            found=f"{len(problems)} problems, the first being: {sorted(problems)[0]}",
            advice="mend what is listed above and prepare again; finished cases are kept",
        )
    return [entry.uuid for entry in entries]


def run_job(job: Job) -> list[str]:
    """Read one case, store it where that is wanted and nothing is wrong, return its problems."""
    entry = job.entry
    problems: list[str] = []
    try:
        labels = read_labels(entry.mask)
        per_frame, problems = frame_labels(labels)
        stack = read_stack(entry.image)
    except (AcouslicError, RuntimeError) as error:
        problems.append(str(error).strip().splitlines()[-1])
    if problems or not job.store:
        return [f"{entry.uuid}: {problem}" for problem in problems]
    _note_unmatched_sweeps(entry, per_frame)
    store_case(
        job.cache,
        stack,
        labels,
        subject=entry.subject,
        ac_mm=entry.ac_mm,
        size=job.size,
        fingerprint=fingerprint(entry),
    )
    return []


def _note_unmatched_sweeps(entry: Entry, per_frame: np.ndarray) -> None:
    """Worth a line, but no reason to refuse: the AC of a sweep only counts where its frames do."""
    for number, labels in enumerate(np.split(per_frame, len(entry.ac_mm)), start=1):
        if labels.any() == math.isnan(entry.ac_mm[number - 1]):
            log.warning(
                "%s: sweep %d has %d annotated frames and %s",
                entry.uuid,
                number,
                np.count_nonzero(labels),
                "no AC" if labels.any() else "an AC",
            )


def fingerprint(entry: Entry) -> str:
    """Changes when a case's files or its row in the table change."""
    parts = [
        f"{stat.st_size}-{stat.st_mtime_ns}" for stat in (entry.image.stat(), entry.mask.stat())
    ]
    return ";".join([*parts, entry.subject, *(f"{value:g}" for value in entry.ac_mm)])


def _is_stored(job: Job) -> bool:
    return job.store and has_case(
        job.cache, job.entry.uuid, size=job.size, fingerprint=fingerprint(job.entry)
    )


def _run(jobs: list[Job], workers: int) -> Iterator[list[str]]:
    if workers <= 1:
        yield from map(run_job, jobs)
        return
    # A forked child would inherit torch's thread pool in an undefined state.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        for future in as_completed([pool.submit(run_job, job) for job in jobs]):
            yield future.result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _progress(results: Iterable[list[str]], total: int) -> Iterable[list[str]]:
    bar: Iterable[list[str]] = tqdm(
        results, total=total, unit="case", disable=not sys.stderr.isatty()
    )
    return bar
