"""Answers on disk: one folder a stack, and a summary of many stacks.

An answer is what `platform_io` writes, and a preview where one is wanted. Its folder appears whole
or not at all, so a run that was stopped goes on where it stopped.
"""

import csv
import json
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from acouslic import files
from acouslic.bundle import Bundle
from acouslic.challenge import CIRCUMFERENCE_FILE, FRAME_FILE, MASK_FILE
from acouslic.errors import AcouslicError, InputError
from acouslic.pipeline import measure
from acouslic.platform_io import describe, unwritable, write_outputs
from acouslic.stack import check_header, read_stack

PREVIEW_FILE = Path("preview.png")
SUMMARY_FILE = Path("summary.csv")
# The middle one: an answer of confidence 0, see `measure`; why stands in the column `error`.
MEASURED, GUESSED, FAILED = "measured", "guessed", "failed"
log = logging.getLogger(__name__)


def _owned(folder: Path) -> set[str]:
    """The names that make up an answer, less a folder with a stranger's file below it."""
    if not _described(folder):
        return set()
    ours = {MASK_FILE, CIRCUMFERENCE_FILE, FRAME_FILE, PREVIEW_FILE}
    below = {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}
    return {path.parts[0] for path in ours} - {path.parts[0] for path in below - ours}


ANSWER = files.FolderKind("answer", _owned)


class Job(NamedTuple):
    """A stack to measure."""

    stack: Path
    """Its file."""
    folder: Path
    """Where its answer goes."""
    preview: bool
    """Whether its answer has a preview."""

    @property
    def case(self) -> str:
        """The stack's name: its file's, without the extension."""
        return self.stack.stem


class Row(NamedTuple):
    """A stack's line in the summary; what is not known is None."""

    case: str
    """The stack's name."""
    status: str
    """`measured`, `guessed` or `failed`."""
    frame: int | None = None
    """0-based index of the chosen frame."""
    sweep: int | None = None
    """Its sweep, 1 to 6."""
    ac_mm: float | None = None
    """The abdominal circumference."""
    confidence: float | None = None
    """The frame's score, 0 to 1."""
    seconds: float | None = None
    """Wall time from reading the stack to writing its answer."""
    bundle_id: str | None = None
    """The weights that gave the answer."""
    error: str | None = None
    """Why there is no answer, or only a guess."""


class Summary:
    """The table of many stacks' answers; on disk it is up to date after every stack."""

    def __init__(self, path: Path) -> None:
        """Begin with an empty table.

        Args:
            path: the .csv file; an older summary there is replaced.

        Raises:
            OutputError: something else is there.
        """
        files.refuse_foreign_file(path, ",".join(Row._fields), "a summary")
        self.path = path
        self.seconds_before = _seconds(path) if path.exists() else {}
        self._rows: dict[str, Row] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows and write the file, whole or not at all, sorted by case."""
        self._rows |= {row.case: row for row in rows}
        rows = (self._rows[case] for case in sorted(self._rows))
        files.write_table(self.path, [Row._fields, *rows])

    @property
    def failed(self) -> list[str]:
        """The cases without an answer."""
        return [case for case in sorted(self._rows) if self._rows[case].status == FAILED]


def check_stacks(jobs: Sequence[Job], summary: Summary, *, fail_soft: bool = False) -> list[Job]:
    """Those jobs whose stack has a sound header; the others fail at once, before the work."""
    sound, failed = [], []
    for job in jobs:
        try:
            check_header(job.stack, fail_soft=fail_soft)
            sound.append(job)
        except InputError as error:
            failed.append(_failed(job, error))
    summary.add(failed)
    return sound


def unanswered(jobs: Sequence[Job], bundle: Bundle, *, overwrite: bool) -> list[Job]:
    """Those jobs that have no whole answer of this bundle; what killed runs left is removed.

    Args:
        jobs: stacks with a sound header.
        bundle: the weights.
        overwrite: whether an answer of another bundle may be replaced.

    Raises:
        OutputError: in a job's folder lies what must not be replaced.
    """
    for job in jobs:
        files.remove_leftovers(job.folder)
    waiting = [job for job in jobs if not _is_answered(job, bundle.id)]
    for job in waiting:
        is_ours = _described(job.folder).get("bundle_id") == bundle.id
        files.refuse_stranger(job.folder, ANSWER, overwrite=overwrite or is_ours)
    return waiting


def answer_stacks(
    jobs: Sequence[Job],
    bundle: Bundle,
    summary: Summary,
    *,
    overwrite: bool,
    fail_soft: bool = False,
) -> None:
    """Answer one stack after the other, but those that this bundle has answered before.

    A stack that fails is recorded, and the others go on. On a terminal a bar shows how far it is.

    Args:
        jobs: stacks with a sound header.
        bundle: the weights.
        summary: gets a row a stack.
        overwrite: whether an answer of another bundle may be replaced.
        fail_soft: whether a stack that can be read but not measured is answered; see `measure`.

    Raises:
        OutputError: in a job's folder lies what must not be replaced.
    """
    waiting = unanswered(jobs, bundle, overwrite=overwrite)
    summary.add(
        _row(job.case, _described(job.folder), summary.seconds_before.get(job.case))
        for job in jobs
        if job not in waiting
    )
    n_kept = len(jobs) - len(waiting)
    log.info("%d of %d stacks are answered already", n_kept, len(jobs))
    with logging_redirect_tqdm():
        for job in tqdm(waiting, total=len(jobs), initial=n_kept, unit="stack", disable=None):
            try:
                summary.add([answer_stack(job, bundle, fail_soft=fail_soft)])
            # Whatever it is, it is this stack's, and the others need not wait until it is fixed.
            except Exception as error:
                summary.add([_failed(job, error)])


def answer_stack(job: Job, bundle: Bundle, *, fail_soft: bool = False) -> Row:
    """Measure a stack and write its answer, in the place of an older one.

    Args:
        job: the stack, and where its answer goes.
        bundle: the weights.
        fail_soft: whether a stack that can be read but not measured is answered; see `measure`.

    Raises:
        InputError: the file is no stack, or a damaged one.
        OutputError: the folder cannot be written, or holds a stranger's file.
    """
    start = time.perf_counter()
    stack = read_stack(job.stack, fail_soft=fail_soft)
    measurement = measure(stack, bundle, fail_soft=fail_soft)
    try:
        with files.new_folder(job.folder, ANSWER, overwrite=True) as partial:
            write_outputs(partial, stack, measurement, bundle.id, simulated=bundle.is_simulated)
            if job.preview:
                from acouslic.preview import write_preview

                write_preview(
                    partial / PREVIEW_FILE,
                    stack,
                    measurement,
                    bundle_id=bundle.id,
                    simulated=bundle.is_simulated,
                )
    except OSError as error:
        raise unwritable(job.folder, error) from error
    log.info("%s: %s", job.case, measurement)
    described = describe(stack, measurement, bundle.id, simulated=bundle.is_simulated)
    return _row(job.case, described, round(time.perf_counter() - start, 2))


def _is_answered(job: Job, bundle_id: str) -> bool:
    """Whether this bundle's whole answer is there, made after the stack was last changed."""
    described, frame_file = _described(job.folder), job.folder / FRAME_FILE
    try:
        frame = json.loads(frame_file.read_text())
        return (
            (described.get("bundle_id"), described.get("frame")) == (bundle_id, frame)
            and _shape(job.folder / MASK_FILE) == _shape(job.stack)
            and frame_file.stat().st_mtime_ns >= job.stack.stat().st_mtime_ns
            and (not job.preview or (job.folder / PREVIEW_FILE).is_file())
        )
    except (OSError, ValueError, InputError):
        return False


def _shape(path: Path) -> tuple[int, int, int]:
    return check_header(path, fail_soft=True)


def _described(folder: Path) -> dict[str, Any]:
    """The measurement in a folder; empty where there is none of ours."""
    try:
        described = json.loads((folder / CIRCUMFERENCE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) and "bundle_id" in described else {}


def _row(case: str, described: dict[str, Any], seconds: float | None) -> Row:
    """The row of a measurement."""
    answer = {name: described[name] for name in ("frame", "sweep", "ac_mm", "confidence")}
    reason, bundle_id = described.get("not_measured"), described["bundle_id"]
    status = GUESSED if reason else MEASURED
    return Row(case, status, **answer, seconds=seconds, bundle_id=bundle_id, error=reason)


def _failed(job: Job, error: Exception) -> Row:
    """The row of a stack without an answer, which is logged as well."""
    if isinstance(error, AcouslicError):
        log.error("%s: %s", job.case, error)
        return Row(job.case, FAILED, error=str(error))
    log.error("%s: a bug, please report it", job.case, exc_info=error)
    return Row(job.case, FAILED, error=" ".join(f"{type(error).__name__}: {error}".split()))


def _seconds(summary: Path) -> dict[str, float]:
    """The times in an older summary, by case."""
    with summary.open(newline="") as file:
        rows = csv.DictReader(file)
        return {row["case"]: float(row["seconds"]) for row in rows if row["seconds"]}
