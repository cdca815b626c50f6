import math

import pytest
import torch

from audiolm.config import DetectorCalibration
from audiolm.detector.calibration import (
    Scored,
    calibrate,
    calibration_error,
    equal_error_rate,
    error_rates,
    fit_platt,
    fit_ridge,
    fit_weights,
    shares,
    uncertain_from,
)
from audiolm.detector.verdict import label_of, probability_of
from audiolm.intervals import wilson_interval


def drawn(count: int, seed: int, scale: float = 2.0, bias: float = -1.0, positives: float = 0.5) -> tuple:
    """Logits and labels whose calibration would be sigmoid(scale * logit + bias) if both kinds were as common."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4 * count, generator=generator) * 2 + 0.5
    labels = (torch.rand(4 * count, generator=generator) < torch.sigmoid(scale * logits + bias)).long()
    both = [(labels == kind).nonzero()[:, 0] for kind in (0, 1)]
    kept = torch.cat([both[0][: round(count * (1 - positives))], both[1][: round(count * positives)]])
    balance = math.log(len(both[0]) / len(both[1]))  # the kinds were not as common where they were drawn
    kept = kept[torch.randperm(len(kept), generator=generator)]
    return logits[kept] + balance / scale, labels[kept]


@pytest.mark.parametrize("positives", [0.5, 0.2])
def test_platt_scaling_finds_scale_and_bias_however_common_a_kind_is(positives):
    scale, bias = fit_platt(*drawn(20_000, 0, positives=positives))
    assert scale == pytest.approx(2.0, rel=0.08)
    assert bias == pytest.approx(-1.0, abs=0.1)


def test_ridge_regression_finds_what_tells_the_kinds_apart_and_stays_small():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4 == 0
    x = torch.randn(400, 30, generator=generator)
    x[:, 3] += 3 * labels
    ridge = fit_ridge(x, labels.float(), 10.0)
    assert int(ridge.weights.abs().argmax()) == 3
    logits = x @ ridge.weights + ridge.bias
    assert equal_error_rate(logits, labels.long()) < 0.1
    assert float(((logits > 0) != labels).float().mean()) < 0.1  # which a wrong bias would not allow
    assert ridge.factor == 0.0
    separable = fit_ridge(labels[:, None] * 2.0 - 1.0, labels.float(), 10.0)
    assert 0.5 < float(separable.weights[0]) < 5.0


def test_a_regression_learns_what_an_offset_leaves_open():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2_000) % 2 == 0
    signs, noise = 2.0 * labels - 1.0, torch.randn(3, 2_000, generator=generator)
    given, other = signs + noise[0], 0.7 * signs + noise[1]
    x = torch.stack([given + 0.3 * noise[2], other], dim=1)
    alone, beside = fit_ridge(x, labels.float(), 1.0), fit_ridge(x, labels.float(), 1.0, given)
    assert float(alone.weights[0]) > float(alone.weights[1])
    assert abs(float(beside.weights[0])) < 0.2 * float(alone.weights[0])
    assert float(beside.weights[1]) == pytest.approx(float(alone.weights[1]), rel=0.1)
    assert beside.factor == pytest.approx(2.0, rel=0.1)  # what Bayes asks for
    strict = fit_ridge(x, labels.float(), 1e5, given)
    assert float(strict.weights.norm()) < 0.1
    assert strict.factor == pytest.approx(2.0, rel=0.1)  # costs nothing


def test_separable_and_useless_logits_give_finite_calibrations():
    labels = torch.tensor([0] * 20 + [1] * 20)
    scale, bias = fit_platt(labels * 8.0 - 4.0, labels)
    assert math.isfinite(scale)
    assert 0.8 < float(torch.sigmoid(torch.tensor(4 * scale + bias))) < 1.0
    scale, _ = fit_platt(4.0 - labels * 8.0, labels)
    assert scale == 1e-3  # worse than chance is not turned round
    scale, bias = fit_platt(torch.zeros(40), labels)
    assert math.isfinite(scale + bias)


def scored(count: int, seed: int, seconds: float) -> Scored:
    logits, labels = drawn(count, seed)
    return Scored(logits, torch.full((len(logits),), seconds), labels)


def both(one: Scored, other: Scored) -> Scored:
    return Scored(
        *(torch.cat([getattr(part, name) for part in (one, other)]) for name in ("logits", "seconds", "labels"))
    )


def test_calibrated_probabilities_are_calibrated_and_the_rates_by_length_come_from_the_test_set():
    short, whole = scored(1_000, 2, 2.0), scored(3_000, 3, 6.0)
    valid = scored(4_000, 1, 6.0)
    calibration = calibrate(valid, valid, both(short, whole), 6.0)
    assert [rates.seconds for rates in calibration.by_length] == [2.0, 6.0]
    for part, rates in zip((short, whole), calibration.by_length, strict=True):
        probabilities = probability_of(calibration, part.logits)
        assert calibration_error(probabilities, part.labels) < 0.04
        assert (rates.false_positive_rate, rates.false_negative_rate) == error_rates(probabilities, part.labels, 0.5)
        assert rates.num_generated == int(part.labels.sum())
        answered = torch.tensor([label_of(calibration, float(p)) != "uncertain" for p in probabilities])
        assert rates.num_decided == int(answered.sum())
        wrong = (probabilities >= 0.5) != part.labels.bool()
        kinds = shares(part.labels)  # both kinds count the same, however many clips there are of each
        expected = float((kinds * wrong)[answered].sum() / kinds[answered].sum())
        assert rates.wrong_rate == pytest.approx(expected)


def test_short_clips_widen_the_band_and_leave_the_scaling():
    whole, short = scored(4_000, 1, 6.0), scored(4_000, 2, 1.0)
    noisy = Scored(-short.logits, short.seconds, short.labels)
    alone, harder = calibrate(whole, whole, whole, 6.0), calibrate(both(whole, noisy), whole, whole, 6.0)
    assert (harder.scale, harder.bias) == (alone.scale, alone.bias)
    assert harder.uncertain_high > alone.uncertain_high


def test_what_happens_to_files_moves_the_scaling_by_its_share():
    whole = scored(4_000, 1, 6.0)
    quieter = Scored(whole.logits - 3.0, whole.seconds, whole.labels)  # generated clips are missed after a change
    alone, moved, only = (
        calibrate(*sets, whole, 6.0) for sets in ((whole, whole), (whole, quieter), (quieter, quieter))
    )
    assert alone.bias + 0.1 < moved.bias < only.bias - 1.0
    misses = [error_rates(probability_of(one, quieter.logits), quieter.labels, 0.5)[1] for one in (alone, moved, only)]
    assert misses[0] > misses[1] + 0.01 > misses[2]


def test_neither_kind_gains_by_how_many_clips_there_are_of_it_with_and_without_a_change():
    whole = scored(4_000, 1, 6.0)
    originals = Scored(*(getattr(whole, name)[whole.labels == 0] for name in ("logits", "seconds", "labels")))
    once, more = (
        calibrate(whole, whole, whole, 6.0),
        calibrate(both(whole, both(originals, originals)), whole, whole, 6.0),
    )
    assert (more.scale, more.bias) == pytest.approx((once.scale, once.bias), abs=0.02)


def test_changed_clips_that_tell_less_widen_the_band():
    whole, other = scored(4_000, 1, 6.0), scored(4_000, 2, 6.0)
    noisier = Scored(
        other.logits + 4.0 * torch.randn(len(other.logits), generator=torch.Generator().manual_seed(0)),
        other.seconds,
        other.labels,
    )
    one = calibrate(whole, noisier, whole, 6.0)
    bands = [uncertain_from(probability_of(one, part.logits), part.labels) for part in (whole, noisier)]
    assert one.uncertain_high == bands[1] > bands[0]


def test_branches_are_weighed_by_what_they_know_and_short_clips_by_their_length():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (6_000,), generator=generator)
    seconds = torch.tensor([1.5, 6.0]).repeat(3_000)
    evidence = (2 * labels - 1) * seconds / 6 * 3 + torch.randn(6_000, generator=generator) * (seconds / 6).sqrt() * 2
    mean = evidence / (seconds / 6)  # what a branch that averages over time says
    useless = torch.randn(6_000, generator=generator)
    inverted = -mean
    weights, growth, _ = fit_weights(Scored(torch.stack([mean, useless, inverted], dim=1), seconds, labels), 6.0)
    assert growth == 1.0
    assert float(weights[0]) == pytest.approx(1.5, rel=0.15)
    assert float(weights[1]) < 0.1
    assert float(weights[2]) < 0.1


def test_outside_the_uncertain_band_few_are_wrong():
    logits, labels = drawn(5_000, 3)
    probabilities = torch.sigmoid(2 * logits - 1)
    high = uncertain_from(probabilities, labels)
    decided = (probabilities < 1 - high) | (probabilities > high)
    wrong = (probabilities >= 0.5) != labels.bool()
    assert 0.2 < float(decided.float().mean()) < 0.98
    assert float(wrong[decided].float().mean()) < 0.015


def test_where_no_band_is_wide_enough_it_is_the_widest():
    assert uncertain_from(torch.rand(2_000, generator=torch.Generator().manual_seed(0)), drawn(2_000, 4)[1]) == 0.98


def test_labels_follow_threshold_and_band():
    calibration = DetectorCalibration(threshold=0.5, uncertain_low=0.2, uncertain_high=0.8)
    assert [label_of(calibration, p) for p in (0.1, 0.2, 0.5, 0.8, 0.9)] == [
        "original",
        "original",
        "uncertain",
        "generated",
        "generated",
    ]


def test_error_figures_on_a_case_done_by_hand():
    scores = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.4, 0.8, 0.9, 0.95])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert error_rates(scores, labels, 0.5) == (0.25, 0.25)
    assert equal_error_rate(scores, labels) == pytest.approx(0.25)
    assert equal_error_rate(labels.float(), labels) == 0.0
    assert calibration_error(torch.tensor([0.2, 0.2, 0.9]), torch.tensor([0, 0, 1])) == pytest.approx(0.15)


def test_the_wilson_interval_is_the_textbook_one():
    low, high = wilson_interval(5, 100)
    assert (low, high) == (pytest.approx(0.02154, abs=1e-4), pytest.approx(0.11175, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)
