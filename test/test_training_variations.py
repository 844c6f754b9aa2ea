"""What each variation is worth: a balanced design, and gains that are right where known."""

from dataclasses import asdict, fields
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from training.augment import NONE
from training.demo.variations import GROUPS, NETWORKS, Gain, design, gains, table
from training.options import Augmentation

NAMES = [switched.names for switched in design()]
SEEDS = [switched.half for switched in design()]
SIGNS = np.array([[1 if name in names else -1 for name in GROUPS] for names in NAMES])
TRUTH = dict(zip(GROUPS, (0.1, 0, -0.05, 0.02, 0, 0.3, 0, 0.01), strict=True))


def test_every_option_is_in_one_group() -> None:
    options = [option for group in GROUPS.values() for option in group]
    assert sorted(options) == sorted(field.name for field in fields(Augmentation))


def test_a_network_has_the_default_of_what_it_varies_and_nothing_else() -> None:
    default, none = asdict(Augmentation()), asdict(NONE)
    for switched in design():
        for name, options in GROUPS.items():
            expected = default if name in switched.names else none
            assert all(getattr(switched.augmentation, one) == expected[one] for one in options)


def test_no_gain_is_mixed_with_a_seed_or_with_what_two_variations_do_together() -> None:
    assert len(set(NAMES)) == NETWORKS and sum(SEEDS) == NETWORKS / 2
    assert np.array_equal(SIGNS.T @ SIGNS, NETWORKS * np.eye(len(GROUPS)))
    assert not (SIGNS.T @ np.array(SEEDS)).any()
    for first, second in combinations(SIGNS.T, 2):
        assert not (SIGNS.T @ (first * second)).any()


def _values(noise: float, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    exact = [0.5 + sum(TRUTH[name] for name in names) for names in NAMES]
    return np.array(exact) + 0.1 * np.array(SEEDS) + noise * rng.standard_normal(NETWORKS)


def test_known_gains_are_found_whatever_the_seed_brings() -> None:
    found = gains(NAMES, SEEDS, _values(0))
    for name, gain in found.items():
        assert gain == pytest.approx(Gain(*[TRUTH[name]] * 3), abs=1e-9)


def test_intervals_hold_the_truth_in_95_percent() -> None:
    held = [
        low <= TRUTH[name] <= high
        for seed in range(250)
        for name, (_, low, high) in gains(NAMES, SEEDS, _values(0.05, seed=seed)).items()
    ]
    assert len(held) == 2000 and 0.93 < np.mean(held) < 0.97


def test_a_round_more_narrows_the_intervals() -> None:
    once = gains(NAMES, SEEDS, _values(0.05))
    values = np.concatenate([_values(0.05), _values(0.05, seed=2) + 0.2])
    twice = gains(NAMES * 2, [*SEEDS, *(seed + 2 for seed in SEEDS)], values)
    width = [[gain.high - gain.low for gain in found.values()] for found in (twice, once)]
    assert np.mean(width[0]) < 0.8 * np.mean(width[1])


def test_the_table_has_a_row_for_each_variation() -> None:
    results = [
        {
            "varied": list(names),
            "seed": seed,
            "phantom_dice": value,
            "dice": {"a": value, "b": 0.5},
            "mean_dice": (value + 0.5) / 2,
        }
        for names, seed, value in zip(NAMES, SEEDS, _values(0), strict=True)
    ]
    lines = table(results).splitlines()
    assert "2 masks" in lines[0]
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in GROUPS]
    assert lines[2].endswith("| +0.100 [+0.100..+0.100] | +0.050 [+0.050..+0.050] |")


def test_frames_without_masks_have_no_column() -> None:
    results: list[dict[str, Any]] = [
        {"varied": names, "seed": seed, "phantom_dice": 0.5, "dice": {}, "mean_dice": None}
        for names, seed in zip(NAMES, SEEDS, strict=True)
    ]
    assert {line.count("|") for line in table(results).splitlines()} == {3}
