import pytest
import torch

from audiolm.config import DetectorCalibration
from audiolm.detector.verdict import boundary_of, probability_of


def odds(*parts: tuple[float, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat([value + 0.5 * torch.randn(count, generator=generator) for value, count in parts])


def test_the_boundary_lies_between_original_and_generated_segments():
    assert boundary_of(odds((-2.0, 12), (2.0, 24))) == pytest.approx(12 * 0.25 - 0.125)


@pytest.mark.parametrize(
    "log_odds", [odds((-2.0, 30)), odds((2.0, 30)), odds((0.0, 30)), odds((2.0, 12), (-2.0, 12)), odds((-2.0, 3))]
)
def test_there_is_no_boundary_where_the_whole_is_of_one_kind_or_ends_as_an_original(log_odds):
    assert boundary_of(log_odds) is None


def test_one_sure_segment_is_no_boundary():
    assert boundary_of(torch.cat([odds((-1.0, 20)), torch.tensor([1e6] * 2)])) is None


def test_isotonic_probabilities_run_straight_between_the_knots_in_log_odds_and_stop_at_the_ends():
    calibration = DetectorCalibration(method="isotonic", knots=(-1.0, -3.0, 0.0, 0.0, 0.0, 1.0, 2.0, 5.0))
    found = torch.logit(probability_of(calibration, torch.tensor([[-9.0, -1.0, -0.5], [1.0, 2.0, 9.0]])))
    expected = torch.tensor([[-3.0, -3.0, -1.5], [3.0, 5.0, 5.0]], dtype=torch.float64)
    assert torch.allclose(found, expected)
