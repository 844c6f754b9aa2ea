"""Where a case's score was lost: in the outline, the reading of the AC, the frame, or the sweep.

One stage after the other is replaced by an oracle that knows the truth, from the last one back, and
each is charged with what its oracle gains. What is charged adds up to what was lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from acouslic.challenge import AC_SHARE, FRAME_SHARE, MASK_SHARE
from acouslic.stack import sweep_slices
from dataset.labels import Labels
from evaluation.intervals import SEED, mean_intervals
from evaluation.metrics import (
    CaseMetrics,
    case_metrics,
    nearest_annotated_frame,
    score,
    wfss,
)

# A case that loses less at a stage is not counted there: two decimals of a score are told apart.
NOTICED = 0.01
# In the order in which the oracles take over; `answer` is charged where there is none.
STAGES: Mapping[str, str] = {
    "outline": "the true outline on the chosen frame",
    "reading": "and the AC read without error",
    "frame": "and the best frame of the chosen sweep",
    "sweep": "and the best sweep",
    "answer": "and an answer where there was none",
}


@dataclass(frozen=True)
class Loss:
    """What a stage lost on average."""

    stage: str
    """One of STAGES."""
    oracle: str
    """What takes its place, after those before it."""
    mean: float
    """The mean over cases."""
    ci95: tuple[float, float] | None
    """Its 95 % interval; None where there are no two subjects."""
    n_cases: int
    """Cases that lost at least NOTICED there."""


def mean_losses(cases: Sequence[Mapping[str, Any]], *, seed: int = SEED) -> list[Loss]:
    """Average the losses of all cases.

    Args:
        cases: entries of `cases` in metrics.json, each with its `losses`.
        seed: of the bootstrap over subjects.

    Returns:
        One a stage, in their order.
    """
    values = np.array([[case["losses"][stage] for stage in STAGES] for case in cases])
    ends = mean_intervals(values, [str(case["subject_id"]) for case in cases], seed=seed)
    return [
        Loss(
            stage,
            oracle,
            float(values[:, k].mean()),
            None if ends is None else (float(ends[k, 0]), float(ends[k, 1])),
            int((values[:, k] >= NOTICED).sum()),
        )
        for k, (stage, oracle) in enumerate(STAGES.items())
    ]


def losses(
    truth: Labels,
    references_mm: Sequence[float | None],
    frame: int,
    measured: CaseMetrics,
    *,
    fan_mask: np.ndarray,
    spacing_mm: float,
) -> dict[str, float]:
    """What each stage lost of a case's score.

    On a frame that is not annotated the true outline is that of the neighbour which the official
    tool compares with. Where there is none, nothing is to be outlined: the whole loss is then the
    frame's, or the sweep's.

    Args:
        truth: labels of the stack.
        references_mm: AC of sweeps 1 to 6, None where a sweep has none.
        frame: the chosen frame.
        measured: the case's values.
        fan_mask: (H, W), non-zero in the field of view.
        spacing_mm: the side of a pixel.

    Returns:
        By STAGES. An outline may gain by accident, where its error makes up for that of the
        reading; its loss is negative then.
    """
    answered = _score(measured)
    outlined = read = answered
    neighbour = frame if truth.frame(frame).any() else nearest_annotated_frame(truth, frame)
    if neighbour is not None:
        ideal = case_metrics(
            truth,
            references_mm,
            truth.frame(neighbour) != 0,
            frame,
            fan_mask=fan_mask,
            spacing_mm=spacing_mm,
        )
        outlined = _score(ideal)
        nae = 1.0 if ideal.reference_mm is None else 0.0
        read = score(nae, ideal.values["wfss"], ideal.values["DiceCoefficientSoft"])
    by_sweep = best_of_sweeps(truth, references_mm)
    in_sweep = read if measured.sweep is None else max(read, by_sweep[measured.sweep - 1])
    steps = (answered, outlined, read, in_sweep, max(in_sweep, *by_sweep))
    gains = [after - before for before, after in pairwise(steps)]
    return dict(zip(STAGES, (*gains, 0.0), strict=True))


def nothing_answered(truth: Labels, references_mm: Sequence[float | None]) -> dict[str, float]:
    """The losses of a case without an answer."""
    return dict.fromkeys(STAGES, 0.0) | {"answer": max(best_of_sweeps(truth, references_mm))}


def best_of_sweeps(truth: Labels, references_mm: Sequence[float | None]) -> list[float]:
    """The highest score that a perfect answer could get in each sweep."""
    best = []
    for sweep, reference_mm in zip(sweep_slices(truth.n_frames), references_mm, strict=True):
        annotated = [frame for frame in truth.frames if sweep.start <= frame < sweep.stop]
        of_frame = max((wfss(truth, frame) for frame in annotated), default=0.0)
        of_mask = MASK_SHARE if annotated else 0.0
        best.append(AC_SHARE * (reference_mm is not None) + FRAME_SHARE * of_frame + of_mask)
    return best


def _score(measured: CaseMetrics) -> float:
    values = measured.values
    return score(values["nae_circumference"], values["wfss"], values["DiceCoefficientSoft"])
