"""One worker of a run: reads, measures and writes cases, three at a time in three threads.

While the network works on one case the next is being read and the last one written. The network
runs in the main thread alone, so that Ctrl-C reaches it and one pool of threads computes.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from acouslic import files
from acouslic.bundle import Bundle, load_bundle, with_engine, without_sweep_prior
from acouslic.challenge import CIRCUMFERENCE_FILE, FRAME_FILE, MASK_FILE, MASK_FOLDER
from acouslic.engine import Engine, choose_device
from acouslic.engine_names import EngineName, PrecisionName
from acouslic.errors import BundleError
from acouslic.pipeline import Measurement, measure
from acouslic.platform_io import write_outputs
from acouslic.stack import Stack, read_stack
from dataset.jobs import POLL_S, Takes
from evaluation.options import RuleName
from evaluation.predictions import SCORES_FILE
from evaluation.rules import RULES
from evaluation.runlog import (
    RECORD_FILE,
    RECORD_MARK,
    Record,
    Worker,
    failed_file,
    read_record,
    this_code,
    this_worker,
)

# Decimals of a frame's score: a curve on a page shows three.
SCORE_DIGITS = 5
SECONDS_DIGITS = 3
log = logging.getLogger(__name__)


def _owned(folder: Path) -> set[str]:
    names = {MASK_FOLDER.parts[0], FRAME_FILE.name, CIRCUMFERENCE_FILE.name}
    names |= {SCORES_FILE, RECORD_FILE}
    return names if (folder / SCORES_FILE).is_file() else set()


CASE = files.FolderKind("answer", _owned)
ANSWER_FILES = (MASK_FILE, FRAME_FILE, CIRCUMFERENCE_FILE, Path(SCORES_FILE))


@dataclass(frozen=True)
class RunJobs:
    """The cases that a run has still to do; see `dataset.jobs.Jobs`."""

    folder: Path
    """Where the answers go."""
    stacks: Mapping[str, Path]
    """The file of each stack, by case."""
    failures: Mapping[str, int]
    """How often a case had been tried in vain before this began."""
    model: Path
    """The bundle's folder."""
    bundle_id: str
    """The bundle's id, as every worker has to find it."""
    device: str
    """Where the network runs: auto, cpu or cuda."""
    engine: EngineName
    """What computes it; see `acouslic.bundle.with_engine`."""
    precision: PrecisionName
    """The numbers it is computed in."""
    rule: RuleName
    """How the frame is chosen."""
    sweep_prior: bool
    """Whether a sweep's number counts in the choice."""
    fail_soft: bool
    """Whether a stack that can be read but not measured is answered with confidence 0."""
    bundle: Bundle | None = None
    """The bundle where it is loaded, with its engine; processes of their own load it again."""

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes."""
        return vars(self) | {"bundle": None}

    @property
    def names(self) -> tuple[str, ...]:
        """The cases."""
        return tuple(self.stacks)

    def is_over(self, name: str) -> bool:
        """Whether a case has an answer, or has failed since this began."""
        if (self.folder / name / RECORD_FILE).exists():
            return True
        path = failed_file(self.folder, name)
        record = read_record(path) if path.exists() else None
        return record is not None and record.attempts > self.failures.get(name, 0)

    def give_up(self, name: str, reason: str) -> None:
        """Write down that a case has failed, without trying it again."""
        worker = this_worker(choose_device(self.device, self.engine).type, self.engine)
        self.write_failure(_Attempt(name, self.stacks[name]), reason, worker)

    def write_failure(self, attempt: "_Attempt", error: str, worker: Worker) -> None:
        """Write the record of a case that failed; it is over with that."""
        path = failed_file(self.folder, attempt.case)
        files.refuse_foreign_file(path, RECORD_MARK, "a case's record")
        record = self.record(attempt, worker, answer={}, error=error)
        files.write_json(path, asdict(record))
        log.error("case %s failed: %s", attempt.case, error)

    def record(
        self, attempt: "_Attempt", worker: Worker, *, answer: dict[str, str], error: str | None
    ) -> Record:
        """What is known of an attempt when it ends."""
        return Record(
            case=attempt.case,
            status="done" if error is None else "failed",
            attempts=self.failures.get(attempt.case, 0) + 1,
            started=attempt.started,
            ended=now(),
            seconds={name: round(x, SECONDS_DIGITS) for name, x in attempt.seconds.items()},
            peak_memory_mib=attempt.peak_memory_mib,
            peak_gpu_memory_mib=attempt.peak_gpu_memory_mib,
            stack=attempt.stack_file,
            answer=answer,
            bundle_id=self.bundle_id,
            rule=self.rule,
            sweep_prior=self.sweep_prior,
            code=this_code(),
            worker=worker,
            error=error,
        )

    def open(self) -> Callable[[Takes], None]:
        """Load the bundle.

        Raises:
            BundleError: it is not whole, or no longer the one that the run began with.
        """
        bundle = self.bundle
        if bundle is None:
            bundle = load_bundle(self.model, choose_device(self.device, self.engine))
            bundle = with_engine(bundle, self.engine, self.precision)
        if bundle.id != self.bundle_id:
            raise BundleError(
                expected=f"bundle {self.bundle_id}, with which the run began, in {self.model}",
                found=bundle.id,
                advice="leave a bundle as it is while it runs, and give another one --output",
            )
        if not self.sweep_prior:
            bundle = without_sweep_prior(bundle)
        return _Line(self, bundle)


@dataclass
class _Attempt:
    """A case on its way."""

    case: str
    path: Path
    started: str = field(default_factory=lambda: now())
    seconds: dict[str, float] = field(default_factory=dict)
    stack_file: dict[str, Any] = field(default_factory=dict)
    peak_memory_mib: float | None = None
    peak_gpu_memory_mib: float | None = None
    stack: Future[Stack] = field(default_factory=Future)

    def read(self, *, fail_soft: bool) -> Stack:
        """Read the stack, and take its fingerprint."""
        with self.stage("read"):
            stack = read_stack(self.path, fail_soft=fail_soft)
            self.stack_file = _describe_file(self.path)
        return stack

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


class _Line:
    """Goes through cases with a bundle in memory."""

    def __init__(self, jobs: RunJobs, bundle: Bundle) -> None:
        self._jobs, self._bundle = jobs, bundle
        self._worker = _worker_of(bundle.engine)

    def __call__(self, takes: Takes) -> None:
        """Go through what can be taken, until all is over."""
        coming: _Attempt | None = None
        going: Future[None] | None = None
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            while True:
                attempt = coming or self._begin(takes, reader)
                if attempt is None:
                    if takes.all_over():
                        return
                    time.sleep(POLL_S)
                    continue
                attempt.stack.exception()  # Waits: the next is claimed when this one is read.
                coming = self._begin(takes, reader)
                outcome = self._measure(attempt)
                if going is not None:
                    going.result()  # One answer at a time waits for the disk.
                going = writer.submit(self._end, takes, attempt, outcome)

    def _begin(self, takes: Takes, reader: ThreadPoolExecutor) -> _Attempt | None:
        case = takes.take()
        if case is None:
            return None
        attempt = _Attempt(case, self._jobs.stacks[case])
        attempt.stack = reader.submit(attempt.read, fail_soft=self._jobs.fail_soft)
        return attempt

    def _measure(self, attempt: _Attempt) -> Measurement | Exception:
        on_gpu = self._bundle.engine.device.type == "cuda"
        try:
            can_tell = _forget_peak_memory(on_gpu)
            measurement = measure(
                attempt.stack.result(),
                self._bundle,
                RULES[self._jobs.rule],
                fail_soft=self._jobs.fail_soft,
            )
            attempt.seconds |= measurement.seconds
            attempt.peak_memory_mib = _peak_memory_mib() if can_tell else None
            if on_gpu:
                attempt.peak_gpu_memory_mib = torch.cuda.max_memory_allocated() / 2**20
        # Whatever it is, it belongs to this case; the others need not wait until it is mended.
        except Exception as error:
            return error
        return measurement

    def _end(self, takes: Takes, attempt: _Attempt, outcome: Measurement | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._write(attempt, attempt.stack.result(), outcome)
        except Exception as error:
            log.debug("case %s", attempt.case, exc_info=error)
            text = f"{type(error).__name__}: {error}"
            self._jobs.write_failure(attempt, text, self._worker)
        finally:
            takes.release(attempt.case)

    def _write(self, attempt: _Attempt, stack: Stack, measurement: Measurement) -> None:
        """Write a case's answer, whole or not at all: a folder with a record is a finished case."""
        scores = [round(float(score), SCORE_DIGITS) for score in measurement.frame_scores]
        with files.new_folder(self._jobs.folder / stack.name, CASE, overwrite=True) as partial:
            with attempt.stage("write"):
                write_outputs(
                    partial,
                    stack,
                    measurement,
                    self._bundle.id,
                    simulated=self._bundle.is_simulated,
                )
                files.write_json(partial / SCORES_FILE, {"frame_scores": scores}, indent=None)
            answer = {str(path): files.sha256(partial / path) for path in ANSWER_FILES}
            record = self._jobs.record(attempt, self._worker, answer=answer, error=None)
            files.write_json(partial / RECORD_FILE, asdict(record))
        failed_file(self._jobs.folder, stack.name).unlink(missing_ok=True)


def _worker_of(engine: Engine) -> Worker:
    return this_worker(engine.device.type, f"{engine.name} {engine.precision}")


def _describe_file(path: Path) -> dict[str, Any]:
    """What tells whether a stack's file is still the same."""
    status = path.stat()
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "sha256": files.sha256(path),
    }


def now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _forget_peak_memory(on_gpu: bool) -> bool:
    """Begin to measure anew how much memory this process holds at most; False if it cannot."""
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return False
    return True


def _peak_memory_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return round(int(peak.split()[1]) / 1024, 1)
