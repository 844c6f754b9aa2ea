"""The log of a run: the content of run.json, with a version of its form, and a record a case.

A record is written with its case's answer, in the same step: PREDICTIONS/<case>/record.json. That
of a case that failed is PREDICTIONS/<case>.failed.json. run.json holds what all cases share, and
once the run has ended every record too.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from acouslic import __version__, files
from acouslic.errors import InputError
from acouslic.version import revision
from evaluation.options import RuleName

# Raised whenever a field changes its name or meaning; files without it are of before version 2.
SCHEMA = 2
RUN_FILE = "run.json"
RECORD_FILE = "record.json"
FAILED_SUFFIX = ".failed.json"
# A text in every run.json, by which it is known as ours.
RUN_MARK = '"bundle_id"'
RECORD_MARK = '"attempts"'
LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "SimpleITK",
    "opencv-python-headless",
    "open_clip_torch",
    "peft",
    "safetensors",
    "openvino",
)


@dataclass(frozen=True)
class Code:
    """Which code ran."""

    version: str
    """The version of acouslic."""
    commit: str | None
    """The git commit; None where it is not known, as in a wheel."""
    clean: bool | None
    """Whether all files were as the commit has them; None where no commit is known."""


@dataclass(frozen=True)
class Worker:
    """The process that worked on a case, and its machine."""

    machine: str
    """The machine's name."""
    process: int
    """The process's number there."""
    system: str
    """Operating system and its release."""
    processor: str
    """The model of the CPU."""
    cores: int
    """Cores of the machine that this process may use."""
    threads: int
    """Threads that the network was computed with."""
    memory_mib: int
    """Memory of the machine."""
    device: str
    """Where the network ran: cpu or cuda."""
    gpu: str | None
    """The GPU's name; None on a CPU."""
    python: str
    """The version of Python."""
    libraries: Mapping[str, str]
    """Versions of the libraries that decide about the answers, by name."""
    engine: str = "torch"
    """What computed the network, and in which numbers: openvino fp32. Older records have no such
    line, and were computed by PyTorch."""


@dataclass(frozen=True)
class Record:
    """How one case went."""

    case: str
    """The stack's name: its file's, without .mha."""
    status: Literal["done", "failed"]
    """Whether there is an answer."""
    attempts: int
    """How often it was tried, this time included; more than 1 after a failure."""
    started: str
    """When reading its stack began: date and time in UTC, ISO 8601."""
    ended: str
    """When its answer was written, or it failed."""
    seconds: Mapping[str, float]
    """Wall time by stage, in their order: read, preprocess, network, selection, write."""
    peak_memory_mib: float | None
    """Most memory that the worker held while it worked on this case and read the next; None where
    the system does not tell."""
    peak_gpu_memory_mib: float | None
    """Most memory of the GPU that was in use; None on a CPU."""
    stack: Mapping[str, Any]
    """The stack's file: `bytes`, `modified_ns` and `sha256`; empty where it was not read."""
    answer: Mapping[str, str]
    """SHA-256 of each file of the answer, by its path below the case's folder."""
    bundle_id: str
    """The bundle that answered."""
    rule: RuleName
    """How the frame was chosen, as in the log."""
    sweep_prior: bool
    """Whether a sweep's number counted in it."""
    code: Code
    """The code that ran."""
    worker: Worker
    """Where it ran."""
    error: str | None = None
    """Why there is no answer; None where there is one."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Record":
        """Read what `asdict` gives."""
        code, worker = Code(**values["code"]), Worker(**values["worker"])
        return cls(**{**values, "code": code, "worker": worker})


@dataclass(frozen=True)
class RunLog:
    """A run over many cases: the content of run.json."""

    schema: int
    """The version of this form."""
    status: Literal["started", "finished", "incomplete"]
    """started: under way, or killed; finished: every case has an answer; incomplete: not so."""
    bundle_id: str
    """The bundle that gave the answers."""
    simulated: bool
    """Whether the bundle was trained on simulated images."""
    rule: RuleName
    """How the frames were chosen: a name of `evaluation.rules`."""
    sweep_prior: bool
    """Whether a sweep's number counted in the choice."""
    fail_soft: bool
    """Whether a stack that can be read but not measured was answered with confidence 0."""
    dataset: str
    """The data set's folder."""
    selection: tuple[str, ...]
    """The names of all cases that were asked for, in their order; all shards of a run have the
    same."""
    shard: str | None
    """Which part of the selection this is, I/N with I from 0: every N-th case, the first being the
    I-th; None where it is all."""
    started: str
    """When the run first began: date and time in UTC, ISO 8601."""
    ended: str | None = None
    """When it ended last; None while it is under way."""
    data_sha256: str | None = None
    """Fingerprint of the data: of the names and SHA-256 of all stacks that were answered."""
    codes: tuple[Code, ...] = ()
    """Every version of the code that took part."""
    workers: tuple[Worker, ...] = ()
    """Every process that took part."""
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The records by case, see `Record`; `code` and `worker` are places in the lists above."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The cases that this run, or this shard of it, shall answer."""
        if self.shard is None:
            return self.selection
        index, _, count = self.shard.partition("/")
        return self.selection[int(index) :: int(count)]

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The cases among them without an outcome: the run goes on, or its workers died."""
        return tuple(name for name in self.wanted if name not in self.cases)

    @property
    def failed(self) -> dict[str, str]:
        """The error of each case that failed."""
        return {
            name: str(case["error"])
            for name, case in self.cases.items()
            if case["status"] == "failed"
        }

    def record(self, case: str) -> Record:
        """A case's record, whole."""
        entry = self.cases[case]
        code, worker = self.codes[entry["code"]], self.workers[entry["worker"]]
        return Record(**{**entry, "case": case, "code": code, "worker": worker})

    def write(self, output: Path) -> None:
        """Write run.json, whole or not at all."""
        # One level of indentation a case: a line each would make millions of them.
        files.write_json(output / RUN_FILE, asdict(self), indent=1)


def read_log(output: Path) -> RunLog:
    """Read a run's log.

    Raises:
        InputError: there is none, or it is of another version.
    """
    path = output / RUN_FILE
    try:
        values = json.loads(path.read_text())
        if values.get("schema") != SCHEMA:
            raise ValueError(f"schema {values.get('schema')}")
        codes = tuple(Code(**code) for code in values["codes"])
        workers = tuple(Worker(**worker) for worker in values["workers"])
        selection = tuple(values["selection"])
        return RunLog(**{**values, "selection": selection, "codes": codes, "workers": workers})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            expected=f"the log of a run, of schema {SCHEMA}, in {path}",
            found=str(error),
            advice="give the --output of `python -m evaluation run`, made by this version",
        ) from error


def failed_file(output: Path, case: str) -> Path:
    """Where the record of a case that failed lies."""
    return output / f"{case}{FAILED_SUFFIX}"


def read_record(path: Path) -> Record | None:
    """Read a case's record; None where there is none, or another version's."""
    try:
        return Record.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_records(output: Path) -> list[Record]:
    """The records of all cases with an outcome, as they are on the disk now."""
    paths = [*output.glob(f"*/{RECORD_FILE}"), *output.glob(f"*{FAILED_SUFFIX}")]
    return [record for path in paths if (record := read_record(path)) is not None]


def with_records(log: RunLog, records: Iterable[Record]) -> RunLog:
    """A log with what its cases' records say."""
    codes: dict[str, tuple[int, Code]] = {}
    workers: dict[str, tuple[int, Worker]] = {}
    cases = {}
    for record in sorted(records, key=lambda record: record.case):
        entry = asdict(record)
        del entry["case"]
        entry["code"] = _place(codes, record.code)
        entry["worker"] = _place(workers, record.worker)
        cases[record.case] = entry
    stacks = {name: case["stack"]["sha256"] for name, case in cases.items() if case["stack"]}
    return replace(
        log,
        data_sha256=_digest(f"{name} {digest}" for name, digest in stacks.items()),
        codes=tuple(code for _, code in codes.values()),
        workers=tuple(worker for _, worker in workers.values()),
        cases=cases,
    )


Shared = TypeVar("Shared", Code, Worker)


def _place(known: dict[str, tuple[int, Shared]], part: Shared) -> int:
    """The place of what many records share, in the order of their first."""
    return known.setdefault(json.dumps(asdict(part)), (len(known), part))[0]


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


@cache
def this_code() -> Code:
    """The code that is running."""
    known = revision()
    if known is None:
        return Code(__version__, None, None)
    commit, _, changes = known.partition("+")
    return Code(__version__, commit, not changes)


def this_worker(device: str, engine: str) -> Worker:
    """This process, on its machine.

    Args:
        device: where the network runs: cpu or cuda.
        engine: what computes it, and in which numbers.
    """
    import torch

    return Worker(
        machine=platform.node(),
        process=os.getpid(),
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        device=device,
        gpu=torch.cuda.get_device_name() if device == "cuda" else None,
        python=sys.version.partition(" ")[0],
        libraries=_versions(),
        engine=engine,
    )


def _versions() -> dict[str, str]:
    known = {}
    for name in LIBRARIES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # Not every installation has all of them.
    return known


def _processor() -> str:
    """The model of the CPU as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
