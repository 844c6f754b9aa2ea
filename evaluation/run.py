"""Running the shipped pipeline over a data set: the answers that `score` takes.

Each <uuid>/ in the output holds, byte for byte, what inference.py writes for that stack, and beside
it the score of every frame (frame_scores.json) and the case's record (record.json), for the report.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acouslic import files
from acouslic.bundle import Bundle, load_bundle, with_engine
from acouslic.challenge import IMAGES
from acouslic.engine import choose_device
from acouslic.errors import InputError
from dataset.backends import Needs, run_jobs
from evaluation.options import RetryOptions, RunOptions
from evaluation.runlog import (
    RECORD_FILE,
    RUN_FILE,
    RUN_MARK,
    SCHEMA,
    Record,
    RunLog,
    read_log,
    read_records,
    with_records,
)
from evaluation.worker import RunJobs, now

# 1.74 GiB were measured with the demo bundle, whose weights are small beside it, and 840 frames;
# the stack that is read ahead has 0.33 GiB more.
WORKER_MIB = 2200
# Weights are stored as float16 and computed as float32.
TIMES_STORED = 2
# As many names of cases as one reads in a line.
MOST_NAMED = 10
logger = logging.getLogger(__name__)


def run(options: RunOptions) -> RunLog:
    """Run the cases that have no answer yet. One that fails is recorded, and the others go on.

    Any number of these may work on one output, started here by a backend or by hand.

    Returns:
        The log as it is in the end.

    Raises:
        InputError: no stacks, an unknown case, or answers of another bundle in the output.
        OutputError: the output is a stranger's folder.
        BundleError: the bundle is not whole.
    """
    stacks = {
        path.stem: path for path in find_stacks(options.dataset, options.cases, options.limit)
    }
    files.refuse_foreign_folder(options.output, RUN_FILE, "a run")
    files.refuse_foreign_file(options.output / RUN_FILE, RUN_MARK, "a run's record")
    bundle = _load(options)
    log = _begin(
        options.output,
        RunLog(
            schema=SCHEMA,
            status="started",
            bundle_id=bundle.id,
            simulated=bundle.is_simulated,
            rule=options.rule,
            sweep_prior=options.sweep_prior == "calibrated",
            fail_soft=options.fail_soft,
            dataset=str(options.dataset.resolve()),
            selection=tuple(stacks),
            shard=parse_shard(options.shard, os.environ),
            started=now(),
        ),
    )
    return _complete(log, stacks, bundle, options)


def retry(options: RetryOptions) -> RunLog:
    """Run the cases of a run that failed or were not finished, as that run began.

    Raises:
        InputError: there is no such run, its data are gone, or another bundle is given.
    """
    log = read_log(options.output)
    stacks = {path.stem: path for path in find_stacks(Path(log.dataset), log.selection)}
    bundle = _load(options)
    _refuse_another(options.output, replace(log, bundle_id=bundle.id), vars(log))
    return _complete(log, stacks, bundle, options)


def _load(options: RunOptions | RetryOptions) -> Bundle:
    """The bundle, ready to compute where that is the CPU; a worker with a GPU loads its own."""
    bundle = load_bundle(options.model)
    on_cpu = choose_device(options.device, options.engine).type == "cpu"
    return with_engine(bundle, options.engine, options.precision) if on_cpu else bundle


def find_stacks(
    dataset: Path, names: Sequence[str] | None = None, limit: int | None = None
) -> list[Path]:
    """Find the stacks to run over.

    Args:
        dataset: a data set in the training set's layout, or a folder of stacks.
        names: the only cases, in their order; None takes all by name.
        limit: how many at most, the first ones; None takes all.

    Raises:
        InputError: there are none, or a named one is not there.
    """
    folder = dataset / IMAGES
    if not folder.is_dir():
        folder = dataset
    paths = {path.stem: path for path in sorted(folder.glob("*.mha"))}
    unknown = [name for name in names or () if name not in paths]
    if unknown or not paths:
        raise InputError(
            expected=f"stacks (.mha) in {folder}",
            found=f"no {unknown[0]}" if unknown else "none",
            advice="give a data set in the training set's layout, or a folder of stacks",
        )
    return [paths[name] for name in names or sorted(paths)][:limit]


def parse_shard(text: str | None, environment: Mapping[str, str]) -> str | None:
    """Which part of the cases to run.

    Args:
        text: I/N with I from 0, /N, or None, see `RunOptions.shard`.
        environment: the process's, for what is not given.

    Returns:
        I/N; None for all cases.

    Raises:
        InputError: there is no such part, or its number cannot be known.
    """
    index: str | None
    index, _, count = (text or "").partition("/")
    if "SLURM_ARRAY_TASK_ID" in environment:
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
        index = index or str(int(environment["SLURM_ARRAY_TASK_ID"]) - first)
        count = count or environment.get("SLURM_ARRAY_TASK_COUNT", "")
    index = index or environment.get("JOB_COMPLETION_INDEX", "")
    if not (text or index):
        return None
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InputError(
            expected="a shard I/N with I from 0 to N - 1, or /N in an array of jobs",
            found=f"--shard {text or 'not given'}, part {index or '?'} of {count or '?'}",
            advice="give both, such as --shard 0/8; --shard 0/1 runs all cases in each job",
        )
    return None if int(count) == 1 else f"{int(index)}/{int(count)}"


def _begin(output: Path, start: RunLog) -> RunLog:
    """Write down what begins, or goes on with the same bundle and rule."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / RUN_FILE
    if path.is_file():
        before = json.loads(path.read_text())
        _refuse_another(output, start, before)
        start = replace(start, started=before.get("started", start.started))
    start.write(output)
    return start


def _refuse_another(output: Path, wanted: RunLog, before: Mapping[str, Any]) -> None:
    """Make sure that answers of two bundles or rules are never mixed in a folder."""
    ways = [
        (values["bundle_id"], values["rule"], values.get("sweep_prior", True))
        for values in (vars(wanted), before)
    ]
    if ways[0] != ways[1]:
        texts = [
            f"bundle {bundle_id}, {rule} rule" + ("" if sweep_prior else ", no sweep prior")
            for bundle_id, rule, sweep_prior in ways
        ]
        raise InputError(
            expected=f"answers of {texts[0]}, or none",
            found=f"those of {texts[1]}, in {output}",
            advice="give another --output folder for another bundle or rule",
        )


def _complete(
    log: RunLog, stacks: Mapping[str, Path], bundle: Bundle, options: RunOptions | RetryOptions
) -> RunLog:
    """Run what has no answer, and write the whole log."""
    wanted = {name: stacks[name] for name in log.wanted}
    _remove_leftovers(options.output)
    records = {record.case: record for record in read_records(options.output)}
    waiting = {
        name: path
        for name, path in wanted.items()
        if not _is_done(path, options.output / name, records.get(name), log)
    }
    logger.info("%d of %d cases are done already", len(wanted) - len(waiting), len(wanted))
    jobs = RunJobs(
        folder=options.output,
        stacks=waiting,
        failures={
            name: record.attempts for name, record in records.items() if record.status == "failed"
        },
        model=options.model,
        bundle_id=log.bundle_id,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        rule=log.rule,
        sweep_prior=log.sweep_prior,
        fail_soft=log.fail_soft,
        bundle=bundle if choose_device(options.device, options.engine).type == "cpu" else None,
    )
    run_jobs(jobs, options.where, _needs(options))
    return _end(options.output, log)


def _remove_leftovers(output: Path) -> None:
    """Remove what killed workers left of cases that nobody will write again."""
    for path in output.glob(".*.partial"):
        files.remove_leftovers(output / path.name[1:].rsplit(".", 2)[0])


def _is_done(path: Path, folder: Path, record: Record | None, log: RunLog) -> bool:
    """Whether a case has its whole answer, of this bundle, of the stack as it is now.

    The record of any other answer is removed, so that workers see that the case is to be done.
    """
    way = (log.bundle_id, log.rule, log.sweep_prior)
    if record is None or record.status == "failed":
        return False
    if (
        (record.bundle_id, record.rule, record.sweep_prior) == way
        and _is_unchanged(path, record.stack)
        and all(_has(folder / name, digest) for name, digest in record.answer.items())
    ):
        return True
    (folder / RECORD_FILE).unlink()
    return False


def _has(path: Path, digest: str) -> bool:
    try:
        return files.sha256(path) == digest
    except OSError:
        return False


def _is_unchanged(path: Path, before: Mapping[str, Any]) -> bool:
    """Whether a stack is the one that was answered; it is only read where its time is another."""
    status = path.stat()
    if status.st_size != before["bytes"]:
        return False
    return status.st_mtime_ns == before["modified_ns"] or _has(path, before["sha256"])


def _needs(options: RunOptions | RetryOptions) -> Needs:
    stored = sum(path.stat().st_size for path in options.model.iterdir() if path.is_file())
    on_gpu = choose_device(options.device, options.engine).type == "cuda"
    return Needs(on_gpu, WORKER_MIB + TIMES_STORED * (stored >> 20))


def _end(output: Path, log: RunLog) -> RunLog:
    """Write the whole log: what all cases share, and every case's record."""
    log = with_records(log, read_records(output))
    is_whole = not (log.failed or log.unfinished)
    log = replace(log, status="finished" if is_whole else "incomplete", ended=now())
    log.write(output)
    for words, names in (("failed", tuple(log.failed)), ("were not finished", log.unfinished)):
        if names:
            logger.error("%d cases %s: %s", len(names), words, ", ".join(names[:MOST_NAMED]))
    return log
