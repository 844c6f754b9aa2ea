"""The rules for choosing the frame, and that the command line offers each of them."""

import numpy as np
import pytest

from acouslic.segment import StackPrediction
from acouslic.selection import SelectionConfig
from evaluation.__main__ import main
from evaluation.rules import (
    RULES,
    highest_probability,
    largest_area,
    peak_probability,
    quality_times_mask,
)

CONFIG = SelectionConfig()
TISSUE = np.array([True, True, True, False, True, True])


def prediction() -> StackPrediction:
    """Frame 0 has the larger mask, frame 1 the surer one, frame 2 none, frame 3 is black."""
    logits = np.full((6, 8, 8), -9, np.float16)
    logits[0, 2:7, 2:7] = 1
    logits[1, 3:5, 3:5] = 6
    logits[3] = 9
    return StackPrediction(np.zeros((6, 3), np.float32), logits)


def test_largest_area_looks_at_the_mask_alone() -> None:
    scores = largest_area(prediction(), TISSUE, CONFIG)
    assert scores.argmax() == 0
    assert scores[0] == np.float32(25 / 64)
    assert not scores[2:].any()


def test_highest_probability_looks_at_how_sure_the_mask_is() -> None:
    scores = highest_probability(prediction(), TISSUE, CONFIG)
    assert scores.argmax() == 1
    assert np.isclose(scores[0], 1 / (1 + np.exp(-1)), atol=1e-3)
    assert not scores[2:].any()


def test_peak_probability_looks_at_the_surest_pixel_alone() -> None:
    peaked = prediction()
    peaked.mask_logits[0, 0, 0] = 7
    scores = peak_probability(peaked, TISSUE, CONFIG)
    assert scores.argmax() == 0
    assert np.isclose(scores[1], 1 / (1 + np.exp(-6)), atol=1e-3)
    assert not scores[2:].any()


def test_quality_times_mask_is_the_rule_of_version_0_1() -> None:
    """Smoothed along its sweep, expected quality at equal shares; the root of the goodness."""
    tissue = np.ones(60, bool)
    logits = np.full((60, 32, 32), -9, np.float16)
    quality = np.zeros((60, 3), np.float32)
    quality[:, 0] = 1
    quality[12:18] = (0.0, 1.0, 0.0)
    scores = quality_times_mask(StackPrediction(quality, logits), tissue, CONFIG)
    assert not scores[:10].any()
    assert not scores[20:].any()
    smoothed = np.exp(-0.5 * (np.arange(-12, 13) / 3.0) ** 2)
    weight = [smoothed[12 + k] for k in range(-5, 5)]
    expected = 0.6 * sum(weight[3:9]) / sum(weight) * np.sqrt(1e-3)
    assert scores[15] == pytest.approx(expected, rel=1e-5)


def test_the_command_line_offers_every_rule(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # so that the help does not break the list
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--help"])
    assert "{" + ",".join(RULES) + "}" in capsys.readouterr().out
