"""A run's history.csv: a row an epoch, with losses, learning rate and held-out figures."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from acouslic import files

HISTORY = "history.csv"
EPOCH, STEP, RATE = "epoch", "step", "rate"
LOSS, SCORE = "loss/total", "validation/score"


def read_history(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's history, by column; an epoch without validation has empty fields."""
    with (folder / HISTORY).open(newline="") as file:
        return list(csv.DictReader(file))


def write_history(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the rows of a run's history, whole or not at all; what a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(str(row.get(name, "")) for name in columns) for row in rows]
    files.write_text(folder / HISTORY, "\n".join(lines) + "\n")


def last_validation(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """The figures of the last epoch that was judged on held-out cases; of the last, if none was."""
    validated = [row for row in rows if row.get(SCORE)]
    last = [*rows[-1:], *validated][-1]
    return {name: float(value) for name, value in last.items() if value}
