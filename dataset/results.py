"""The results of a function over many jobs, computed by any backend.

On one machine they come back from processes. Elsewhere each is a file, by which workers see what is
done; the files are gone when all have been read.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acouslic import files
from acouslic.errors import AcouslicError, InputError
from dataset.backends import Backend, Needs, run_jobs
from dataset.jobs import Takes
from dataset.processes import in_processes

RESULTS_FOLDER = ".results"
RESULT, ERROR = "result", "error"


@dataclass(frozen=True)
class _ResultJobs:
    """See `dataset.jobs.Jobs`."""

    folder: Path
    function: Callable[[Any], Any]
    jobs: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.jobs)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def is_over(self, name: str) -> bool:
        return self.file(name).exists()

    def give_up(self, name: str, reason: str) -> None:
        files.write_json(self.file(name), {ERROR: reason})

    def open(self) -> Callable[[Takes], None]:
        return self.go_through

    def go_through(self, takes: Takes) -> None:
        for name in takes:
            try:
                files.write_json(self.file(name), {RESULT: self.function(self.jobs[name])})
            except AcouslicError as error:
                self.give_up(name, str(error))


def results(
    function: Callable[[Any], Any],
    jobs: Mapping[str, Any],
    backend: Backend,
    *,
    output: Path,
    needs: Needs,
    label: str,
) -> Iterator[Any]:
    """Go through jobs with a backend's workers. An error of a job ends it.

    Args:
        function: takes a job and returns what JSON can hold; both have to be picklable.
        jobs: all that is to be done, by name.
        backend: where.
        output: a folder that all workers see; the results lie in a hidden one in it for a while.
        needs: what a worker needs.
        label: what to call the work in progress lines.

    Yields:
        Each job's result, in no particular order.

    Raises:
        InputError: a job failed on another machine, or was not finished there.
    """
    if backend.backend == "local":
        yield from in_processes(function, list(jobs.values()), backend.workers, label)
        return
    folder = output / RESULTS_FOLDER
    # What an earlier command left may be of other jobs.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        waiting = _ResultJobs(folder.resolve(), function, jobs)
        lost = dict.fromkeys(run_jobs(waiting, backend, needs), "all workers at it died")
        for name in jobs.keys() - lost:
            result = json.loads(waiting.file(name).read_text())
            if ERROR in result:
                lost[name] = result[ERROR]
            else:
                yield result[RESULT]
        if lost:
            name, reason = min(lost.items())
            raise InputError(
                expected=f"a result of each of the {len(jobs)} jobs",
                found=f"none of {len(lost)}, the first being {name}: {reason}",
                advice="mend that and give the same command again",
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
