"""The challenge's metrics of a case, and their means over cases, to the official tool's last digit.

Pure functions. The truth is the labels of a stack, a prediction is one (H, W) mask. Frames count
from 0, sweeps from 1. Keys are those of the official metrics.json. "The official tool" is
DIAGNijmegen/ACOUSLIC-AI-evaluation-method.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from grand_challenge_metrics.stats import hausdorff_distance

from acouslic.challenge import COLUMNS, SWEEPS, Quality
from acouslic.ellipse import circumference_mm
from dataset.labels import Labels

# How far the official tool looks for an annotated neighbour, and how its Dice decays on the way.
NEAREST_FRAMES = 15
# The official tool's: a frame's width times the greatest distance of a neighbour.
WORST_HAUSDORFF_PX = float(COLUMNS * NEAREST_FRAMES)

OVERLAP_KEYS = (
    "FalseNegativeError",
    "FalsePositiveError",
    "MeanOverlap",
    "UnionOverlap",
    "VolumeSimilarity",
    "JaccardCoefficient",
    "DiceCoefficient",
)
# What the official tool averages, in its order. NearestAnnotatedFrame it gives of each case only.
AVERAGED_KEYS = (
    *OVERLAP_KEYS,
    "DiceCoefficientNearestFrame",
    "DiceCoefficientSoft",
    "HausdorffDistance",
    "wfss",
    "nae_circumference",
)
WORST_VALUES: Mapping[str, float] = {
    "FalseNegativeError": 1.0,
    "FalsePositiveError": 1.0,
    "MeanOverlap": 0.0,
    "UnionOverlap": 0.0,
    "VolumeSimilarity": 2.0,
    "JaccardCoefficient": 0.0,
    "DiceCoefficient": 0.0,
    "DiceCoefficientNearestFrame": 0.0,
    "DiceCoefficientSoft": 0.0,
    "HausdorffDistance": WORST_HAUSDORFF_PX,
    "wfss": 0.0,
    "nae_circumference": 1.0,
}


@dataclass(frozen=True)
class CaseMetrics:
    """One case's official values, and what they were computed from."""

    values: dict[str, float]
    """A finite number for each of AVERAGED_KEYS."""
    nearest_frame: int
    """The official NearestAnnotatedFrame: the frame that Dice and distance refer to."""
    sweep: int | None
    """The sweep of the chosen frame, 1 to 6; None outside of the stack."""
    ac_mm: float | None
    """The AC of the mask; None where no ellipse can be fitted."""
    reference_mm: float | None
    """The AC of the sweep's reference; None where it has none."""
    undefined: tuple[str, ...]
    """Keys that the official filter leaves undefined here; their value is 0."""


def case_metrics(
    truth: Labels,
    references_mm: Sequence[float | None],
    prediction: np.ndarray,
    frame: int,
    *,
    fan_mask: np.ndarray,
    spacing_mm: float,
) -> CaseMetrics:
    """Score one case as the official tool does.

    Its peculiarities, all kept:
    - outside of the sweeps (-1 for none) the prediction counts as empty and there is no reference;
      the truth is still indexed with -1, which is the stack's LAST frame, annotated or not;
    - the reference is that of the sweep that holds the frame; without it, or without an ellipse,
      NAE is 1;
    - prediction and truth are cut by the fan, but the truth of a neighbouring frame is not;
    - the filter's errors change places, see `overlap`.

    Args:
        truth: labels of the stack, its number of frames a multiple of six.
        references_mm: AC of sweeps 1 to 6, None where a sweep has none.
        prediction: (H, W), the chosen frame's mask, non-zero on the abdomen.
        frame: the chosen frame. The official tool fails on one outside of -1 .. T - 1; here it
            counts as a frame without truth.
        fan_mask: (H, W), non-zero in the field of view.
        spacing_mm: the side of a pixel. The official tool takes 0.28 whatever the file says.

    Returns:
        The case's values.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    _check_shapes(truth, references_mm, prediction, fan_mask)
    fan, sweep = fan_mask != 0, truth.sweep_of(frame)
    chosen = np.zeros(truth.frame_shape, bool) if sweep is None else prediction != 0
    reference_mm = None if sweep is None else references_mm[sweep - 1]
    ac_mm = circumference_mm(chosen, fan, spacing_mm)
    expected = (truth.frame(frame if frame >= 0 else truth.n_frames + frame) != 0) & fan
    values = overlap(expected, chosen & fan)
    values |= neighbour_metrics(truth, expected, chosen & fan, frame, values["DiceCoefficient"])
    nearest_frame = int(values.pop("NearestAnnotatedFrame"))
    values["wfss"] = wfss(truth, frame)
    values["nae_circumference"] = nae(reference_mm, ac_mm)
    undefined = tuple(key for key, value in values.items() if not _is_defined(value))
    values |= dict.fromkeys(undefined, 0.0)
    return CaseMetrics(values, nearest_frame, sweep, ac_mm, reference_mm, undefined)


def nae(reference_mm: float | None, ac_mm: float | None) -> float:
    """Normalised absolute error of the AC, |difference| / larger one.

    Args:
        reference_mm: the reference; None where the sweep has none.
        ac_mm: the measured AC; None where there is no ellipse.

    Returns:
        0 to 1; 1 where either is missing or infinite.
    """
    if reference_mm is None or ac_mm is None or not math.isfinite(ac_mm):
        return 1.0
    return abs(reference_mm - ac_mm) / max(reference_mm, ac_mm, 1e-6)


def wfss(truth: Labels, frame: int) -> float:
    """Weighted frame selection score of a frame.

    Neither fan nor reference matters. A frame that has both labels is optimal.

    Args:
        truth: labels of the stack.
        frame: the chosen frame; -1 for none.

    Returns:
        1 on an optimal frame, and on a suboptimal one where the stack has no optimal frame; 0.6 on
        a suboptimal frame of a stack that has an optimal one; else 0.
    """
    quality = truth.quality_of(frame)
    if quality != Quality.SUBOPTIMAL:
        return quality.value_in_score
    has_optimal = any(truth.quality_of(other) == Quality.OPTIMAL for other in truth.frames)
    return quality.value_in_score if has_optimal else Quality.OPTIMAL.value_in_score


def overlap(expected: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Overlap of two masks by SimpleITK's filter.

    The official tool hands the truth over first, and the filter takes its first mask for the
    candidate. So FalseNegativeError is the share of the PREDICTION outside of the truth,
    FalsePositiveError the share of the truth that the prediction lacks, and VolumeSimilarity is
    positive where the prediction is too small.

    Args:
        expected: (H, W) bool, the truth.
        predicted: (H, W) bool.

    Returns:
        OVERLAP_KEYS with their values. Where both masks are empty all are undefined, where only the
        prediction is empty FalseNegativeError is: then the filter returns infinity or the largest
        double.
    """
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.SetNumberOfThreads(1)
    measures.Execute(_image(expected), _image(predicted))
    return {key: getattr(measures, f"Get{key}")() for key in OVERLAP_KEYS}


def neighbour_metrics(
    truth: Labels, expected: np.ndarray, predicted: np.ndarray, frame: int, dice: float
) -> dict[str, float]:
    """Soft Dice, Hausdorff distance in pixels, and the annotated frame that they refer to.

    On an annotated frame these are plain Dice and distance. Where nothing of the truth is in the
    fan, the nearest annotated frame of the sweep takes its place, uncut by the fan: Dice is scaled
    by 1 - distance / 15, and the Hausdorff distance is multiplied by (nearest - chosen), so it is
    negative when the neighbour comes before. Without a neighbour, or with an empty prediction, the
    Hausdorff distance is 744 x 15.

    Args:
        truth: labels of the stack.
        expected: (H, W) bool, the chosen frame's truth inside the fan.
        predicted: (H, W) bool, the prediction inside the fan.
        frame: the chosen frame.
        dice: Dice of the two masks.

    Returns:
        DiceCoefficientNearestFrame, NearestAnnotatedFrame, DiceCoefficientSoft, HausdorffDistance.
    """
    plain = {
        "DiceCoefficientNearestFrame": dice,
        "NearestAnnotatedFrame": frame,
        "DiceCoefficientSoft": dice,
        "HausdorffDistance": WORST_HAUSDORFF_PX,
    }
    if not predicted.any():
        return plain
    if expected.any():
        return plain | {"HausdorffDistance": hausdorff_px(expected, predicted)}
    nearest = nearest_annotated_frame(truth, frame)
    if nearest is None:
        return plain
    neighbour, steps = truth.frame(nearest) != 0, nearest - frame
    dice_nearest = overlap(neighbour, predicted)["DiceCoefficient"]
    return {
        "DiceCoefficientNearestFrame": dice_nearest,
        "NearestAnnotatedFrame": nearest,
        "DiceCoefficientSoft": dice_nearest * (1 - abs(steps) / NEAREST_FRAMES),
        "HausdorffDistance": hausdorff_px(neighbour, predicted) * steps,
    }


def nearest_annotated_frame(truth: Labels, frame: int) -> int | None:
    """The neighbour of a frame that the official tool compares with.

    It looks within 15 frames, 15 included, and never past the sweep's ends. It is not always the
    nearest: the closest one BEFORE wins whenever there is one, however near the next one is.

    Returns:
        A frame's index; None where no frame so near is annotated.
    """
    sweep = truth.sweep_of(frame)
    if sweep is None:
        return None
    length = truth.n_frames // SWEEPS
    first = max((sweep - 1) * length, frame - NEAREST_FRAMES)
    last = min(sweep * length - 1, frame + NEAREST_FRAMES)
    before = np.flatnonzero(truth.filled[first:frame])
    if before.size:
        return first + int(before[-1])
    after = np.flatnonzero(truth.filled[frame + 1 : last + 1])
    return frame + 1 + int(after[0]) if after.size else None


def hausdorff_px(a: np.ndarray, b: np.ndarray) -> float:
    """Hausdorff distance of two filled (H, W) masks in pixels; neither may be empty.

    It is between the masks and not between their outlines, as in SimpleITK's filter: a mask inside
    another one is nearer to it than its outline is to the other's.
    """
    rows = np.flatnonzero((a | b).any(axis=1))
    columns = np.flatnonzero((a | b).any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(hausdorff_distance(a[box], b[box], connectivity=0))


def score(nae_circumference: float, wfss: float, dice_soft: float) -> float:
    """The leaderboard's score of a case or of means: 0.5 (1 - NAE) + 0.25 WFSS + 0.25 soft Dice."""
    return 0.5 * (1 - nae_circumference) + 0.25 * dice_soft + 0.25 * wfss


def aggregate(cases: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and (population) standard deviation of AVERAGED_KEYS over cases, and the score.

    The score's "std" is the official tool's: the score formula applied to the three deviations,
    hence near 0.5 for a perfect submission. It is kept for its key and means nothing.

    Args:
        cases: AVERAGED_KEYS with their values, of each case.

    Returns:
        `mean` and `std` of each key, and of `score`.

    Raises:
        ValueError: there is no case.
    """
    if not cases:
        raise ValueError("there is no case to average")
    columns = {key: [case[key] for case in cases] for key in AVERAGED_KEYS}
    totals = {
        key: {"mean": float(np.mean(values)), "std": float(np.std(values))}
        for key, values in columns.items()
    }
    totals["score"] = {
        statistic: score(
            totals["nae_circumference"][statistic],
            totals["wfss"][statistic],
            totals["DiceCoefficientSoft"][statistic],
        )
        for statistic in ("mean", "std")
    }
    return totals


def _image(mask: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(mask.astype(np.uint8))


def _is_defined(value: float) -> bool:
    """Whether a filter's value is a number: for 0 / 0 it returns infinity or the largest double."""
    return math.isfinite(value) and abs(value) < sys.float_info.max


def _check_shapes(
    truth: Labels,
    references_mm: Sequence[float | None],
    prediction: np.ndarray,
    fan_mask: np.ndarray,
) -> None:
    if truth.n_frames == 0 or truth.n_frames % SWEEPS:
        raise ValueError(f"{truth.n_frames} frames of truth are not {SWEEPS} equal sweeps")
    if prediction.shape != truth.frame_shape or fan_mask.shape != truth.frame_shape:
        raise ValueError(
            f"prediction {prediction.shape} and fan {fan_mask.shape} must be {truth.frame_shape}"
        )
    if len(references_mm) != SWEEPS:
        raise ValueError(f"{len(references_mm)} references for {SWEEPS} sweeps")
