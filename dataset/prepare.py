"""`prepare`: from data sets in the challenge's layout to the training cache.

Everything is checked on the way. All problems of the data sets are reported together; with any
problem the cache stays unfinished.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acouslic.challenge import SIMULATED
from acouslic.errors import AcouslicError, InputError
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


def prepare(datasets: Sequence[Path], cache: Path, *, size: int, workers: int) -> None:
    """Check data sets and write their cache, which says so where they are of phantoms.

    Args:
        datasets: folders in the challenge's training layout, of several hospitals perhaps.
        cache: folder of the cache; cases that it already holds are not read again.
        size: side of the cached frames in pixels.
        workers: number of processes.

    Raises:
        DatasetError: there are problems; every one has been logged, one a line.
        InputError: some of the data sets are of phantoms and some are not.
        OutputError: a file or folder in `cache` has a name that is needed and is not ours.
    """
    simulated = {(dataset / SIMULATED).is_file() for dataset in datasets}
    if len(simulated) > 1:
        raise InputError(
            expected="data sets of phantoms, or none of them",
            found="both",
            advice="prepare phantoms into a cache of their own; see `fit --phantoms`",
        )
    begin_cache(cache)
    uuids = add_cases(datasets, cache, size=size, workers=workers)
    finish_cache(cache, uuids, size, simulated=simulated == {True})


def add_cases(datasets: Sequence[Path], cache: Path, *, size: int, workers: int) -> list[str]:
    """Check data sets and add their cases to a cache, which stays unfinished; see `prepare`.

    Returns:
        The cases' names, in the data sets' order.

    Raises:
        DatasetError: there are problems; every one has been logged, one a line.
    """
    entries, problems = _read_all(datasets)
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


def _read_all(datasets: Sequence[Path]) -> tuple[list[Entry], list[str]]:
    """The cases of all data sets, and a line for each problem; a name counts once."""
    all_entries: dict[str, Entry] = {}
    all_problems = []
    for dataset in datasets:
        entries, problems = read_entries(dataset)
        if not entries and not problems:
            problems = [f"the table of circumferences below {dataset} has no rows"]
        problems += [f"{e.uuid}: is in two data sets" for e in entries if e.uuid in all_entries]
        all_entries |= {entry.uuid: entry for entry in entries}
        all_problems += problems
    return list(all_entries.values()), all_problems


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
