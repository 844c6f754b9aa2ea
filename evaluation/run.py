"""Running the shipped pipeline over a data set: the answers that `score` takes.

Each <uuid>/ in the output holds, byte for byte, what inference.py writes for that stack, and beside
it the score of every frame (frame_scores.json), for the report.
"""

import json
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from acouslic import files
from acouslic.bundle import Bundle
from acouslic.challenge import CIRCUMFERENCE_FILE, FRAME_FILE, IMAGES, MASK_FOLDER
from acouslic.command import load
from acouslic.errors import AcouslicError, InputError, OutputError
from acouslic.metaimage import read_header
from acouslic.pipeline import Measurement, measure
from acouslic.platform_io import write_outputs
from acouslic.stack import Stack, read_stack
from dataset.processes import progress
from evaluation.options import RunOptions
from evaluation.predictions import SCORES_FILE, PredictionFiles, read_prediction
from evaluation.rules import RULES

RUN_FILE = "run.json"
RUN_MARK = '"bundle_id"'
# Decimals of a frame's score: a curve on a page shows three.
SCORE_DIGITS = 5
log = logging.getLogger(__name__)


def _owned(folder: Path) -> set[str]:
    names = {MASK_FOLDER.parts[0], FRAME_FILE.name, CIRCUMFERENCE_FILE.name, SCORES_FILE}
    return names if (folder / SCORES_FILE).is_file() else set()


CASE = files.FolderKind("answer", _owned)


@dataclass
class Record:
    """How a run went: the content of run.json, brought up to date after every case."""

    bundle_id: str
    """The id of the bundle that gave the answers."""
    simulated: bool
    """Whether the bundle was trained on simulated images."""
    dataset: str
    """The data set's folder."""
    device: str
    """What computed: cpu or cuda."""
    rule: str
    """How the frames were chosen."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each finished case, without reading its stack."""
    failed: dict[str, str] = field(default_factory=dict)
    """The error of each case that failed."""

    def write(self, output: Path) -> None:
        """Write run.json, whole or not at all."""
        files.write_json(output / RUN_FILE, vars(self))


def run(options: RunOptions) -> Record:
    """Run the cases that have no answer yet. One that fails is recorded, and the others go on.

    Returns:
        What run.json says in the end.

    Raises:
        InputError: no stacks, an unknown case, or answers of another bundle in the output.
        OutputError: the output is a stranger's folder, or another run writes to it.
        BundleError: the bundle is not whole.
    """
    stacks = find_stacks(options)
    files.refuse_foreign_folder(options.output, RUN_FILE, "a run")
    files.refuse_foreign_file(options.output / RUN_FILE, RUN_MARK, "a run's record")
    bundle = load(options.model, device=options.device, sweep_prior=options.sweep_prior)
    options.output.mkdir(parents=True, exist_ok=True)
    with files.claim(options.output) as is_ours:
        if not is_ours:
            raise OutputError(
                expected=f"no other run that writes to {options.output}",
                found="one that is going on",
                advice="wait for it, or name another --output",
            )
        return _run_cases(stacks, bundle, options)


def _run_cases(stacks: Sequence[Path], bundle: Bundle, options: RunOptions) -> Record:
    record = _open_record(options, bundle)
    for path in stacks:
        files.remove_leftovers(options.output / path.stem)
    waiting = [path for path in stacks if not _is_done(path, options.output, bundle.id)]
    log.info("%d of %d cases are done already", len(stacks) - len(waiting), len(stacks))
    record.write(options.output)
    with ThreadPoolExecutor(1) as pool:
        ahead = _ReadAhead(waiting, pool, options.fail_soft)
        for path in progress(waiting, len(waiting), "run"):
            _run_case(path.stem, ahead, bundle, options, record)
            record.write(options.output)
    if record.failed:
        log.error("%d cases failed: %s", len(record.failed), ", ".join(record.failed))
    return record


def find_stacks(options: RunOptions) -> list[Path]:
    """Find the stacks to run over.

    Returns:
        Their files, by name or in the order of `options.cases`.

    Raises:
        InputError: there are none, or a named one is not there.
    """
    folder = options.dataset / IMAGES
    if not folder.is_dir():
        folder = options.dataset
    paths = {path.stem: path for path in sorted(folder.glob("*.mha"))}
    unknown = [name for name in options.cases or () if name not in paths]
    if unknown or not paths:
        raise InputError(
            expected=f"stacks (.mha) in {folder}",
            found=f"no {unknown[0]}" if unknown else "none",
            advice="give a data set in the training set's layout, or a folder of stacks",
        )
    names: Sequence[str] = options.cases or sorted(paths)
    return [paths[name] for name in names][: options.limit]


class _ReadAhead:
    """Reads the next stack while the network works on the last one; at most two are in memory."""

    def __init__(self, paths: Sequence[Path], pool: ThreadPoolExecutor, fail_soft: bool) -> None:
        self._paths = iter(paths)
        self._read = partial(read_stack, fail_soft=fail_soft)
        self._pool = pool
        self._reading: Future[Stack] | None = None
        self._begin()

    def take(self) -> Stack:
        """The next stack; an error of reading it is raised here."""
        reading, self._reading = self._reading, None
        if reading is None:
            raise IndexError("all stacks are taken")
        try:
            return reading.result()
        finally:
            self._begin()

    def _begin(self) -> None:
        path = next(self._paths, None)
        self._reading = None if path is None else self._pool.submit(self._read, path)


def _run_case(
    name: str, ahead: _ReadAhead, bundle: Bundle, options: RunOptions, record: Record
) -> None:
    record.failed.pop(name, None)
    try:
        stack = ahead.take()
        start = time.perf_counter()
        measurement = measure(stack, bundle, RULES[options.rule], fail_soft=options.fail_soft)
        _write_case(options.output, stack, measurement, bundle)
        record.seconds[name] = round(time.perf_counter() - start, 3)
    # Whatever it is, it belongs to this case; the others need not wait until it is mended.
    except Exception as error:
        record.failed[name] = f"{type(error).__name__}: {error}"
        log.exception("case %s failed", name)


def _write_case(output: Path, stack: Stack, measurement: Measurement, bundle: Bundle) -> None:
    """Write a case's answer, whole or not at all: a folder of that name is a finished case."""
    scores = [round(float(score), SCORE_DIGITS) for score in measurement.frame_scores]
    with files.new_folder(output / stack.name, CASE, overwrite=True) as partial:
        write_outputs(partial, stack, measurement, bundle.id, simulated=bundle.is_simulated)
        files.write_json(partial / SCORES_FILE, {"frame_scores": scores}, indent=None)


def _is_done(stack_path: Path, output: Path, bundle_id: str) -> bool:
    """Whether a case has this bundle's whole answer, read back as `score` will read it."""
    folder = output / stack_path.stem
    try:
        described = json.loads((folder / CIRCUMFERENCE_FILE).read_text())
        scores = json.loads((folder / SCORES_FILE).read_text())["frame_scores"]
        prediction = read_prediction(PredictionFiles.plain(folder), read_header(stack_path).shape)
    except (OSError, ValueError, KeyError, RuntimeError, AcouslicError):
        return False
    answer = (described.get("bundle_id"), described.get("frame"))
    return answer == (bundle_id, prediction.frame) and prediction.frame < len(scores)


def _rule_of(options: RunOptions) -> str:
    """How frames are chosen, as run.json keeps it: answers of two ways are never mixed."""
    return options.rule + (", no sweep prior" if options.sweep_prior == "none" else "")


def _open_record(options: RunOptions, bundle: Bundle) -> Record:
    record = Record(
        bundle_id=bundle.id,
        simulated=bool(bundle.provenance.get("simulated", False)),
        dataset=str(options.dataset.resolve()),
        device=str(bundle.device),
        rule=_rule_of(options),
    )
    path = options.output / RUN_FILE
    if not path.is_file():
        return record
    before: dict[str, Any] = json.loads(path.read_text())
    if (before["bundle_id"], before["rule"]) != (bundle.id, _rule_of(options)):
        raise InputError(
            expected=f"answers of bundle {bundle.id}, {_rule_of(options)} rule, or none",
            found=f"those of {before['bundle_id']}, {before['rule']} rule, in {options.output}",
            advice="give another --output folder for another bundle or rule",
        )
    record.seconds = before["seconds"]
    return record
