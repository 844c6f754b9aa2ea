"""The challenge's metrics against its rules spelled out, on cases made for each of them."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.ellipse import Ellipse, circumference_mm
from dataset.labels import Labels
from evaluation import metrics

FAN = CHALLENGE_FAN.mask()
SMALL = (90, 110)
SMALL_FAN = Ellipse(55, 45, 52, 42, 0).mask(SMALL)
SWEEP = 40
N_FRAMES = 6 * SWEEP
REFERENCES_MM = (60.0, None, 55.0, 50.0, None, 45.0)


def blob(x: float = 55, y: float = 45, a: float = 25, b: float = 18) -> np.ndarray:
    return Ellipse(x, y, a, b, 20).mask(SMALL)


def stack(labels: dict[int, int], mask: np.ndarray | None = None) -> np.ndarray:
    """Truth with the given label on the given frames."""
    truth = np.zeros((N_FRAMES, *SMALL), np.uint8)
    for frame, label in labels.items():
        truth[frame][blob(x=52) if mask is None else mask] = label
    return truth


def measure(truth: np.ndarray, mask: np.ndarray, frame: int) -> metrics.CaseMetrics:
    return metrics.case_metrics(
        Labels.from_volume(truth), REFERENCES_MM, mask, frame, fan_mask=SMALL_FAN, spacing_mm=0.5
    )


def itk(mask: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(mask.astype(np.uint8))


def itk_overlap(
    expected: np.ndarray, predicted: np.ndarray
) -> sitk.LabelOverlapMeasuresImageFilter:
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.SetNumberOfThreads(1)
    measures.Execute(itk(expected), itk(predicted))
    return measures


def itk_hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    distance = sitk.HausdorffDistanceImageFilter()
    distance.SetNumberOfThreads(1)
    distance.Execute(itk(a), itk(b))
    return float(distance.GetHausdorffDistance())


def literal_neighbour(truth: np.ndarray, frame: int) -> int | None:
    """The rule as it is told: within 15, same sweep, the one before wins."""
    length = len(truth) // 6
    same_sweep = [f for f in range(len(truth)) if f // length == frame // length and f != frame]
    near = [f for f in same_sweep if abs(f - frame) <= 15 and truth[f].any()]
    before, after = [f for f in near if f < frame], [f for f in near if f > frame]
    return max(before) if before else min(after) if after else None


def literal_metrics(
    truth: np.ndarray,
    references: tuple[float | None, ...],
    mask: np.ndarray,
    frame: int,
    fan: np.ndarray,
    spacing_mm: float,
) -> dict[str, float]:
    """The official numbers by the challenge's description, whole frames and no shortcuts."""
    valid = 0 <= frame < len(truth)
    chosen = (mask > 0) if valid else np.zeros(mask.shape, bool)
    expected, predicted = (truth[frame] > 0) & fan, chosen & fan
    measures = itk_overlap(expected, predicted)
    values = {key: getattr(measures, f"Get{key}")() for key in metrics.OVERLAP_KEYS}
    dice = values["DiceCoefficient"]
    values |= {"DiceCoefficientNearestFrame": dice, "DiceCoefficientSoft": dice}
    values |= {"NearestAnnotatedFrame": frame, "HausdorffDistance": 744 * 15}
    neighbour = literal_neighbour(truth, frame) if predicted.any() and not expected.any() else None
    if predicted.any() and expected.any():
        values["HausdorffDistance"] = itk_hausdorff(expected, predicted)
    if neighbour is not None:
        other = truth[neighbour] > 0
        near_dice = itk_overlap(other, predicted).GetDiceCoefficient()
        values["NearestAnnotatedFrame"] = neighbour
        values["DiceCoefficientNearestFrame"] = near_dice
        values["DiceCoefficientSoft"] = near_dice * (1 - abs(neighbour - frame) / 15)
        values["HausdorffDistance"] = itk_hausdorff(other, predicted) * (neighbour - frame)
    optimal, suboptimal = (valid and bool((truth[frame] == label).any()) for label in (1, 2))
    partly = 0.6 if (truth == 1).any() else 1.0
    values["wfss"] = 1.0 if optimal else partly if suboptimal else 0.0
    reference = references[frame // (len(truth) // 6)] if valid else None
    ac_mm = circumference_mm(chosen, fan, spacing_mm)
    if reference is None or ac_mm is None:
        values["nae_circumference"] = 1.0
    else:
        values["nae_circumference"] = abs(reference - ac_mm) / max(reference, ac_mm, 1e-6)
    return values


def assert_literal(
    truth: np.ndarray, mask: np.ndarray, frame: int, *, small: bool = True
) -> metrics.CaseMetrics:
    fan, spacing_mm = (SMALL_FAN, 0.5) if small else (FAN, SPACING_MM)
    measured = metrics.case_metrics(
        Labels.from_volume(truth), REFERENCES_MM, mask, frame, fan_mask=fan, spacing_mm=spacing_mm
    )
    expected = literal_metrics(truth, REFERENCES_MM, mask, frame, fan, spacing_mm)
    assert measured.nearest_frame == expected.pop("NearestAnnotatedFrame")
    assert measured.values.keys() == expected.keys() == set(metrics.AVERAGED_KEYS)
    for key, value in expected.items():
        if math.isfinite(value) and abs(value) < 1e300:
            assert measured.values[key] == pytest.approx(value, abs=1e-12), key
            assert key not in measured.undefined
        else:
            assert key in measured.undefined
            assert measured.values[key] == 0.0
    return measured


RUN = dict.fromkeys(range(50, 56), 2) | {52: 1, 53: 1}


@pytest.mark.parametrize(
    "frame", [-1, 0, 34, 35, 39, 40, 49, 50, 52, 55, 56, 60, 70, 71, 79, 80, 120, 239]
)
def test_every_place_of_the_chosen_frame_equals_the_rules(frame: int) -> None:
    """Before, in, after the run 50..55 of sweep 2, 15 and 16 frames away, in other sweeps, none."""
    assert_literal(stack(RUN), blob(), frame)


@pytest.mark.parametrize("frame", range(40, 80))
def test_between_two_runs_the_one_before_wins(frame: int) -> None:
    truth = stack({44: 2, 45: 2, 66: 1, 67: 2})
    assert_literal(truth, blob(), frame)


def test_one_frame_before_a_run_still_goes_to_the_run_14_frames_back() -> None:
    measured = measure(stack({50: 1, 65: 1}), blob(), 64)
    assert measured.nearest_frame == 50
    assert measured.values["DiceCoefficientSoft"] == pytest.approx(
        measured.values["DiceCoefficientNearestFrame"] * (1 - 14 / 15)
    )
    assert measured.values["HausdorffDistance"] < 0
    assert measured.values["DiceCoefficient"] == 0.0


def test_15_frames_away_counts_for_the_distance_but_not_for_dice() -> None:
    measured = measure(stack({40: 1}), blob(), 55)
    assert measured.nearest_frame == 40
    assert measured.values["DiceCoefficientNearestFrame"] > 0.8
    assert measured.values["DiceCoefficientSoft"] == 0.0
    assert -15 * 20 < measured.values["HausdorffDistance"] < 0


def test_16_frames_away_and_the_next_sweep_are_no_neighbours() -> None:
    for truth, frame in ((stack({40: 1}), 56), (stack({40: 1}), 39), (stack({79: 1}), 80)):
        measured = measure(truth, blob(), frame)
        assert measured.nearest_frame == frame
        assert measured.values["HausdorffDistance"] == 744 * 15
        assert measured.values["DiceCoefficientSoft"] == 0.0


def test_a_sweep_without_reference_costs_the_whole_nae() -> None:
    truth = stack({10: 1, 50: 1})
    with_reference, without = measure(truth, blob(), 10), measure(truth, blob(), 50)
    assert with_reference.values["nae_circumference"] < 0.5
    assert with_reference.reference_mm == 60.0
    assert without.values["nae_circumference"] == 1.0
    assert without.reference_mm is None
    assert without.values["wfss"] == with_reference.values["wfss"] == 1.0


def test_frame_selection_score_of_each_quality() -> None:
    with_optimal, without = (
        Labels.from_volume(stack(labels)) for labels in ({50: 2, 51: 1}, {50: 2})
    )
    assert metrics.wfss(with_optimal, 51) == 1.0
    assert metrics.wfss(with_optimal, 50) == 0.6
    assert metrics.wfss(without, 50) == 1.0
    assert [metrics.wfss(with_optimal, frame) for frame in (49, -1, 240, -189)] == [0.0] * 4
    assert metrics.wfss(Labels.from_volume(stack({})), 50) == 0.0
    both = stack({50: 2})
    both[50, 45, 55] = 1
    assert metrics.wfss(Labels.from_volume(both), 50) == 1.0


def test_both_masks_empty_is_reported_as_0_and_named() -> None:
    for truth, mask, frame in (
        (stack(RUN), blob(), -1),
        (stack(RUN), np.zeros(SMALL), 20),
        (stack(RUN), blob(), 240),
        (stack(RUN), blob(), -300),
    ):
        measured = measure(truth, mask, frame)
        assert set(measured.undefined) >= {"DiceCoefficient", "DiceCoefficientSoft", "MeanOverlap"}
        assert all(math.isfinite(value) for value in measured.values.values())
        assert measured.values["DiceCoefficientSoft"] == 0.0
        assert measured.values["wfss"] == 0.0
        assert measured.values["nae_circumference"] == 1.0
        assert measured.values["HausdorffDistance"] == 744 * 15


def test_no_frame_is_compared_with_the_stacks_last_one() -> None:
    """The official tool indexes the truth with -1."""
    measured = assert_literal(stack({239: 1}), blob(), -1)
    assert measured.undefined == ("FalseNegativeError",)
    assert measured.values["DiceCoefficient"] == 0.0
    assert measured.nearest_frame == -1


def test_an_empty_prediction_leaves_only_the_false_negatives_undefined() -> None:
    assert measure(stack(RUN), np.zeros(SMALL), 52).undefined == ("FalseNegativeError",)
    assert measure(stack(RUN), blob(), 45).undefined == ()
    assert measure(stack(RUN), blob(), 52).undefined == ()


def test_errors_are_named_the_other_way_round_as_in_the_official_tool() -> None:
    truth = stack({50: 1}, mask=blob(a=20, b=15))
    larger, smaller = (
        measure(truth, blob(x=52, a=25, b=20), 50),
        measure(truth, blob(x=52, a=12, b=9), 50),
    )
    assert larger.values["FalseNegativeError"] > 0 == larger.values["FalsePositiveError"]
    assert smaller.values["FalsePositiveError"] > 0 == smaller.values["FalseNegativeError"]
    assert larger.values["VolumeSimilarity"] < 0 < smaller.values["VolumeSimilarity"]


def test_truth_outside_the_fan_gives_way_to_a_neighbour_that_is_not_cut() -> None:
    corner = np.zeros(SMALL, bool)
    corner[:8, :12] = True
    truth = stack({50: 1}, mask=corner) | stack({52: 1}, mask=blob(x=95, a=30, b=25))
    measured = assert_literal(truth, blob(x=90), 50)
    assert measured.nearest_frame == 52
    assert (truth[52].astype(bool) & ~SMALL_FAN).any()
    assert measured.values["wfss"] == 1.0


def test_a_prediction_outside_the_fan_counts_as_empty() -> None:
    corner = np.zeros(SMALL, np.uint8)
    corner[:8, :12] = 1
    measured = assert_literal(stack(RUN), corner, 52)
    assert measured.values["HausdorffDistance"] == 744 * 15
    assert measured.ac_mm is None


def full_masks() -> dict[str, np.ndarray]:
    whole = Ellipse(372, 300, 120, 100, 20).mask(FRAME_SHAPE)
    four = np.zeros(FRAME_SHAPE, bool)
    four[300:302, 370:372] = True
    return {
        "whole": whole,
        "cut on one side": Ellipse(372, 500, 150, 110, 0).mask(FRAME_SHAPE),
        "cut on two sides": Ellipse(372, 250, 260, 120, 0).mask(FRAME_SHAPE),
        "cut on three sides": Ellipse(372, 420, 330, 200, 0).mask(FRAME_SHAPE),
        "several components": whole | Ellipse(372, 500, 30, 20, 0).mask(FRAME_SHAPE),
        "a hole": whole & ~Ellipse(372, 300, 20, 20, 0).mask(FRAME_SHAPE),
        "four pixels": four,
        "whole frame": np.ones(FRAME_SHAPE, bool),
        "empty": np.zeros(FRAME_SHAPE, bool),
    }


@pytest.mark.parametrize("name", full_masks())
@pytest.mark.parametrize("frame", [2, 3])
def test_masks_of_all_kinds_equal_the_rules_at_full_size(name: str, frame: int) -> None:
    """Frames 2 and 3 are sweep 2, of which 2 is annotated, uncut by the fan."""
    truth = np.zeros((12, *FRAME_SHAPE), np.uint8)
    truth[2] = Ellipse(372, 480, 140, 110, 10).mask(FRAME_SHAPE)
    truth[1] = 2 * (full_masks()["whole"] & FAN)
    assert_literal(truth, full_masks()[name].astype(np.uint8), frame, small=False)


def test_hausdorff_is_between_masks_and_not_between_outlines() -> None:
    outer, inner = blob(a=30, b=30), blob(a=10, b=10)
    assert metrics.hausdorff_px(outer, inner) == pytest.approx(itk_hausdorff(outer, inner))
    nested = outer & ~inner
    assert metrics.hausdorff_px(outer, nested) == pytest.approx(itk_hausdorff(outer, nested))
    assert metrics.hausdorff_px(outer, outer) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_hausdorff_of_random_masks_equals_the_filter_on_whole_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (blob(*rng.uniform((10, 10, 4, 3), (100, 80, 30, 20))) for _ in range(2))
    a[0, 0] = b[-1, -1] = seed % 2
    assert metrics.hausdorff_px(a, b) == pytest.approx(itk_hausdorff(a, b), abs=1e-9)


def test_normalised_error_is_relative_to_the_larger_one() -> None:
    assert metrics.nae(200.0, 250.0) == metrics.nae(250.0, 200.0) == pytest.approx(0.2)
    assert metrics.nae(0.0, 0.0) == 0.0
    assert metrics.nae(None, 250.0) == metrics.nae(200.0, None) == 1.0
    assert metrics.nae(200.0, math.inf) == 1.0


def test_the_reading_is_the_one_used_at_inference() -> None:
    mask = full_masks()["cut on one side"]
    truth = np.zeros((12, *FRAME_SHAPE), np.uint8)
    measured = metrics.case_metrics(
        Labels.from_volume(truth), REFERENCES_MM, mask, 0, fan_mask=FAN, spacing_mm=SPACING_MM
    )
    assert measured.ac_mm == circumference_mm(mask, FAN, SPACING_MM)


def test_means_deviations_and_score_of_two_cases() -> None:
    best = dict(metrics.WORST_VALUES) | {
        "nae_circumference": 0.0, "wfss": 1.0, "DiceCoefficientSoft": 1.0,
    }  # fmt: skip
    totals = metrics.aggregate([best, metrics.WORST_VALUES])
    assert totals["wfss"] == {"mean": 0.5, "std": 0.5}
    assert totals["score"]["mean"] == pytest.approx(0.5)
    # The official quirk: 0.5 (1 - 0.5) + 0.25 0.5 + 0.25 0.5
    assert totals["score"]["std"] == pytest.approx(0.5)
    assert metrics.aggregate([best])["score"] == {"mean": 1.0, "std": 0.5}
    assert list(totals) == [*metrics.AVERAGED_KEYS, "score"]
    with pytest.raises(ValueError, match="no case"):
        metrics.aggregate([])


def test_shapes_that_do_not_fit_are_refused() -> None:
    truth = stack(RUN)
    with pytest.raises(ValueError, match="sweeps"):
        measure(truth[:-1], blob(), 0)
    with pytest.raises(ValueError, match="must be"):
        measure(truth, blob()[:-1], 0)
    with pytest.raises(ValueError, match="references"):
        metrics.case_metrics(
            Labels.from_volume(truth),
            REFERENCES_MM[:5],
            blob(),
            0,
            fan_mask=SMALL_FAN,
            spacing_mm=0.5,
        )
