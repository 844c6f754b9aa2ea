"""A cached case as the shipped pipeline would treat it: prediction, choice of the frame, outline,
the challenge's metrics.
"""

from dataclasses import dataclass

import numpy as np
import torch

from acouslic import pipeline, selection
from acouslic.fan import CHALLENGE_FAN
from acouslic.mask import Outline
from acouslic.network import AbdomenNet
from acouslic.preprocess import normalise
from acouslic.segment import StackPrediction
from acouslic.selection import SelectionConfig
from evaluation.labels import Labels
from evaluation.metrics import CaseMetrics, case_metrics, score
from training.cache import CachedCase

LABEL_OF_QUALITY = np.array([0, 2, 1], np.uint8)


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


@torch.no_grad()
def predict_case(network: AbdomenNet, case: CachedCase, batch_size: int) -> StackPrediction:
    """What the network says of a cached case, in the precision of the caller's autocast.

    `acouslic.segment.predict` gives the same in the precision that ships; in training bf16 is
    three times faster on a CPU.
    """
    device = next(network.parameters()).device
    quality = np.zeros((case.facts.n_frames, 3), np.float32)
    size = network.decoder.size
    logits = np.zeros((case.facts.n_frames, size, size), np.float16)
    frames = case.frames
    for start in range(0, len(frames), batch_size):
        images = torch.from_numpy(np.array(frames[start : start + batch_size])).to(device)
        output = network(normalise(images))
        where = case.frame_index[start : start + batch_size]
        quality[where] = output.quality_logits.float().softmax(dim=1).cpu().numpy()
        logits[where] = output.mask_logits[:, 0].half().cpu().numpy()
    return StackPrediction(quality, logits)


def judge(case: CachedCase, prediction: StackPrediction, config: SelectionConfig) -> CaseMetrics:
    """The challenge's metrics of what the pipeline would write for this prediction."""
    tissue = tissue_of(case)
    scores = pipeline.score_frames(prediction, tissue, config)
    ranking = selection.ranked(scores, tissue)
    spacing_mm = case.facts.spacing_mm[0]
    return judge_outline(case, *pipeline.choose(ranking, scores, prediction, spacing_mm, config))


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
        frame: mask * LABEL_OF_QUALITY[quality[frame]] for frame, mask in case.truth_masks().items()
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
