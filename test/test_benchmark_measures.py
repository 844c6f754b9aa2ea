"""Measures against scikit-learn and scipy, intervals against evaluation's own bootstrap."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from benchmark.measures import (
    best_threshold,
    confusion,
    frame_measures,
    picked_frame,
    quality_measures,
    ranking_draws,
    rates,
    wfss_of,
)
from evaluation.intervals import (
    interval,
    mean_draws,
    mean_intervals,
    subject_draws,
    sums_by_subject,
)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).random(200) < 0.2


@pytest.fixture
def scores(labels: np.ndarray) -> np.ndarray:
    """Rounded, so that there are ties."""
    noise = np.random.default_rng(1).random(200)
    return np.round(0.6 * noise + 0.4 * labels, 1).astype(np.float32)


def test_frame_measures_are_scikit_learns(scores: np.ndarray, labels: np.ndarray) -> None:
    measured = frame_measures(scores, labels, 0.5)
    positive = scores >= 0.5
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(labels, positive))
    assert measured["f1"] == pytest.approx(metrics.f1_score(labels, positive))
    assert measured["precision"] == pytest.approx(metrics.precision_score(labels, positive))
    assert measured["recall"] == pytest.approx(metrics.recall_score(labels, positive))
    assert measured["specificity"] == pytest.approx(metrics.recall_score(~labels, ~positive))
    assert measured["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert measured["average_precision"] == pytest.approx(
        metrics.average_precision_score(labels, scores)
    )


def test_without_positives_ranking_is_undefined_and_f1_is_none() -> None:
    measured = frame_measures(np.array([0.2, 0.7]), np.zeros(2, bool), 0.5)
    assert measured["roc_auc"] is None
    assert measured["average_precision"] is None
    assert (measured["f1"], measured["recall"], measured["accuracy"]) == (0, 0, 0.5)


def test_rates_of_many_counts_at_once() -> None:
    measured = rates(np.array([[1, 0, 0, 3], [0, 0, 0, 5]]))
    assert measured["f1"].tolist() == [1, 0]
    assert measured["specificity"].tolist() == [1, 1]


def test_the_best_threshold_has_the_highest_f1(scores: np.ndarray, labels: np.ndarray) -> None:
    chosen = best_threshold(scores, labels)
    f1 = {score: metrics.f1_score(labels, scores >= score) for score in np.unique(scores)}
    assert f1[np.float32(chosen)] == pytest.approx(max(f1.values()))
    assert best_threshold(scores, np.zeros(200, bool)) == 0.5


def test_the_picked_frame_is_the_first_of_the_best_candidates() -> None:
    quality = np.array([0.9, 0.2, 0.7, 0.7])
    assert picked_frame(quality, np.array([False, True, True, True])) == 2
    assert picked_frame(quality, np.zeros(4, bool)) == -1


def test_wfss_of_a_picked_frame() -> None:
    both, suboptimal_only = np.array([0, 1, 2, 0, 0, 0]), np.array([0, 1, 0, 0, 0, 0])
    assert [wfss_of(frame, both) for frame in (-1, 0, 1, 2)] == [0, 0, 0.6, 1]
    assert wfss_of(1, suboptimal_only) == 1


def test_quality_measures_are_scipys_and_know_ties() -> None:
    generator = np.random.default_rng(2)
    truth = np.array([0.0, 0.6, 1.0])[generator.integers(0, 3, 90)]
    predicted = np.round(truth * 0.5 + generator.random(90) * 0.5, 1).astype(np.float32)
    case = np.repeat([0, 1, 2], 30)
    measured = quality_measures(predicted, truth, case)
    assert measured["plcc"] == pytest.approx(stats.pearsonr(predicted, truth).statistic, abs=1e-6)
    assert measured["srocc"] == pytest.approx(stats.spearmanr(predicted, truth).statistic)
    assert measured["krocc"] == pytest.approx(
        stats.kendalltau(predicted, truth, variant="b").statistic
    )
    assert measured["mae"] == pytest.approx(np.abs(predicted - truth).mean())
    assert measured["rmse"] == pytest.approx(np.sqrt(((predicted - truth) ** 2).mean()))
    by_case = [stats.kendalltau(predicted[case == k], truth[case == k]).statistic for k in range(3)]
    assert measured["case_krocc"] == pytest.approx(np.mean(by_case))


def test_a_case_without_variation_has_no_correlation() -> None:
    predicted = np.array([0.1, 0.2, 0.3, 0.5, 0.5, 0.5])
    truth = np.array([0.0, 0.6, 1.0, 0.0, 0.6, 1.0])
    measured = quality_measures(predicted, truth, np.array([0, 0, 0, 1, 1, 1]))
    assert measured["case_srocc"] == pytest.approx(1)
    constant = quality_measures(np.full(6, 0.5), truth, np.array([0, 0, 0, 1, 1, 1]))
    assert constant["plcc"] is None
    assert constant["case_plcc"] is None
    assert constant["mae"] is not None


def test_the_bootstrap_of_a_mean_is_evaluations() -> None:
    values = np.random.default_rng(3).random(12)
    subject = np.array([0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 6, 7])
    ends = interval(mean_draws(values.tolist(), subject, subject_draws(8)))
    expected = mean_intervals(values[:, None], [str(number) for number in subject])
    assert expected is not None
    assert ends == pytest.approx(expected[0].tolist())


def test_ranking_draws_are_scikit_learns_weighted(scores: np.ndarray, labels: np.ndarray) -> None:
    subject = np.arange(200) // 20
    draws = subject_draws(10, resamples=70)
    auc, precision = ranking_draws(scores, labels, subject, draws)
    for k in (0, 33, 69):
        weight = draws[k, subject]
        expected = metrics.roc_auc_score(labels, scores, sample_weight=weight)
        assert auc[k] == pytest.approx(expected)
        expected = metrics.average_precision_score(labels, scores, sample_weight=weight)
        assert precision[k] == pytest.approx(expected)


def test_counts_of_a_draw_are_those_of_its_subjects(scores: np.ndarray, labels: np.ndarray) -> None:
    positive, subject = scores >= 0.5, np.arange(200) // 20
    columns = [positive & labels, positive & ~labels, ~positive & labels, ~positive & ~labels]
    sums = sums_by_subject(np.stack(columns, axis=1).astype(float), subject, 10)
    assert sums.sum(axis=0).tolist() == confusion(positive, labels).tolist()
    draw = subject_draws(10, resamples=1)
    repeated = np.repeat(np.arange(200), draw[0, subject])
    f1 = metrics.f1_score(labels[repeated], positive[repeated])
    assert rates(draw @ sums)["f1"][0] == pytest.approx(f1)


def test_undefined_draws_are_left_out() -> None:
    assert interval(np.array([np.nan, 0.2, 0.2])) == (0.2, 0.2)
    assert interval(np.array([np.nan])) is None
