"""`prepare`: from a data set in the challenge's layout to the training cache.

Everything is checked on the way. All problems of the data set are reported together; with any
problem the cache stays unfinished.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acouslic.challenge import SIMULATED
from acouslic.errors import AcouslicError
from acouslic.stack import read_stack
from dataset.cache import begin_cache, finish_cache, has_case, store_case
from dataset.entries import DatasetError, Entry, read_entries
from dataset.labels import read_labels
from dataset.processes import in_processes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One case to be checked, and stored where that is wanted."""

    entry: Entry
    """The case."""
    cache: Path
    """Folder of the cache."""
    size: int
    """Side of the cached frames in pixels."""
    store: bool
    """Whether to store it; not where the data set is known to be faulty."""


def prepare(dataset: Path, cache: Path, *, size: int, workers: int) -> None:
    """Check a data set and write its cache. A cache of phantoms says so, to all that is made of it.

    Args:
        dataset: folder in the challenge's training layout.
        cache: folder of the cache; cases that it already holds are not read again.
        size: side of the cached frames in pixels.
        workers: number of processes.

    Raises:
        DatasetError: there are problems; every one has been logged, one a line.
        OutputError: a file or folder in `cache` has a name that is needed and is not ours.
    """
    begin_cache(cache)
    uuids = add_cases(dataset, cache, size=size, workers=workers)
    finish_cache(cache, uuids, size, simulated=(dataset / SIMULATED).is_file())


def add_cases(dataset: Path, cache: Path, *, size: int, workers: int) -> list[str]:
    """Check a data set and add its cases to a cache, which stays unfinished; see `prepare`.

    Returns:
        The cases' names, in the data set's order.

    Raises:
        DatasetError: there are problems; every one has been logged, one a line.
    """
    entries, problems = read_entries(dataset)
    if not entries and not problems:
        problems = ["the table of circumferences has no rows"]
    jobs = [Job(entry, cache, size, store=not problems) for entry in entries]
    waiting = [job for job in jobs if not _is_stored(job)]
    log.info("%d cases, %d of them already in the cache", len(jobs), len(jobs) - len(waiting))
    for lines in in_processes(run_job, waiting, workers, "prepared"):
        problems += lines
    if problems:
        for problem in sorted(problems):
            log.error("%s", problem)
        raise DatasetError(
            expected="a data set in the challenge's training layout, version 1.1",
            found=f"{len(problems)} problems, the first being: {sorted(problems)[0]}",
            advice="fix what is listed above and prepare again; finished cases are kept",
        )
    return [entry.uuid for entry in entries]


def run_job(job: Job) -> list[str]:
    """Read one case, and store it where that is wanted and nothing is wrong.

    Returns:
        Its problems, a line each.
    """
    entry = job.entry
    problems: list[str] = []
    try:
        labels = read_labels(entry.mask)
        problems = labels.problems()
        stack = read_stack(entry.image)
    except (AcouslicError, RuntimeError) as error:
        problems.append(str(error).strip().splitlines()[-1])
    if problems or not job.store:
        return [f"{entry.uuid}: {problem}" for problem in problems]
    _note_unmatched_sweeps(entry, labels.quality())
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


def _note_unmatched_sweeps(entry: Entry, quality: np.ndarray) -> None:
    """Log annotated sweeps without an AC, and the reverse: no reason to refuse the data set."""
    for number, sweep in enumerate(np.split(quality, len(entry.ac_mm)), start=1):
        if sweep.any() == math.isnan(entry.ac_mm[number - 1]):
            log.warning(
                "%s: sweep %d has %d annotated frames and %s",
                entry.uuid,
                number,
                np.count_nonzero(sweep),
                "no AC" if sweep.any() else "an AC",
            )


def fingerprint(entry: Entry) -> str:
    """A text that changes when a case's files or its row in the table change."""
    stats = [
        f"{stat.st_size}-{stat.st_mtime_ns}" for stat in (entry.image.stat(), entry.mask.stat())
    ]
    return ";".join([*stats, entry.subject, *(f"{value:g}" for value in entry.ac_mm)])


def _is_stored(job: Job) -> bool:
    return job.store and has_case(
        job.cache, job.entry.uuid, size=job.size, fingerprint=fingerprint(job.entry)
    )
