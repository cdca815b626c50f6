"""The arithmetic of scores against independent formulas: brute force, scipy, sklearn's curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import binomtest

from audiolm.evaluation.detection.boundary import weighted_median
from audiolm.evaluation.detection.scores import (
    OperatingPoint,
    actual_cost,
    calibration_error,
    det_curve,
    equal_error_rate,
    log_likelihood_cost,
    minimum_cost,
    minimum_log_likelihood_cost,
    reliability,
)
from audiolm.evaluation.detection.shortcuts import best_threshold
from audiolm.evaluation.statistics import grouped_interval, grouped_rate


def draw(seed: int, n: int = 60, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    generated = generator.random(n) < 0.4
    scores = generator.normal(size=n) + 1.2 * generated
    return (np.round(scores, 1) if ties else scores), generated


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_the_det_curve_counts_errors_at_every_threshold(seed, ties):
    scores, generated = draw(seed, ties=ties)
    curve = det_curve(scores, generated)
    for threshold, miss, alarm in zip(curve.thresholds, curve.misses, curve.alarms, strict=True):
        assert miss == pytest.approx(np.mean(scores[generated] < threshold))
        assert alarm == pytest.approx(np.mean(scores[~generated] >= threshold))
    assert (curve.misses[0], curve.alarms[0], curve.misses[-1], curve.alarms[-1]) == (0.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_equal_error_rate_is_where_an_interpolated_roc_meets_the_diagonal(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, generated = draw(seed)
    alarms, hits, _ = metrics.roc_curve(generated, scores, drop_intermediate=False)
    expected = brentq(lambda rate: 1.0 - rate - interp1d(alarms, hits)(rate), 0.0, 1.0)
    # On steps brentq may stop anywhere within a jump of the curve: one clip of either kind.
    assert equal_error_rate(scores, generated) == pytest.approx(expected, abs=1.0 / (~generated).sum())


def test_equal_error_rates_of_known_cases():
    generated = np.array([True, True, False, False])
    assert equal_error_rate(np.array([3.0, 2.0, 1.0, 0.0]), generated) == 0.0
    assert equal_error_rate(np.array([0.0, 1.0, 2.0, 3.0]), generated) == 1.0
    assert equal_error_rate(np.zeros(4), generated) == 0.5
    assert equal_error_rate(np.array([3.0, 1.0, 2.0, 0.0]), generated) == 0.5


def test_weights_count_items_as_often_as_they_weigh():
    scores, generated = draw(7, ties=True)
    weights = np.random.default_rng(1).integers(1, 4, size=len(scores))
    repeated, labels = np.repeat(scores, weights), np.repeat(generated, weights)
    assert equal_error_rate(scores, generated, weights) == pytest.approx(equal_error_rate(repeated, labels))
    assert log_likelihood_cost(scores, generated, weights) == pytest.approx(log_likelihood_cost(repeated, labels))
    shares = 1 / (1 + np.exp(-scores))
    error = calibration_error(np.repeat(shares, weights), labels)
    assert calibration_error(shares, generated, weights) == pytest.approx(error)


@pytest.mark.parametrize("prior", [0.05, 0.5, 0.9])
def test_costs_are_those_of_counting_every_threshold(prior):
    scores, generated = draw(3)
    point = OperatingPoint(prior, miss_cost=2.0)

    def cost(threshold: float) -> float:
        miss, alarm = np.mean(scores[generated] < threshold), np.mean(scores[~generated] >= threshold)
        return (2.0 * prior * miss + (1.0 - prior) * alarm) / min(2.0 * prior, 1.0 - prior)

    assert minimum_cost(point, det_curve(scores, generated)) == pytest.approx(
        min(cost(threshold) for threshold in [*scores, np.inf])
    )
    assert actual_cost(point, scores, generated) == pytest.approx(cost(np.log((1.0 - prior) / (2.0 * prior))))
    assert minimum_cost(point, det_curve(scores, generated)) <= 1.0


def test_cllr_is_one_without_information_and_its_formula_otherwise():
    scores, generated = draw(5)
    assert log_likelihood_cost(np.zeros(60), generated) == pytest.approx(1.0)
    ratios = np.exp(scores)
    expected = (np.mean(np.log2(1 + 1 / ratios[generated])) + np.mean(np.log2(1 + ratios[~generated]))) / 2
    assert log_likelihood_cost(scores, generated) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_the_minimum_cllr_is_that_of_the_min_max_formula_of_isotonic_regression(ties):
    scores, generated = draw(11, ties=ties)
    distinct = np.unique(scores)
    sums = np.array([generated[scores == value].sum() for value in distinct])
    counts = np.array([(scores == value).sum() for value in distinct])
    fitted = [
        max(min(sums[a : b + 1].sum() / counts[a : b + 1].sum() for b in range(i, len(distinct))) for a in range(i + 1))
        for i in range(len(distinct))
    ]
    share = np.array(fitted)[np.searchsorted(distinct, scores)]
    prior = generated.mean()
    with np.errstate(divide="ignore"):
        log_odds = np.log(share / (1 - share)) - np.log(prior / (1 - prior))
    expected = log_likelihood_cost(log_odds, generated)
    assert minimum_log_likelihood_cost(scores, generated) == pytest.approx(expected)
    assert expected <= log_likelihood_cost(scores, generated)
    assert minimum_log_likelihood_cost(np.exp(scores), generated) == pytest.approx(expected)


def test_the_calibration_error_is_the_weighted_gap_of_the_bins():
    probabilities = np.array([0.01, 0.02, 0.99, 0.98, 0.5])
    generated = np.array([False, True, True, True, False])
    gaps = abs(0.5 - 0.015) * 2 + abs(1.0 - 0.985) * 2 + 0.5
    assert calibration_error(probabilities, generated) == pytest.approx(gaps / 5)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    means, shares, total = reliability(probabilities, generated)
    assert total.sum() == 5
    assert (means[0], shares[0], total[0]) == (pytest.approx(0.015), 0.5, 2)


def test_a_grouped_rate_is_wilsons_where_all_clips_agree_and_wider_where_groups_do():
    all_right = grouped_rate([True] * 40, np.repeat(np.arange(8), 5))
    wilson = binomtest(40, 40).proportion_ci(method="wilson")
    assert (all_right.low, all_right.high) == (pytest.approx(wilson.low), pytest.approx(1.0))
    groups = np.repeat(np.arange(8), 25)
    together = grouped_rate(groups < 4, groups)
    wilson = binomtest(100, 200).proportion_ci(method="wilson")
    assert together.low < wilson.low - 0.1
    assert together.high > wilson.high + 0.1
    alone = grouped_rate([True, False, True], ["one"] * 3)
    wilson = binomtest(2, 3).proportion_ci(method="wilson")
    assert (alone.low, alone.high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))


def test_a_grouped_interval_has_the_width_of_means_of_groups():
    generator = np.random.default_rng(0)
    values, groups = generator.normal(size=40).repeat(10), np.arange(40).repeat(10)
    interval = grouped_interval(lambda weights: float(np.average(values, weights=weights)), groups)
    margin = 1.96 * values[::10].std(ddof=1) / np.sqrt(40)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * margin, rel=0.15)


def test_a_weighted_median_is_that_of_repeated_values():
    generator = np.random.default_rng(2)
    values, weights = generator.normal(size=21), generator.integers(0, 4, size=21)
    weights[0] += 1 - weights.sum() % 2  # an odd number: the median is one of them
    assert weighted_median(values, weights.astype(float)) == np.median(np.repeat(values, weights))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_is_right_as_often_as_any(seed):
    values, generated = draw(seed, ties=True)
    for figures in (values, -values):
        threshold, above = best_threshold(figures, generated)
        found = np.mean(((figures >= threshold) == above) == generated)
        edges = np.r_[-np.inf, figures, np.inf]
        every = [np.mean(((figures >= edge) == side) == generated) for edge in edges for side in (True, False)]
        assert found == pytest.approx(max(every))
