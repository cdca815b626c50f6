"""From held-out logits to probabilities, an uncertain band and error rates. Pure; labels are 1 for generated."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.config import DetectorCalibration

MAX_DECIDED_ERROR = 0.02  # outside the uncertain band, on the calibration data
NARROWEST_BAND = 0.65  # the band reaches from 1 - this to this at least,
WIDEST_BAND = 0.98  # and to this at most
NUM_BINS = 15


def fit_platt(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(scale, bias) that maximise the likelihood of labels [N] under sigmoid(scale * logits + bias).

    Targets are smoothed by one pseudo-count (Platt 1999), so that separable data give finite values. A detector that
    ranks worse than chance gets a scale of almost zero instead of being turned round.
    """
    x, positive = logits.double(), labels.bool()
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    high, low = (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2)
    targets = torch.where(positive, high, low).double()
    unit = x.std().clamp_min(1e-6)
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(parameters[0] * (x / unit) + parameters[1], targets)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scale, bias = (parameters.detach() / torch.stack([unit, torch.ones_like(unit)])).tolist()
    return (scale, bias) if scale > 1e-3 else (1e-3, math.log((num_positive + 1) / (num_negative + 1)))


def calibrate(valid: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> DetectorCalibration:
    """(logits [N], labels [N]) twice: scaling and band from the first, error rates at the threshold from the second.

    The threshold is a probability of one half: least cost where both errors cost the same and both kinds are as common.
    """
    scale, bias = fit_platt(*valid)
    low, high = uncertain_band(torch.sigmoid(scale * valid[0].double() + bias), valid[1])
    probabilities = torch.sigmoid(scale * test[0].double() + bias)
    false_positives, false_negatives = error_rates(probabilities, test[1], 0.5)
    return DetectorCalibration(
        scale=scale,
        bias=bias,
        threshold=0.5,
        uncertain_low=low,
        uncertain_high=high,
        false_positive_rate=false_positives,
        false_negative_rate=false_negatives,
        num_originals=int((test[1] == 0).sum()),
        num_generated=int((test[1] == 1).sum()),
    )


def uncertain_band(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """The narrowest band about one half (symmetric) outside which at most 2 % of the calibration clips are wrong."""
    confidence = torch.maximum(probabilities, 1 - probabilities).double()
    order = confidence.argsort(descending=True)
    wrong = ((probabilities >= 0.5) != labels.bool())[order].double()
    rate = wrong.cumsum(0) / torch.arange(1, len(wrong) + 1)
    good = (rate <= MAX_DECIDED_ERROR).nonzero()
    high = float(confidence[order[good[-1, 0]]]) if len(good) else WIDEST_BAND
    high = min(max(high, NARROWEST_BAND), WIDEST_BAND)
    return 1.0 - high, high


def error_rates(probabilities: Tensor, labels: Tensor, threshold: float) -> tuple[float, float]:
    """(share of originals called generated, share of generated clips missed)."""
    positive = labels.bool()
    called = probabilities >= threshold
    return float(called[~positive].double().mean()), float((~called[positive]).double().mean())


def equal_error_rate(scores: Tensor, labels: Tensor) -> float:
    """The error rate at the threshold where both kinds of error are equally frequent."""
    positive = labels.bool()
    thresholds = torch.cat([scores, scores.max()[None] + 1]).unique()
    misses = torch.searchsorted(scores[positive].sort().values, thresholds) / positive.sum()
    alarms = 1 - torch.searchsorted(scores[~positive].sort().values, thresholds) / (~positive).sum()
    best = (misses - alarms).abs().argmin()
    return float((misses[best] + alarms[best]) / 2)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error over 15 bins of equal width."""
    bins = (probabilities * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    total = 0.0
    for index in bins.unique():
        inside = bins == index
        gap = (probabilities[inside].double().mean() - labels[inside].double().mean()).abs()
        total += float(gap) * float(inside.double().mean())
    return total
