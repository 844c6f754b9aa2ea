"""Whether answers hold what they say: known calibration errors, areas, coverage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation_commands import write_answer

from acouslic.challenge import CIRCUMFERENCE_FILE
from evaluation.predictions import CLAIMS, PredictionFiles, read_prediction
from evaluation.reliability import calibration_error, reliability, risk_coverage, roc_area


def case(
    confidence: float | None, score: float, *, annotated: bool = True, reference: float | None = 200
) -> dict[str, Any]:
    return {
        "confidence": confidence,
        "p_annotated": confidence,
        "ac_interval_mm": None if confidence is None else [190.0, 210.0],
        "score": score,
        "quality": "suboptimal" if annotated else "none",
        "reference_mm": reference,
    }


def test_the_calibration_error_is_the_mean_distance_over_bins() -> None:
    claimed = np.array([0.05, 0.05, 0.85, 0.85])
    assert calibration_error(claimed, np.array([0.05, 0.05, 0.85, 0.85])) == 0
    # Both lower ones are off by 0.95 and -0.05, which even out to 0.45 in their bin.
    assert calibration_error(claimed, np.array([1.0, 0.0, 0.85, 0.85])) == pytest.approx(0.225)
    assert calibration_error(np.array([1.0]), np.array([0.4])) == pytest.approx(0.6)
    assert calibration_error(np.zeros(0), np.zeros(0)) is None


def test_an_area_needs_both_outcomes() -> None:
    assert roc_area(np.array([0.1, 0.9]), np.array([False, True])) == 1
    assert roc_area(np.array([0.1, 0.9]), np.array([True, True])) is None


def test_all_figures_of_a_run_and_answers_that_say_nothing_are_left_out() -> None:
    cases = [
        case(0.95, 0.95),
        case(0.95, 0.85, reference=215.0),
        case(0.15, 0.05, annotated=False, reference=None),
        case(None, 0.0, annotated=False),
    ]
    figures = reliability(cases)
    assert (figures["n"], figures["n_references"]) == (3, 2)
    assert figures["confidence_calibration_error"] == pytest.approx((2 * 0.05 + 0.10) / 3)
    assert figures["p_annotated_calibration_error"] == pytest.approx((2 * 0.05 + 0.15) / 3)
    assert (figures["confidence_roc_area"], figures["p_annotated_roc_area"]) == (1, 1)
    assert figures["ac_coverage"] == 0.5
    coverage, risk = risk_coverage(cases)
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk.tolist() == pytest.approx([0.05, 0.10, (0.05 + 0.15 + 0.95) / 3])


def test_claims_are_read_where_an_answer_makes_sound_ones(tmp_path: Path) -> None:
    write_answer(tmp_path / "case", 5)
    path = tmp_path / "case" / CIRCUMFERENCE_FILE
    sound = {"confidence": 0.8, "p_annotated": 0.7, "ac_interval_mm": [190.0, 210.0]}
    for content, expected in (
        (sound, sound),
        (sound | {"confidence": 1.5}, None),
        (sound | {"p_annotated": "high"}, None),
        ({"confidence": 0.8}, None),
        ([1], None),
        (None, None),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(json.dumps(content))
        prediction = read_prediction(PredictionFiles.plain(tmp_path / "case"), (12, 562, 744))
        assert prediction.claims == (expected or dict.fromkeys(CLAIMS))
