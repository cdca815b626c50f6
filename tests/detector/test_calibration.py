import math

import pytest
import torch

from audiolm.config import DetectorCalibration
from audiolm.detector.calibration import (
    calibrate,
    calibration_error,
    equal_error_rate,
    error_rates,
    fit_platt,
    uncertain_band,
)
from audiolm.detector.verdict import label_of
from audiolm.intervals import wilson_interval


def drawn(count: int, seed: int, scale: float = 2.0, bias: float = -1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels whose true calibration is sigmoid(scale * logit + bias)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, generator=generator) * 2 + 0.5
    labels = torch.rand(count, generator=generator) < torch.sigmoid(scale * logits + bias)
    return logits, labels.long()


def test_platt_scaling_finds_the_true_scale_and_bias():
    scale, bias = fit_platt(*drawn(20_000, 0))
    assert scale == pytest.approx(2.0, rel=0.06)
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


def test_calibrated_probabilities_are_calibrated_and_the_rates_come_from_the_test_set():
    calibration = calibrate(drawn(4_000, 1), drawn(3_000, 2))
    logits, labels = drawn(3_000, 2)
    probabilities = torch.sigmoid(calibration.scale * logits + calibration.bias)
    assert calibration_error(probabilities, labels) < 0.03
    assert (calibration.false_positive_rate, calibration.false_negative_rate) == error_rates(probabilities, labels, 0.5)
    assert calibration.num_originals + calibration.num_generated == 3_000
    assert calibration.num_generated == int(labels.sum())


def test_outside_the_uncertain_band_few_are_wrong():
    logits, labels = drawn(5_000, 3)
    probabilities = torch.sigmoid(2 * logits - 1)
    low, high = uncertain_band(probabilities, labels)
    decided = (probabilities < low) | (probabilities > high)
    wrong = (probabilities >= 0.5) != labels.bool()
    assert 0.2 < float(decided.float().mean()) < 0.98
    assert float(wrong[decided].float().mean()) < 0.025
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


def test_the_wilson_interval_is_the_textbook_one():
    low, high = wilson_interval(5, 100)
    assert (low, high) == (pytest.approx(0.02154, abs=1e-4), pytest.approx(0.11175, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)
