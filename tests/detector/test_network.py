import pytest
import torch

import audiolm.detector.network as network
from audiolm.config import DetectorCalibration, DetectorConfig
from audiolm.detector import SCOPE, Detector
from audiolm.errors import ConfigError
from audiolm.streams import Waveform

MEASURED = DetectorCalibration(false_positive_rate=0.1, false_negative_rate=0.2, num_originals=50, num_generated=60)


def detector(**options) -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(num_mels=16, channels=(4, 6, 8), **options)
    return Detector(config).eval()


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> torch.Tensor:
    return level * torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [(4,), (4, 8), (4, 6, 8), (4, 6, 8, 10)])
@pytest.mark.parametrize("length", [1_000, 3_999, 4_000, 64_000])
def test_there_is_a_logit_every_quarter_second_and_their_mean_is_the_clips(channels, length):
    model = Detector(DetectorConfig(num_mels=16, channels=channels)).eval()
    waveforms = torch.randn(2, length)
    segments = model.segment_logits(waveforms)
    assert segments.shape == (2, length // 4_000 + 1)
    assert torch.allclose(model.logits(waveforms), segments.mean(dim=1))


def test_long_clips_in_pieces_equal_the_whole(monkeypatch):
    model, waveforms = detector(), noise(9.3)[None]
    whole = model.segment_logits(waveforms)
    monkeypatch.setattr(network, "_CHUNK_SEGMENTS", 5)
    assert torch.allclose(model.segment_logits(waveforms), whole, atol=1e-5)


def test_a_segment_sees_half_a_second_to_either_side():
    model = Detector(DetectorConfig(num_mels=16)).eval()
    levelled = network._levelled(noise(6.0)[None]).requires_grad_()
    model._segments(levelled)[0, 12].backward()
    touched = levelled.grad[0].nonzero()[:, 0] / 16_000
    assert 2.45 < float(touched.min()) < 2.55
    assert 3.45 < float(touched.max()) < 3.55


def test_level_and_offset_change_nothing():
    model, waveform = detector(), noise(2.0)[None]
    for other in (waveform * 0.05, waveform * 9, waveform + 0.3):
        assert torch.allclose(model.logits(other), model.logits(waveform), atol=1e-4)


def test_a_verdict_carries_threshold_error_rates_scope_and_segments():
    verdict = detector(calibration=MEASURED).judge(Waveform(noise(2.0)))
    values = verdict.to_dict()
    assert values["label"] in ("generated", "original", "uncertain")
    assert 0.0 <= values["probability"] <= 1.0
    assert (values["false_positive_rate"], values["num_originals"]) == (0.1, 50)
    assert (values["false_negative_rate"], values["num_generated"]) == (0.2, 60)
    assert values["scope"] == SCOPE
    assert values["segment_times_s"] == [0.25 * n for n in range(9)]
    assert len(values["segment_probabilities"]) == 9


def test_recordings_of_other_rates_are_judged_at_16_khz():
    model = detector(calibration=MEASURED)
    assert len(model.judge(Waveform(noise(6.0), 48_000)).segment_times_s) == 9


def broken(samples: torch.Tensor) -> torch.Tensor:
    samples[77] = float("nan")
    return samples


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (noise(0.9), "too short: 0.90 s, at least 1 s"),
        (torch.zeros(0), "too short"),
        (torch.zeros(32_000), "near silence: 0.00 s"),
        (torch.full((32_000,), 0.7), "near silence"),
        (torch.cat([noise(0.3), torch.zeros(32_000)]), "near silence: 0.30 s"),
        (noise(2.0, 1.0).clamp(-0.5, 0.5), "clipped"),
        (broken(noise(2.0)), "not finite"),
    ],
)
def test_out_of_scope_clips_get_no_score_but_a_reason(samples, words):
    verdict = detector(calibration=MEASURED).judge(Waveform(samples))
    assert verdict.label == "withheld"
    assert verdict.probability is None
    assert words in verdict.reason
    assert verdict.segment_probabilities == ()


def test_a_detector_without_measured_error_rates_gives_no_score():
    verdict = detector().judge(Waveform(noise(2.0)))
    assert (verdict.label, verdict.probability) == ("withheld", None)
    assert "have not been measured" in verdict.reason


def test_a_loud_pure_tone_is_not_taken_for_clipping():
    tone = torch.sin(2 * torch.pi * 220 * torch.arange(32_000) / 16_000)
    assert detector(calibration=MEASURED).judge(Waveform(tone)).label != "withheld"


@pytest.mark.parametrize(
    "options",
    [{"channels": ()}, {"channels": (1, 2, 3, 4, 5)}, {"channels": (0,)}, {"num_mels": 4}, {"min_s": 0.0}],
)
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ConfigError):
        DetectorConfig(**options)
    with pytest.raises(ConfigError):
        DetectorCalibration(threshold=0.9, uncertain_high=0.8)
