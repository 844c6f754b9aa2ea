"""A cached case as the shipped pipeline would treat it: prediction, choice of the frame, outline,
the challenge's metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from acouslic import selection
from acouslic.challenge import CHALLENGE_FAN, labels_of_quality
from acouslic.mask import Outline
from acouslic.network import AbdomenNet
from acouslic.segment import StackPrediction, predict
from acouslic.selection import SelectionConfig
from dataset.cache import CachedCase
from dataset.labels import Labels
from evaluation.metrics import CaseMetrics, case_metrics, score


@dataclass(frozen=True)
class Figures:
    """The challenge's figures of a case, or their means."""

    score: float
    wfss: float
    dice_soft: float
    nae: float


def tissue_of(case: CachedCase) -> np.ndarray:
    """(T,) bool: the frames that the cache keeps."""
    tissue = np.zeros(case.facts.n_frames, bool)
    tissue[case.frame_index] = True
    return tissue


def predict_case(
    members: Sequence[AbdomenNet], case: CachedCase, batch_size: int = 16
) -> StackPrediction:
    """What the shipped stage says of a cached case."""
    frames = torch.from_numpy(np.array(case.frames))
    return predict(members, frames, tissue_of(case), batch_size)


def judge(case: CachedCase, prediction: StackPrediction, config: SelectionConfig) -> CaseMetrics:
    """The challenge's metrics of what the pipeline would write for this prediction."""
    tissue = tissue_of(case)
    scores = selection.score_frames(prediction, tissue, config)
    outlines = selection.Outlines(prediction, case.facts.spacing_mm[0], config.mask_threshold)
    return judge_outline(case, *selection.choose(scores, tissue, outlines))


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
    """The four figures that count."""
    values = metrics.values
    nae, wfss, dice = (
        values["nae_circumference"],
        values["wfss"],
        values["DiceCoefficientSoft"],
    )
    return Figures(score(nae, wfss, dice), wfss, dice, nae)


def mean_figures(cases: list[Figures]) -> Figures:
    """Means over cases; the score of means is the mean of scores."""
    columns = np.array([(each.score, each.wfss, each.dice_soft, each.nae) for each in cases])
    return Figures(*columns.mean(axis=0).tolist())
