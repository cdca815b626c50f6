"""Pure arithmetic of detection scores: error rates over all thresholds, costs, calibration. NumPy arrays throughout.

`scores` [N] rise with "generated", `generated` [N] bool is the truth, `weights` [N] >= 0 count items more or less than
once (bootstrap draws); both kinds must weigh more than nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

NUM_BINS = 15


@dataclass(frozen=True)
class DetCurve:
    """At each of M rising thresholds, called generated from there on: shares missed and falsely called [M].

    The first threshold calls everything, the last (infinite) nothing.
    """

    thresholds: np.ndarray
    misses: np.ndarray
    alarms: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """How common generated clips are, and what a miss and a false alarm cost."""

    prior: float
    miss_cost: float = 1.0
    alarm_cost: float = 1.0

    @property
    def log_odds(self) -> float:
        """The Bayes threshold on log odds that were calibrated where both kinds are as common."""
        return float(np.log(self.alarm_cost * (1.0 - self.prior) / (self.miss_cost * self.prior)))

    def cost(self, misses: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        """Expected cost over that of the better constant answer: 0 is perfect, 1 no better than not listening."""
        miss, alarm = self.miss_cost * self.prior, self.alarm_cost * (1.0 - self.prior)
        return (miss * misses + alarm * alarms) / min(miss, alarm)


def det_curve(scores: np.ndarray, generated: np.ndarray, weights: np.ndarray | None = None) -> DetCurve:
    """Every distinct decision that a threshold can make."""
    order = np.argsort(scores, kind="stable")
    ranked, positive = scores[order], generated[order]
    weight = np.ones(len(scores)) if weights is None else weights[order].astype(float)
    firsts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    cuts = np.r_[firsts, len(ranked)]
    misses, kept = (np.r_[0.0, np.cumsum(weight * kind)][cuts] / (weight @ kind) for kind in (positive, ~positive))
    return DetCurve(np.r_[ranked[firsts], np.inf], misses, 1.0 - kept)


def equal_error_rate(scores: np.ndarray, generated: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Where misses and false alarms are equally frequent, on straight lines between the points of the curve."""
    curve = det_curve(scores, generated, weights)
    gap = curve.misses - curve.alarms  # rises from -1 to 1
    after = int(np.argmax(gap >= 0.0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(curve.misses[after - 1] + share * (curve.misses[after] - curve.misses[after - 1]))


def minimum_cost(point: OperatingPoint, curve: DetCurve) -> float:
    """The least normalised detection cost (NIST's minDCF) that any threshold reaches."""
    return float(point.cost(curve.misses, curve.alarms).min())


def actual_cost(point: OperatingPoint, log_odds: np.ndarray, generated: np.ndarray) -> float:
    """The normalised detection cost (NIST's actDCF) at the threshold that calibrated log odds call for."""
    called = log_odds >= point.log_odds
    return float(point.cost(np.mean(~called[generated]), np.mean(called[~generated])))


def log_likelihood_cost(log_odds: np.ndarray, generated: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Cllr in bits (N. Brummer and J. du Preez, 2006): 0 is perfect, 1 is what an uninformed score has."""
    weight = np.ones(len(log_odds)) if weights is None else weights
    bits = np.logaddexp(0.0, np.where(generated, -log_odds, log_odds)) / np.log(2.0)
    return float(sum(np.average(bits[kind], weights=weight[kind]) for kind in (generated, ~generated)) / 2.0)


def minimum_log_likelihood_cost(scores: np.ndarray, generated: np.ndarray) -> float:
    """Cllr after the best rising calibration of these scores (pool adjacent violators): what ranking alone costs."""
    distinct, place = np.unique(scores, return_inverse=True)
    num_generated, num_all = np.bincount(place, generated, len(distinct)), np.bincount(place, minlength=len(distinct))
    share = isotonic_regression(num_generated / num_all, weights=num_all).x[place]
    prior = generated.mean()
    with np.errstate(divide="ignore"):  # shares of 0 and 1 are certain, and right
        log_odds = np.log(share) - np.log1p(-share) - np.log(prior / (1.0 - prior))
    return log_likelihood_cost(log_odds, generated)


def reliability(
    probabilities: np.ndarray, generated: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over 15 bins of equal width: mean probability, share of generated clips, and weight; each [15], empty bins 0."""
    weight = np.ones(len(probabilities)) if weights is None else weights
    bins = np.minimum((probabilities * NUM_BINS).astype(int), NUM_BINS - 1)
    total = np.bincount(bins, weight, NUM_BINS)
    divisor = np.where(total > 0.0, total, 1.0)
    means, shares = (np.bincount(bins, weight * x, NUM_BINS) / divisor for x in (probabilities, generated))
    return means, shares, total


def calibration_error(probabilities: np.ndarray, generated: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Expected calibration error: the mean gap between mean probability and share of generated clips over the bins."""
    means, shares, total = reliability(probabilities, generated, weights)
    return float(np.abs(means - shares) @ total / total.sum())
