"""A cached case as the shipped pipeline would treat it, and the challenge's metrics of that."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
import torch

from acouslic import selection
from acouslic.challenge import CHALLENGE_FAN, labels_of_quality
from acouslic.engine import TorchEngine
from acouslic.mask import Outline
from acouslic.network import AbdomenNet
from acouslic.segment import StackPrediction, full_size, predict
from acouslic.selection import SelectionConfig
from dataset.cache import CachedCase
from dataset.labels import Labels
from evaluation.metrics import CaseMetrics, case_metrics, score


@dataclass(frozen=True)
class Figures:
    """The challenge's figures of a case, or their means."""

    score: float
    """The challenge's score, 0 to 1; higher is better."""
    wfss: float
    """How well the chosen frame suits: 0, 0.6 or 1 of a case."""
    dice_soft: float
    """Dice of the mask, 0 to 1; near an annotated frame, of that one and scaled down."""
    nae: float
    """Relative error of the AC, 0 to 1; lower is better."""


def tissue_of(case: CachedCase) -> np.ndarray:
    """(T,) bool: the frames that the cache keeps."""
    tissue = np.zeros(case.facts.n_frames, bool)
    tissue[case.frame_index] = True
    return tissue


def predict_case(
    members: Sequence[AbdomenNet], case: CachedCase, batch_size: int = 16
) -> StackPrediction:
    """What the shipped stage predicts of a cached case, `batch_size` frames a pass."""
    frames = torch.from_numpy(np.array(case.frames))
    return predict(TorchEngine(members), frames, tissue_of(case), batch_size)


def judge(case: CachedCase, prediction: StackPrediction, config: SelectionConfig) -> CaseMetrics:
    """The challenge's metrics of what the pipeline would write for this prediction."""
    tissue = tissue_of(case)
    scores = selection.score_frames(prediction, tissue, config)
    logits_of = partial(full_size, prediction)
    outlines = selection.Outlines(logits_of, case.facts.spacing_mm[0], config)
    return judge_outline(case, *choose(case, scores, outlines))


def choose(
    case: CachedCase, scores: np.ndarray, outlines: selection.Outlines
) -> tuple[int, Outline]:
    """The shipped choice of a frame for a case; its warnings name the case, and come once.

    Args:
        case: whose frames they are.
        scores: (T,).
        outlines: of the same frames.

    Returns:
        The frame's index and its outline.
    """
    with _warnings_name(case.facts.uuid):
        return selection.choose(scores, tissue_of(case), outlines)


def judge_outline(case: CachedCase, frame: int, outline: Outline) -> CaseMetrics:
    """The challenge's metrics of an outline on a frame of the case."""
    return case_metrics(
        truth_labels(case),
        [None if np.isnan(ac) else ac for ac in case.facts.ac_mm],
        outline.mask,
        frame,
        fan_mask=CHALLENGE_FAN.mask(),
        spacing_mm=case.facts.spacing_mm[0],
    )


def truth_labels(case: CachedCase) -> Labels:
    """The case's annotated frames, labelled as the challenge distributes them."""
    quality = case.stack_quality()
    frames = {
        frame: mask * labels_of_quality(quality[frame])
        for frame, mask in case.truth_masks().items()
    }
    return Labels(case.facts.n_frames, case.facts.shape, frames)


def figures(metrics: CaseMetrics) -> Figures:
    """The four figures that count, of all metrics of a case."""
    values = metrics.values
    nae, wfss, dice = (
        values["nae_circumference"],
        values["wfss"],
        values["DiceCoefficientSoft"],
    )
    return Figures(score(nae, wfss, dice), wfss, dice, nae)


def mean_figures(cases: Sequence[Figures]) -> Figures:
    """Means over cases; the score of means is the mean of scores."""
    return Figures(*np.array([astuple(case) for case in cases]).mean(axis=0).tolist())


class _NamedOnce(logging.Filter):
    """Puts a case's name before each warning, and lets no warning of a case through twice.

    A case is judged again after every epoch, and with every entry of a grid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.case = ""
        self._told: set[tuple[str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        warning = (self.case, str(record.msg))
        if record.levelno < logging.WARNING or warning in self._told:
            return False
        self._told.add(warning)
        arguments = record.args if isinstance(record.args, tuple) else ()
        record.msg, record.args = f"%s: {record.msg}", (self.case, *arguments)
        return True


_NAMED_ONCE = _NamedOnce()


@contextmanager
def _warnings_name(case: str) -> Iterator[None]:
    _NAMED_ONCE.case = case
    selection.log.addFilter(_NAMED_ONCE)
    try:
        yield
    finally:
        selection.log.removeFilter(_NAMED_ONCE)
