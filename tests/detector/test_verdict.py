import pytest
import torch

from audiolm.config import DetectorCalibration, DetectorConfig, LengthRates
from audiolm.detector.verdict import boundary_of, make_verdict, withheld_reason


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
    assert boundary_of(torch.cat([odds((-1.0, 20)), torch.tensor([1e6])])) is None


def rates(seconds: float, wrong_rate: float) -> LengthRates:
    return LengthRates(seconds, 0.01, 0.02, 300, 300, wrong_rate, 500)


def judged_for(seconds: float, *by_length: LengthRates) -> str:
    calibration = DetectorCalibration(by_length=by_length)
    noise = 0.1 * torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(0))
    return withheld_reason(noise, DetectorConfig(calibration=calibration))


def test_lengths_at_which_answers_are_wrong_too_often_are_not_answered():
    lengths = rates(1.0, 0.05), rates(2.0, 0.008), rates(4.0, 0.002)
    assert judged_for(0.5, *lengths) == "too short: 0.50 s, at least 4 s are needed"
    assert judged_for(3.9, *lengths) == (
        "not reliable at this length: of its 500 answers to held-out clips of 2 s, 0.8 % are wrong (both kinds count "
        "the same) and up to 2.0 % may be, at most 1.4 % are accepted; at least 4 s are needed"
    )
    assert judged_for(4.0, *lengths) == judged_for(30.0, *lengths) == ""
    assert judged_for(9.0, rates(1.0, 0.05)).endswith("longer ones are judged no better")
    assert judged_for(0.9, rates(1.0, 0.05)) == "too short: 0.90 s, longer ones are judged no better"
    assert judged_for(2.0, rates(1.0, 0.0), rates(4.0, 0.05)).startswith(
        "not reliable at this length: of its 500 answers to held-out clips of 4 s"
    )


def test_a_verdict_has_the_error_rates_of_its_own_length():
    calibration = DetectorCalibration(by_length=(rates(1.0, 0.0), LengthRates(4.0, 0.0, 0.005, 200, 100, 0.0, 300)))
    found = [make_verdict(calibration, seconds, torch.zeros(9), 0.0) for seconds in (0.5, 3.0, 9.0)]
    assert [one.measured_s for one in found] == [1.0, 1.0, 4.0]
    assert [one.false_negative_rate for one in found] == [0.02, 0.02, 0.005]
    assert [one.num_originals for one in found] == [300, 300, 200]


def test_a_length_at_which_it_hardly_ever_answered_is_not_answered():
    for answered, may_be in ((0, "100.0"), (200, "1.9")):
        seldom = LengthRates(1.0, 0.1, 0.1, 300, 300, 0.0, answered)
        assert judged_for(2.0, seldom, rates(4.0, 0.0)) == (
            f"not reliable at this length: of its {answered} answers to held-out clips of 1 s, 0.0 % are wrong (both "
            f"kinds count the same) and up to {may_be} % may be, at most 1.4 % are accepted; at least 4 s are needed"
        )
        assert judged_for(4.0, seldom, rates(4.0, 0.0)) == ""
