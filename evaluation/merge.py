"""Putting the shards of a run together in one folder, as if it had been run in one piece."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acouslic import files
from acouslic.errors import InputError
from evaluation.runlog import (
    RUN_FILE,
    RUN_MARK,
    Record,
    RunLog,
    read_log,
    read_records,
    with_records,
)
from evaluation.worker import CASE


def merge(shards: Sequence[Path], output: Path) -> RunLog:
    """Link or copy all answers into one folder, and write its log.

    Args:
        shards: the outputs of all shards of a run.
        output: the folder for all, new or of the same merge.

    Returns:
        The log of the whole.

    Raises:
        InputError: the shards are not of one run, a case is missing or there twice, or failed.
        OutputError: the output is a stranger's folder.
    """
    files.refuse_foreign_folder(output, RUN_FILE, "a run")
    files.refuse_foreign_file(output / RUN_FILE, RUN_MARK, "a run's record")
    logs = [read_log(shard) for shard in shards]
    _refuse_mixture(shards, logs)
    records = [(shard, record) for shard in shards for record in read_records(shard)]
    _refuse_doubles(records)
    log = replace(
        with_records(logs[0], (record for _, record in records)),
        status="finished",
        shard=None,
        started=min(log.started for log in logs),
        ended=max(log.ended or log.started for log in logs),
    )
    _refuse_holes(log, shards)
    output.mkdir(parents=True, exist_ok=True)
    replace(log, status="started", codes=(), workers=(), cases={}).write(output)
    for shard, record in records:
        with files.new_folder(output / record.case, CASE, overwrite=True) as partial:
            shutil.copytree(shard / record.case, partial, copy_function=_link, dirs_exist_ok=True)
    log.write(output)
    return log


def _refuse_mixture(shards: Sequence[Path], logs: Sequence[RunLog]) -> None:
    """Make sure that all shards are of one bundle, one rule and one selection of cases."""
    first = logs[0]
    for shard, log in zip(shards, logs, strict=True):
        for name, words in (
            ("bundle_id", "bundle"),
            ("rule", "rule"),
            ("sweep_prior", "use of the sweep prior"),
            ("selection", "list of cases"),
        ):
            if getattr(log, name) != getattr(first, name):
                raise InputError(
                    expected=f"shards of one run, with the {words} of {shards[0]}",
                    found=f"another one in {shard}",
                    advice="give the outputs of one command, with each --shard once",
                )


def _refuse_doubles(records: Sequence[tuple[Path, Record]]) -> None:
    homes: dict[str, Path] = {}
    for shard, record in records:
        if record.case in homes:
            raise InputError(
                expected="every case in one shard",
                found=f"{record.case} in {homes[record.case]} and in {shard}",
                advice="give each shard once",
            )
        homes[record.case] = shard


def _refuse_holes(log: RunLog, shards: Sequence[Path]) -> None:
    """Make sure that every case that was asked for has an answer, and no other."""
    holes = [*log.unfinished, *log.failed]
    if holes:
        raise InputError(
            expected=f"an answer for each of the {len(log.selection)} cases",
            found=f"none for {len(holes)}, the first being {holes[0]}, in {len(shards)} shards",
            advice="give all shards; `python -m evaluation retry` runs what failed in one",
        )
    surplus = sorted(log.cases.keys() - set(log.selection))
    if surplus:
        raise InputError(
            expected="the cases that the shards were to run, and no other",
            found=f"{surplus[0]}",
            advice="run each shard into a folder of its own",
        )


def _link(source: str, target: str) -> None:
    """Link a file where both places are on one disk, else copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
