"""What a run cost: seconds and memory of each case, beside the platform's limits.

A log is the content of run.json: `cases` has each case's `seconds` by stage and `peak_memory_mib`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# The platform's own: a phase's organisers set the time a case may take, 5 to 20 minutes; its
# machine has 16 GiB, of which a process may take 15 (RLIMIT_DATA).
TIME_LIMIT_S = 300.0
MEMORY_LIMIT_MIB = 15.0 * 1024


@dataclass(frozen=True)
class Cost:
    """One kind of cost over all cases."""

    name: str
    """What it is: a stage, or the whole."""
    unit: str
    """s or MiB."""
    median: float
    """Of all cases."""
    most: float
    """The highest of all cases."""
    worst: str
    """The case that had it."""
    limit: float | None
    """What the platform allows; None for a stage."""

    @property
    def share(self) -> float:
        """The highest, as a share of the limit; 0 without one."""
        return self.most / self.limit if self.limit else 0.0


def costs(log: Mapping[str, Any]) -> list[Cost]:
    """Time by stage and in all, and memory; empty where the log does not tell."""
    cases = log.get("cases")
    if not isinstance(cases, dict):
        return []
    done = {name: case for name, case in cases.items() if case.get("status") == "done"}
    stages = dict.fromkeys(stage for case in done.values() for stage in case["seconds"])
    named = [
        _cost(stage, "s", {name: case["seconds"].get(stage) for name, case in done.items()})
        for stage in stages
    ]
    whole = {name: sum(case["seconds"].values()) for name, case in done.items()}
    memory = {name: case["peak_memory_mib"] for name, case in done.items()}
    named.append(_cost("whole case", "s", whole, TIME_LIMIT_S))
    named.append(_cost("memory", "MiB", memory, MEMORY_LIMIT_MIB))
    return [cost for cost in named if cost is not None]


def _cost(
    name: str, unit: str, values: Mapping[str, float | None], limit: float | None = None
) -> Cost | None:
    known = {case: float(value) for case, value in values.items() if value is not None}
    if not known:
        return None
    worst = max(known, key=lambda case: (known[case], case))
    median = float(np.median(list(known.values())))
    return Cost(name, unit, median, known[worst], worst, limit)


def provenance(
    settings: Mapping[str, Any], notes: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """All that is known of how the answers came about.

    Args:
        settings: those of metrics.json.
        notes: files beside answers and truth that tell of them, by name.

    Returns:
        Where it stands, what it is, and its value as text; the records of single cases are left
        out.
    """
    lines = []
    for source, values in {"scoring": settings, **notes}.items():
        kept = {name: value for name, value in values.items() if name not in ("cases", "selection")}
        lines += [(source, name, text) for name, text in _flat(kept) if text]
    return lines


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Pairs of a dotted name and a text; lists of plain values are one text."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in _flat(inner, f"{name}.{key}".strip("."))
        ]
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        return [
            pair for place, item in enumerate(value) for pair in _flat(item, f"{name}[{place}]")
        ]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(map(str, value)))]
    return [(name, "" if value is None else str(value))]
