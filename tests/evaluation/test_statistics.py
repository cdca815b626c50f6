import numpy as np
import pytest
from scipy.stats import binomtest

from audiolm.errors import EvaluationError
from audiolm.evaluation.statistics import (
    grouped_gain,
    grouped_ratio,
    item_weights,
    mean_interval,
    normal_intervals,
    pairing_p_value,
    rate_interval,
    ratio_interval,
)


def test_a_mean_lies_within_an_interval_of_about_two_standard_errors():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = mean_interval(values)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)


def test_missing_values_are_left_out_of_the_count():
    interval = mean_interval([1.0, None, 3.0, float("nan")])
    assert (interval.value, interval.n) == (2.0, 2)


def test_one_item_has_no_interval():
    assert mean_interval([7.0]).low is None


def test_nothing_is_refused_with_a_reason():
    with pytest.raises(EvaluationError, match="no item"):
        mean_interval([None])
    with pytest.raises(EvaluationError, match="no item"):
        rate_interval([])


def test_a_ratio_weighs_items_by_their_size():
    assert ratio_interval([1.0, 30.0], [1.0, 10.0]).value == pytest.approx(31 / 11)


def test_a_gain_is_the_share_saved():
    interval = grouped_gain([9.0, 18.0], [10.0, 20.0], ["a", "b"])
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_grouped_ratio_counts_items_and_has_the_width_of_its_groups():
    values, groups = np.repeat([1.0, 2.0, 3.0, 4.0], 50), np.repeat(list("abcd"), 50)
    found, alone = grouped_ratio(values, np.ones(200), groups), ratio_interval(values, np.ones(200))
    assert (found.value, found.n) == (alone.value, alone.n) == (2.5, 200)
    assert found.high - found.low > 5 * (alone.high - alone.low)
    assert grouped_ratio(values, np.ones(200), ["one"] * 200).low is None


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 10), (50, 50), (70, 100)])
def test_rates_have_wilsons_interval(successes, n):
    interval = rate_interval([1] * successes + [0] * (n - successes))
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_same_seed_draws_the_same_items():
    assert (item_weights(5, 10, seed=3) == item_weights(5, 10, seed=3)).all()
    assert (item_weights(5, 10).sum(axis=1) == 5).all()


def test_the_normal_interval_is_centred_where_draws_are_biased():
    def distinct(weights):
        return np.array([(weights > 0).sum()], dtype=float)  # every draw has fewer distinct items than there are

    (interval,) = normal_intervals(distinct, np.arange(100))
    assert interval.value == 100
    assert interval.low < 100 < interval.high


def test_the_normal_interval_has_the_width_of_its_groups():
    values = np.repeat([1.0, 2.0, 3.0, 4.0], 50)
    mean = lambda weights: weights @ values / weights.sum()  # noqa: E731
    (grouped,), (alone,) = normal_intervals(mean, np.repeat(list("abcd"), 50)), normal_intervals(mean, np.arange(200))
    assert (grouped.value, grouped.n) == (alone.value, alone.n) == (2.5, 200)
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)
    assert normal_intervals(mean, ["one"] * 200)[0].low is None


def test_a_true_pairing_has_a_small_p_and_a_random_one_has_not():
    generator = np.random.default_rng(0)
    prompts = generator.normal(size=30)
    close, foreign = prompts + 0.1 * generator.normal(size=30), generator.normal(size=30)
    assert pairing_p_value(np.abs(prompts[:, None] - close[None]), permutations=999) == 1 / 1000
    assert pairing_p_value(np.abs(prompts[:, None] - foreign[None]), permutations=999) > 0.05
