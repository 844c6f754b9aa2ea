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
from dataset.backends import Backend, Needs, finish
from dataset.jobs import FileJobs
from dataset.processes import in_processes

RESULTS_FOLDER = ".results"


@dataclass(frozen=True)
class _Results(FileJobs):
    """What a function returns for each job, in a file each."""

    function: Callable[[Any], Any]
    jobs: Mapping[str, Any]

    def result(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def begin(self) -> Callable[[str], None]:
        return lambda name: files.write_json(self.result(name), self.function(self.jobs[name]))


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
        waiting = _Results(folder.resolve(), tuple(jobs), function, jobs)
        finish(waiting, backend, needs, "jobs")
        for name in jobs:
            yield json.loads(waiting.result(name).read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
