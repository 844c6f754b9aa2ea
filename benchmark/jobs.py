"""The benchmark's work as jobs for any backend: trials first, then what the challenge would say.

A trial is a job. Where the protocol has a baseline begin a trial with the weights of its last one,
all trials of that baseline are one job.
"""

import gc
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from acouslic import files
from acouslic.errors import AcouslicError
from benchmark.challenge_score import CHALLENGE, MASKS, judge_trial
from benchmark.protocol import Split, Tables, split, tables
from benchmark.request import Request
from benchmark.summary import trial_folder
from benchmark.systems import SYSTEMS, Plan, System
from benchmark.trial import FAILED, RESULT, WEIGHTS, Setting, run_trial
from dataset.cache import open_cache
from dataset.jobs import Takes

Stage = Literal["train", "judge"]
log = logging.getLogger(__name__)


class Task(NamedTuple):
    """One job: trials of a system, one after the other."""

    system: str
    """The system's name."""
    trials: tuple[int, ...]
    """Their numbers, from 0."""

    @property
    def name(self) -> str:
        """The job's name."""
        return f"{self.system}, trial {', '.join(map(str, self.trials))}"


@dataclass(frozen=True)
class BenchmarkJobs:
    """What all workers know, see `dataset.jobs.Jobs`."""

    cache: Path
    """The prepared frames."""
    folder: Path
    """The benchmark's folder."""
    request: Request
    """What to benchmark."""
    stage: Stage
    """Whether trials are trained, or judged as the challenge does."""
    tasks: tuple[Task, ...]
    """What was still to do when this began."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(task.name for task in self.tasks)

    def is_over(self, name: str) -> bool:
        """Whether all its trials are finished, or one has failed."""
        folders = self._folders(self._task(name))
        done = RESULT if self.stage == "train" else CHALLENGE
        return all((folder / done).is_file() for folder in folders) or any(
            (folder / FAILED).is_file() for folder in folders
        )

    def give_up(self, name: str, reason: str) -> None:
        """Write down that its workers died."""
        for folder in self._folders(self._task(name))[:1]:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_text(folder / FAILED, f"{reason}\n")

    def open(self) -> Callable[[Takes], None]:
        """Open the cache; see `dataset.jobs.Jobs.open`."""
        return _Worker(self).go_through

    def _task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    def _folders(self, task: Task) -> list[Path]:
        return [trial_folder(self.folder, task.system, trial) for trial in task.trials]


def tasks_to_do(folder: Path, request: Request, stage: Stage) -> tuple[Task, ...]:
    """What a request still asks for.

    Args:
        folder: the benchmark's.
        request: what is asked for.
        stage: of it.

    Returns:
        The tasks. Judging asks for a trained trial, and for one of `joint` to draw its masks.
    """
    tasks = []
    for name in [name for name in SYSTEMS if name in request.systems]:
        trials = tuple(range(request.trials))
        waiting: list[tuple[int, ...]]
        if stage == "judge":
            waiting = [(k,) for k in trials if _can_be_judged(folder, name, k)]
        elif request.protocol.shared_weights and SYSTEMS[name].shares_weights:
            waiting = [trials]
        else:
            waiting = [(k,) for k in trials]
        tasks += [Task(name, group) for group in waiting]
    done = RESULT if stage == "train" else CHALLENGE
    return tuple(
        task
        for task in tasks
        if not all((trial_folder(folder, task.system, k) / done).is_file() for k in task.trials)
    )


def _can_be_judged(folder: Path, system: str, trial: int) -> bool:
    needed = {system} if SYSTEMS[system].draws_masks else {system, MASKS}
    return all(
        (trial_folder(folder, name, trial) / file).is_file()
        for name in needed
        for file in (RESULT, WEIGHTS)
    )


class _Worker:
    """What goes through jobs in one process."""

    def __init__(self, jobs: BenchmarkJobs) -> None:
        self._jobs = jobs
        self._cache = open_cache(jobs.cache)
        self._cases: Split = split(self._cache, jobs.request.protocol, jobs.request.test_cache)

    @cached_property
    def _plain(self) -> Tables:
        return tables(self._cases, self._jobs.request.protocol)

    @cached_property
    def _softened(self) -> Tables:
        request = self._jobs.request
        return tables(self._cases, request.protocol, soften_frames=request.schedule.soften_frames)

    def go_through(self, takes: Takes) -> None:
        """Do every task that can be had; what goes wrong is written beside its trial."""
        by_name = {task.name: task for task in self._jobs.tasks}
        for name in takes:
            task = by_name[name]
            for trial in task.trials:
                if not self._try(SYSTEMS[task.system], trial):
                    break

    def _try(self, system: System, trial: int) -> bool:
        """Do one trial; returns whether it went well."""
        folder = trial_folder(self._jobs.folder, system.name, trial)
        try:
            if self._jobs.stage == "train":
                run_trial(folder, self.setting(system), trial)
            else:
                self._judge(system, trial)
        # Whatever it is, it belongs to this trial; the others need not wait until it is mended.
        except Exception as error:
            folder.mkdir(parents=True, exist_ok=True)
            reason = str(error) if isinstance(error, AcouslicError) else repr(error)
            files.write_text(folder / FAILED, f"{reason}\n\n{traceback.format_exc()}")
            log.exception("%s failed in trial %d", system.name, trial)
            return False
        finally:
            free_memory()
        return True

    def setting(self, system: System) -> Setting:
        """All that determines a system's trials."""
        request = self._jobs.request
        frames = self._softened if system.rates_quality else self._plain
        return Setting(system, self._plan(), frames, request.schedule, request.compute)

    def _plan(self) -> Plan:
        request = self._jobs.request
        return request.plan(self._cache.size)

    def _judge(self, system: System, trial: int) -> None:
        log.info("%s, trial %d: judged as the challenge does", system.name, trial + 1)
        judge_trial(
            self._jobs.folder,
            system,
            trial,
            self._plan(),
            validation=self._cases.validation,
            test=self._cases.test,
            device=self._jobs.request.compute.device,
        )


def free_memory() -> None:
    """Give back what a system took."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
