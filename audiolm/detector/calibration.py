"""From held-out logits to probabilities, an uncertain band and error rates. Pure; labels are 1 for generated.

Both kinds count the same, however many clips there are of each: every fit and every share weighs them so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.config import DetectorCalibration, LengthRates
from audiolm.detector.verdict import probability_of
from audiolm.intervals import wilson_interval

BAND_ERROR = 0.014  # outside the band, on the calibration data: upper end of the 95 % interval over clips
NARROWEST_BAND = 0.65  # the band reaches from 1 - this to this at least,
WIDEST_BAND = 0.98  # and to this at most
CHANGED_SHARE = 0.05  # of the clips that scaling counts on: as if one in twenty had been changed
NUM_BINS = 15
GROWTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_SCALE = 1e-3
RIDGE_STEPS = 60


@dataclass(frozen=True)
class Scored:
    """What the branches said of N held-out clips: logits [N, K], their length in seconds, labels [N]."""

    logits: Tensor
    seconds: Tensor
    labels: Tensor


def shares(labels: Tensor) -> Tensor:
    """[N] weights that add up to one half for each kind."""
    positive = labels.bool()
    counts = torch.where(positive, positive.sum(), (~positive).sum())
    return 0.5 / counts.double()


def fit_weights(scored: Scored, longest_s: float) -> tuple[Tensor, float, float]:
    """(weights [K], growth, loss) of the fused logit sum_k w_k x_k * (min(seconds, longest_s) / longest_s) ** growth.

    None below zero; chosen for the likelihood of the labels, over all lengths that were scored; the loss is in nats.
    Long clips bring more evidence than short ones: `growth` says how fast it grows.
    """
    best: tuple[float, Tensor, float] | None = None
    for growth in GROWTHS:
        lengths = (scored.seconds.double().clamp_max(longest_s) / longest_s) ** growth
        x = scored.logits.double() * lengths[:, None]
        weights, _, loss = _fit_logistic(x, scored.labels, shares(scored.labels))
        if best is None or loss < best[0]:
            best = loss, weights, growth
    return best[1], best[2], best[0]


@dataclass(frozen=True)
class Ridge:
    """sigmoid(x @ weights + bias + factor * offset): weights [E]; the factor is 0 where there was no offset."""

    weights: Tensor
    bias: float
    factor: float


def fit_ridge(x: Tensor, labels: Tensor, penalty: float, offset: Tensor | None = None) -> Ridge:
    """A ridge logistic regression of x [N, E], of unit variance, with labels [N].

    The penalty counts as much as so many items at one nat. With logits `offset` [N] it learns what these leave open
    (stacking, Wolpert 1992); their factor is fitted too, and costs nothing.
    """
    wanted, counted = labels.double(), shares(labels)
    more = [torch.ones(len(x))] if offset is None else [torch.ones(len(x)), offset]
    columns = torch.cat([x.double(), torch.stack(more, dim=1).double()], dim=1)
    parameters = torch.zeros(columns.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=RIDGE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(columns @ parameters, wanted, counted, reduction="sum")
        value = value + penalty / len(x) * parameters[: x.shape[1]].square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    weights, rest = parameters.detach().split([x.shape[1], len(more)])
    return Ridge(weights.float(), float(rest[0]), 0.0 if offset is None else float(rest[1]))


def fit_platt(logits: Tensor, labels: Tensor, counted: Tensor | None = None) -> tuple[float, float]:
    """(scale, bias) that maximise the likelihood of labels [N] under sigmoid(scale * logits + bias).

    `counted` [N] are the clips' weights, which add up to 1 (None: `shares`). Targets are smoothed by one pseudo-count
    (Platt 1999), so that separable data give finite values. A detector that ranks worse than chance gets a scale of
    almost zero instead of being turned round.
    """
    weights, bias, _ = _fit_logistic(logits.double()[:, None], labels, shares(labels) if counted is None else counted)
    return max(float(weights[0]), LEAST_SCALE), bias


def _fit_logistic(x: Tensor, labels: Tensor, counted: Tensor) -> tuple[Tensor, float, float]:
    """x [N, K], labels and what they count [N] -> (weights [K] >= 0, bias, loss in nats)."""
    positive = labels.bool()
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    targets = torch.where(positive, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2)).double()
    unit = x.std(dim=0).clamp_min(1e-6)
    parameters = torch.full((x.shape[1] + 1,), 0.5, dtype=torch.float64)
    parameters[-1] = 0.0
    parameters.requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        scores = (x / unit) @ parameters[:-1].square() + parameters[-1]
        return F.binary_cross_entropy_with_logits(scores, targets, counted, reduction="sum")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        return parameters[:-1].square() / unit, float(parameters[-1]), float(loss())


def calibrate(
    valid: Scored, changed: Scored, test: Scored, whole_s: float, band_error: float = BAND_ERROR
) -> DetectorCalibration:
    """Scaling and band from fused logits [N] of one split, error rates by length from those of another.

    The scaling is that of clips of `whole_s` as they are and of `changed` ones, whatever these last, as if
    `CHANGED_SHARE` of all were changed: the more of them, the more generated clips are known after what happens to
    files, and the fewer short originals. The band is one for all lengths, the wider of what clips as they are ask for
    and what `changed` ones do. The threshold is a probability of one half: least cost where both errors cost the same
    and both kinds are as common.
    """
    whole = valid.seconds >= whole_s
    labels = valid.labels[whole]
    counted = torch.cat([(1.0 - CHANGED_SHARE) * shares(labels), CHANGED_SHARE * shares(changed.labels)])
    logits, labels = torch.cat([valid.logits[whole], changed.logits]), torch.cat([labels, changed.labels])
    scale, bias = fit_platt(logits, labels, counted)
    calibration = DetectorCalibration(scale=scale, bias=bias)
    high = max(uncertain_from(probability_of(calibration, x.logits), x.labels, band_error) for x in (valid, changed))
    calibration = dataclasses.replace(calibration, uncertain_low=1.0 - high, uncertain_high=high)
    by_length = (length_rates(calibration, test, float(seconds)) for seconds in test.seconds.unique())
    return dataclasses.replace(calibration, by_length=tuple(by_length))


def length_rates(calibration: DetectorCalibration, scored: Scored, seconds: float) -> LengthRates:
    """What the verdicts on clips of one length are worth."""
    chosen = scored.seconds == seconds
    probabilities, labels = probability_of(calibration, scored.logits[chosen]), scored.labels[chosen]
    wrong = (probabilities >= calibration.threshold) != labels.bool()
    decided = (probabilities <= calibration.uncertain_low) | (probabilities >= calibration.uncertain_high)
    false_positives, false_negatives = error_rates(probabilities, labels, calibration.threshold)
    counted = shares(labels)[decided]
    return LengthRates(
        seconds=seconds,
        false_positive_rate=false_positives,
        false_negative_rate=false_negatives,
        num_originals=int((labels == 0).sum()),
        num_generated=int((labels == 1).sum()),
        wrong_rate=float(counted @ wrong[decided].double() / counted.sum()) if bool(decided.any()) else 0.0,
        num_decided=int(decided.sum()),
    )


def uncertain_from(probabilities: Tensor, labels: Tensor, band_error: float = BAND_ERROR) -> float:
    """Upper end of the narrowest band about one half (symmetric) outside which `band_error` at most are wrong, surely.

    `WIDEST_BAND` at most, whether that is enough or not.
    """
    confidence = torch.maximum(probabilities, 1 - probabilities).double()
    order = confidence.argsort(descending=True)
    wrong, counted = ((probabilities >= 0.5) != labels.bool())[order], shares(labels)[order]
    rate = (wrong * counted).cumsum(0) / counted.cumsum(0)
    most = [wilson_interval(float(share) * count, count)[1] for count, share in enumerate(rate, start=1)]
    good = (torch.tensor(most) <= band_error).nonzero()
    if not len(good):
        return WIDEST_BAND
    last = int(good[-1, 0])
    high = 0.5 if last == len(order) - 1 else float(confidence[order[last]])
    return min(max(high, NARROWEST_BAND), WIDEST_BAND)


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
    bins, counted = (probabilities * NUM_BINS).long().clamp(0, NUM_BINS - 1), shares(labels)
    gaps = counted * (probabilities.double() - labels.double())
    return float(sum(gaps[bins == index].sum().abs() for index in bins.unique()))
