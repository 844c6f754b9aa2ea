"""Which rows of the table are not what the paper ran, and in what they differ."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmark.options import PAPER, ImageOptions, Protocol, Schedule
from benchmark.systems import System

STAND_IN, NOT_PUBLISHED, DIFFERS = "†", "‡", "§"
# Of the schedule, what the paper gives; a seed and a place to stop are ours.
PAPERS_SCHEDULE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "frames_per_epoch",
    "soften_frames",
)


def differences(
    protocol: Protocol, schedule: Schedule, images: Mapping[str, bool] | None
) -> list[str]:
    """What of a run differs from the paper's, for every system alike, in words.

    Args:
        protocol: the run's.
        schedule: the run's.
        images: how its images were made, where they are not a cache's.

    Returns:
        Each option with its value.
    """
    asked = asdict(protocol) | asdict(schedule)
    papers = asdict(PAPER) | {name: asdict(Schedule())[name] for name in PAPERS_SCHEDULE}
    del papers["name"]
    if images is not None:
        asked, papers = asked | dict(images), papers | asdict(ImageOptions())
    return [
        f"{name.replace('_', ' ')} {asked[name]}"
        for name, value in papers.items()
        if asked[name] != value
    ]


def marks(system: System, result: Mapping[str, Any], differs: list[str]) -> list[str]:
    """A system's marks.

    Args:
        system: the system.
        result: of a trial of it.
        differs: see `differences`.

    Returns:
        Its marks, each once.
    """
    own = [NOT_PUBLISHED] if system.kind != "published" else []
    stand_in = [STAND_IN] if result["stand_in"] else []
    return stand_in + own + ([DIFFERS] if differs and not own else [])
