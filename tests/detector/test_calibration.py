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
    fit_isotonic,
    fit_platt,
    fit_weights,
    uncertain_band,
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


def groups(count: int) -> tuple[str, ...]:
    return tuple(str(n % 50) for n in range(count))


@pytest.mark.parametrize("positives", [0.5, 0.2])
def test_platt_scaling_finds_scale_and_bias_however_common_a_kind_is(positives):
    scale, bias = fit_platt(*drawn(20_000, 0, positives=positives))
    assert scale == pytest.approx(2.0, rel=0.08)
    assert bias == pytest.approx(-1.0, abs=0.1)


def test_separable_and_useless_logits_give_finite_calibrations():
    labels = torch.tensor([0] * 20 + [1] * 20)
    scale, bias = fit_platt(labels * 8.0 - 4.0, labels)
    assert math.isfinite(scale)
    assert 0.8 < float(torch.sigmoid(torch.tensor(4 * scale + bias))) < 1.0
    scale, _ = fit_platt(4.0 - labels * 8.0, labels)
    assert scale == 1e-3  # worse than chance is not turned round
    scale, bias = fit_platt(torch.zeros(40), labels)
    assert math.isfinite(scale + bias)


def test_isotonic_knots_rise_and_follow_what_no_sigmoid_can():
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(8_000, generator=generator) * 4
    truth = torch.where(logits < 2, 0.3, 0.8)
    labels = (torch.rand(8_000, generator=generator) < truth).long()
    calibration = DetectorCalibration(method="isotonic", knots=fit_isotonic(logits, labels))
    found = probability_of(calibration, torch.tensor([1.0, 3.0]))
    share = float(labels.float().mean())
    balanced = [p * (1 - share) / (p * (1 - share) + (1 - p) * share) for p in (0.3, 0.8)]
    assert found.tolist() == pytest.approx(balanced, abs=0.04)


def test_calibrated_probabilities_are_calibrated_and_the_rates_come_from_the_test_set():
    valid, test = drawn(4_000, 1), drawn(3_000, 2)
    calibration = calibrate(valid, test, groups(4_000))
    assert calibration.method == "platt"
    probabilities = probability_of(calibration, test[0])
    assert calibration_error(probabilities, test[1]) < 0.03
    assert (calibration.false_positive_rate, calibration.false_negative_rate) == error_rates(
        probabilities, test[1], 0.5
    )
    assert calibration.num_originals + calibration.num_generated == 3_000
    assert calibration.num_generated == int(test[1].sum())


def test_the_calibration_that_is_better_on_other_groups_is_taken():
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(8_000, generator=generator) * 4
    labels = (torch.rand(8_000, generator=generator) < torch.where(logits < 3.5, 0.2, 0.98)).long()
    assert calibrate((logits, labels), (logits, labels), groups(8_000)).method == "isotonic"


def test_branches_are_weighed_by_what_they_know_and_short_clips_by_their_length():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (6_000,), generator=generator)
    seconds = torch.tensor([1.5, 6.0]).repeat(3_000)
    evidence = (2 * labels - 1) * seconds / 6 * 3 + torch.randn(6_000, generator=generator) * (seconds / 6).sqrt() * 2
    mean = evidence / (seconds / 6)  # what a branch that averages over time says
    useless = torch.randn(6_000, generator=generator)
    inverted = -mean
    weights, growth = fit_weights(Scored(torch.stack([mean, useless, inverted], dim=1), seconds, labels), 6.0)
    assert growth == 1.0
    assert float(weights[0]) == pytest.approx(1.5, rel=0.15)
    assert float(weights[1]) < 0.1
    assert float(weights[2]) < 0.1


def test_outside_the_uncertain_band_few_are_wrong():
    logits, labels = drawn(5_000, 3)
    probabilities = torch.sigmoid(2 * logits - 1)
    low, high = uncertain_band(probabilities, labels)
    decided = (probabilities < low) | (probabilities > high)
    wrong = (probabilities >= 0.5) != labels.bool()
    assert 0.2 < float(decided.float().mean()) < 0.98
    assert float(wrong[decided].float().mean()) < 0.015
    assert low == pytest.approx(1 - high)


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
