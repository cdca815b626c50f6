"""Intervals and tests over items: bootstrap (B. Efron, 1979), Wilson's interval of a rate, a permutation test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from audiolm.errors import EvaluationError
from audiolm.intervals import Z_95, Interval, wilson_interval

CONFIDENCE = 0.95
NUM_DRAWS = 2000
NUM_PERMUTATIONS = 9999


def mean_interval(values: Sequence[float | None] | ArrayLike, seed: int = 0) -> Interval:
    """Mean over items, percentile bootstrap. None and NaN are left out, and out of n.

    Raises EvaluationError where nothing is left.
    """
    kept = np.array([value for value in values if value is not None and not np.isnan(value)], dtype=float)
    if not kept.size:
        raise EvaluationError("no item gave a value")
    return ratio_interval(kept, np.ones_like(kept), seed)


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """Sum of `numerators` [n] over sum of `denominators` [n], percentile bootstrap over items."""
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    return _percentile(len(above), lambda weights: (weights @ above) / (weights @ below), seed)


def rate_interval(successes: ArrayLike) -> Interval:
    """Wilson's interval of a mean of values in [0, 1]; values between 0 and 1 make it wider than need be.

    Unlike the bootstrap it has a width where every item succeeds. Raises EvaluationError without values.

    >>> [round(x, 3) for x in (rate_interval([1] * 20).low, rate_interval([1] * 20).high)]
    [0.839, 1.0]
    """
    values = np.asarray(successes, dtype=float)
    if not values.size:
        raise EvaluationError("no item gave a value")
    return Interval(float(values.mean()), *wilson_interval(float(values.sum()), len(values)), len(values))


def grouped_rate(successes: ArrayLike, groups: ArrayLike, seed: int = 0) -> Interval:
    """Mean of values in [0, 1] [n]; of Wilson's interval and a bootstrap over whole groups [n] the wider end each side.

    Clips of one speaker or piece are right or wrong together: an interval over clips alone would be too narrow, and a
    bootstrap alone has no width where every clip is right. Raises EvaluationError without values.
    """
    values = np.asarray(successes, dtype=float)
    wilson = rate_interval(values)
    drawn = grouped_interval(lambda weights: float(weights @ values / weights.sum()), groups, seed)
    low, high = (
        (wilson.low, wilson.high) if drawn.low is None else (min(wilson.low, drawn.low), max(wilson.high, drawn.high))
    )
    return Interval(wilson.value, low, high, wilson.n)


def grouped_ratio(numerators: ArrayLike, denominators: ArrayLike, groups: ArrayLike, seed: int = 0) -> Interval:
    """Sum of `numerators` [n] over sum of `denominators` [n], percentile bootstrap over whole groups [n]."""
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    return grouped_interval(lambda weights: float((weights @ above) / (weights @ below)), groups, seed)


def grouped_gain(nats: ArrayLike, baseline: ArrayLike, groups: ArrayLike, seed: int = 0) -> Interval:
    """Share by which the sum of `nats` [n] lies under that of `baseline` [n], percentile bootstrap over groups [n]."""
    other = np.asarray(baseline, dtype=float)
    return grouped_ratio(other - np.asarray(nats, dtype=float), other, groups, seed)


def grouped_interval(
    statistic: Callable[[np.ndarray], float], groups: ArrayLike, seed: int = 0, draws: int = NUM_DRAWS // 2
) -> Interval:
    """What maps item weights [n] to a value, percentile bootstrap over the groups [n] that the items belong to."""
    place = np.unique(groups, return_inverse=True)[1]
    value, num_groups = statistic(np.ones(len(place))), int(place.max()) + 1
    if num_groups < 2:
        return Interval(value, None, None, len(place))
    drawn = [statistic(weights[place]) for weights in item_weights(num_groups, draws, seed)]
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(value, float(low), float(high), len(place))


def normal_intervals(
    statistic: Callable[[np.ndarray], ArrayLike], groups: ArrayLike, seed: int = 0, draws: int = 200
) -> list[Interval]:
    """Estimate +- 1.96 bootstrap standard errors over groups [n], for what maps item weights [n] to values [m].

    For statistics such as an entropy, whose value on a draw with repetitions is biased: percentiles of the draws would
    lie beside the estimate.
    """
    place = np.unique(groups, return_inverse=True)[1]
    n, num_groups = len(place), int(place.max()) + 1
    estimate = np.atleast_1d(statistic(np.ones(n)))
    if num_groups < 2:
        return [Interval(float(value), None, None, n) for value in estimate]
    drawn = np.stack([np.atleast_1d(statistic(weights[place])) for weights in item_weights(num_groups, draws, seed)])
    margin = Z_95 * drawn.std(axis=0, ddof=1)
    return [Interval(float(v), float(v - m), float(v + m), n) for v, m in zip(estimate, margin, strict=True)]


def item_weights(n: int, draws: int = NUM_DRAWS, seed: int = 0) -> np.ndarray:
    """[draws, n]: how often each of n items comes in each bootstrap draw."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=draws).astype(float)


def pairing_p_value(distances: ArrayLike, seed: int = 0, permutations: int = NUM_PERMUTATIONS) -> float:
    """distances [n, n] of prompt i and continuation j -> one-sided p that the pairing i = i is no closer than chance.

    Permutation test of the mean over the diagonal; the smallest possible value is 1 / (permutations + 1).
    """
    matrix = np.asarray(distances, dtype=float)
    n = len(matrix)
    generator = np.random.default_rng(seed)
    rows = np.arange(n)
    observed = matrix[rows, rows].mean()
    shuffled = np.array([matrix[rows, generator.permutation(n)].mean() for _ in range(permutations)])
    return float((1 + (shuffled <= observed + 1e-12).sum()) / (1 + permutations))


def _percentile(n: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> Interval:
    if n == 0:
        raise EvaluationError("no item gave a value")
    value = float(statistic(np.ones((1, n)))[0])
    if n == 1:
        return Interval(value, None, None, 1)
    low, high = np.quantile(statistic(item_weights(n, seed=seed)), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(value, float(low), float(high), n)
