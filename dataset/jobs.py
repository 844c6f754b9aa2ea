"""Jobs by name whose results are files, and one worker that goes through them.

The one primitive below every way of using many processes or machines: each worker takes what no
other has claimed and what is not over yet, until all is over. `backends` starts the workers.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from acouslic import files
from acouslic.errors import AcouslicError
from dataset.claims import Claims

CLAIMS_FOLDER = ".claims"
FAILURES_FOLDER = ".failures"
# A worker with nothing to take looks again after so long.
POLL_S = 0.5
# A job at which so many workers died is given up: the fourth would die of it too.
MOST_DEATHS = 3


class Jobs(Protocol):
    """What all workers know; it is pickled and sent to them."""

    @property
    def folder(self) -> Path:
        """Where the results go, seen by all workers; their claims lie in it."""

    @property
    def names(self) -> Sequence[str]:
        """The jobs that were still to do when this began."""

    def is_over(self, name: str) -> bool:
        """Whether a job is done, or has failed since this began; quick, as it is asked often."""

    def give_up(self, name: str, reason: str) -> None:
        """Write down that a job has failed."""

    def open(self) -> Callable[["Takes"], None]:
        """Load what a worker needs, once; what comes back goes through the jobs it is given.

        It releases each job that it takes, and raises no error that belongs to a single job.
        """


@dataclass(frozen=True)
class FileJobs(ABC):
    """Jobs each of which leaves a file, or a note in the folder that says why it failed.

    See `Jobs`, and `backends.finish`, which goes through them and reads the notes.
    """

    folder: Path
    """Where notes and claims go, seen by all workers."""
    names: tuple[str, ...]
    """The jobs; they are names of files."""

    @abstractmethod
    def result(self, name: str) -> Path:
        """The file that is there, whole, once a job is done."""

    @abstractmethod
    def begin(self) -> Callable[[str], None]:
        """Load what a worker needs, once; what comes back does a job.

        An AcouslicError is that job's failure, any other error the worker's end.
        """

    def note(self, name: str) -> Path:
        """Where it stands why a job failed."""
        return self.folder / FAILURES_FOLDER / name

    def is_over(self, name: str) -> bool:
        """Whether a job is done, or has failed."""
        return self.result(name).exists() or self.note(name).exists()

    def give_up(self, name: str, reason: str) -> None:
        """Write down that a job has failed."""
        self.note(name).parent.mkdir(exist_ok=True)
        files.write_text(self.note(name), reason)

    def open(self) -> Callable[["Takes"], None]:
        """What goes through the jobs that a worker takes."""
        do = self.begin()

        def go_through(takes: "Takes") -> None:
            for name in takes:
                try:
                    do(name)
                except AcouslicError as error:
                    self.give_up(name, str(error))

        return go_through


class Takes:
    """The jobs that one worker takes, each claimed until it is released."""

    def __init__(self, jobs: Jobs, claims: Claims, names: Sequence[str]) -> None:
        """Take nothing yet.

        Args:
            jobs: all jobs.
            claims: this worker's.
            names: those that this worker is to go through, in its own order.
        """
        self._jobs, self._claims = jobs, claims
        self._waiting = deque(names)

    def take(self) -> str | None:
        """Claim the next job; None where there is none that can be had now."""
        for _ in range(len(self._waiting)):
            name = self._waiting.popleft()
            if self._jobs.is_over(name):
                continue
            # It stays on the list until it is over: whoever has it may die.
            self._waiting.append(name)
            claim = self._claims.take(name)
            if claim is None:
                continue
            # Somebody may have finished it between the look and the claim.
            if not self._jobs.is_over(name):
                if claim.deaths < MOST_DEATHS:
                    return name
                self._jobs.give_up(name, f"{claim.deaths} workers died at it")
            self.release(name)
        return None

    def release(self, name: str) -> None:
        """Give up the claim on a job that is over."""
        self._claims.release(name)

    def all_over(self) -> bool:
        """Whether nothing is left to wait for."""
        self._waiting = deque(name for name in self._waiting if not self._jobs.is_over(name))
        return not self._waiting

    def __iter__(self) -> Iterator[str]:
        """Every job that can be had, released when the next one is asked for."""
        while True:
            name = self.take()
            if name is not None:
                try:
                    yield name
                finally:
                    self.release(name)
            elif self.all_over():
                return
            else:
                time.sleep(POLL_S)


def work(jobs: Jobs, *, worker: int = 0, workers: int = 1) -> None:
    """Go through all jobs beside other workers, until every one is over.

    Args:
        jobs: what is to be done.
        worker: this worker's number, from 0.
        workers: how many began together; each begins at another job.
    """
    first = worker * len(jobs.names) // workers
    names = [*jobs.names[first:], *jobs.names[:first]]
    with Claims(jobs.folder / CLAIMS_FOLDER) as claims:
        jobs.open()(Takes(jobs, claims, names))
