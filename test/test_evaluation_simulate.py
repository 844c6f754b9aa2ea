"""Fitting a calibration, and what a rule is worth on label sequences."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acouslic.calibration import Calibration
from acouslic.challenge import AC_TABLE, FRAMES, SWEEPS, TABLE_COLUMNS, Quality
from acouslic.errors import InputError
from acouslic.expected_score import Evidence, posteriors
from dataset.sequences import RUNS_FILE, LabelSequence, read_sequences
from evaluation.calibrate import KnownStack, fit
from evaluation.simulate import DETECTORS, simulate


def sequences(count: int) -> list[LabelSequence]:
    """Cases whose first sweep, and sometimes another, holds a run with optimal frames inside."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(count):
        quality = np.zeros((SWEEPS, FRAMES // SWEEPS), np.uint8)
        ac_mm = np.full(SWEEPS, np.nan)
        for sweep in {0 if rng.random() < 0.8 else 1, int(rng.integers(SWEEPS))}:
            start = int(rng.integers(30, 80))
            quality[sweep, start : start + 12] = Quality.SUBOPTIMAL
            if rng.random() < 0.6:
                quality[sweep, start + 4 : start + 8] = Quality.OPTIMAL
            ac_mm[sweep] = 230.0
        cases.append(LabelSequence(f"case-{number}", f"s{number}", quality.ravel(), ac_mm))
    return cases


def drawn_stack(sequence: LabelSequence, rng: np.random.Generator) -> KnownStack:
    """What an ideal detector of known strength says: Bayes' rule at equal shares."""
    level = np.array([0.0, 2.0, 4.0])[sequence.quality] + rng.normal(size=FRAMES)
    likelihood = np.exp(-0.5 * (level[:, None] - np.array([0.0, 2.0, 4.0])) ** 2)
    quality = likelihood / likelihood.sum(axis=1, keepdims=True)
    evidence = Evidence(quality, np.ones(FRAMES), np.ones(FRAMES, bool))
    return KnownStack(evidence, sequence.quality, ~np.isnan(sequence.ac_mm))


def test_a_fit_finds_what_the_probabilities_mean() -> None:
    rng = np.random.default_rng(1)
    stacks = [drawn_stack(sequence, rng) for sequence in sequences(160)]
    calibration = fit(stacks[:80])
    belief = [posteriors(stack.evidence, calibration) for stack in stacks[80:]]
    annotated = np.concatenate([one.annotated for one in belief])
    truth = np.concatenate([stack.quality for stack in stacks[80:]]) > Quality.NONE
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        chosen = (annotated >= low) & (annotated <= high)
        assert truth[chosen].mean() == pytest.approx(annotated[chosen].mean(), abs=0.08)
    assert calibration.sweeps[0] > max(calibration.sweeps[2:])
    assert calibration != Calibration()


def test_what_cannot_be_fitted_keeps_its_default() -> None:
    rng = np.random.default_rng(1)
    stacks = [
        replace(stack, quality=np.minimum(stack.quality, Quality.SUBOPTIMAL))
        for stack in (drawn_stack(sequence, rng) for sequence in sequences(6))
    ]
    calibration = fit(stacks)
    assert calibration.optimal == Calibration().optimal
    assert calibration.has_optimal == Calibration().has_optimal
    assert calibration.annotated != Calibration().annotated


def test_the_shipped_rule_is_judged_beside_others_and_twice_alike() -> None:
    cases = sequences(40)
    first, second = (simulate(cases, DETECTORS["middle"], seed=3) for _ in range(2))
    assert first.keys() >= {"version 0.1", "expected score", "with the sweeps' numbers permuted"}
    for rule, scores in first.items():
        assert scores.shape == (40,)
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_array_equal(scores, second[rule])
    weak, strong = (
        simulate(cases, DETECTORS[name], seed=3)["expected score"].mean()
        for name in ("weak", "strong")
    )
    assert weak < strong


def write_tables(folder: Path) -> None:
    with (folder / AC_TABLE.name).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(TABLE_COLUMNS)
        rows.writerow(["b", "s1", "240.0", "", "", "", "", ""])
        rows.writerow(["a", "s0", "", "230.0", "", "", "", ""])
    with (folder / RUNS_FILE).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filestem", "opt_seq", "subopt_seq"])
        rows.writerow(["a", "[(150, 151)]", "[(152, 152)]"])
        rows.writerow(["b", "[]", "[(10, 12), (20, 20)]"])


def test_the_public_tables_are_joined_by_case(tmp_path: Path) -> None:
    write_tables(tmp_path)
    first, second = read_sequences(tmp_path)
    assert (first.case, first.subject) == ("a", "s0")
    assert first.quality[150:153].tolist() == [Quality.OPTIMAL] * 2 + [Quality.SUBOPTIMAL]
    assert np.nan_to_num(first.ac_mm).tolist() == [0, 230, 0, 0, 0, 0]
    assert np.flatnonzero(second.quality).tolist() == [10, 11, 12, 20]
    with (tmp_path / RUNS_FILE).open("a") as file:
        file.write("c,[],[]\n")
    with pytest.raises(InputError, match="case c"):
        read_sequences(tmp_path)
