import pytest
import torch

from audiolm.codec.losses import SpectralLosses
from audiolm.errors import EvaluationError
from audiolm.evaluation import codec_quality
from audiolm.evaluation.codec_quality import line_height_db, mel_distance, pesq_wb, stoi

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def babble(seconds: float = 2.0) -> torch.Tensor:
    """Harmonics that come and go four times a second: enough of speech for the intelligibility metrics."""
    time = torch.arange(round(seconds * RATE)) / RATE
    harmonics = sum(torch.sin(2 * torch.pi * 120 * k * time + k) / k for k in range(1, 30))
    return 0.1 * harmonics * (0.55 + 0.45 * torch.sin(2 * torch.pi * 4 * time)) + 0.01 * noise(seconds)


def test_the_original_itself_scores_best():
    original = babble()
    assert mel_distance(original, original) == 0.0


def test_mel_distance_of_a_gain_is_its_logarithm():
    assert mel_distance(2.0 * noise(1.0), noise(1.0)) == pytest.approx(0.693, abs=0.01)


def test_mel_distance_is_that_of_training():
    output, target = noise(1.0, 1), noise(1.0, 2)
    expected = SpectralLosses()(output[None], target[None])["mel"]
    assert mel_distance(output, target) == pytest.approx(float(expected), rel=0.05)


def test_smooth_spectra_have_no_lines():
    assert abs(line_height_db(noise(5.0))) < 0.5


def test_a_buzz_at_the_frame_rate_stands_out():
    buzz = torch.zeros(5 * RATE)
    buzz[::320] = 1.0
    assert line_height_db(noise(5.0) + 0.5 * buzz) < line_height_db(noise(5.0) + 2.0 * buzz)
    assert line_height_db(noise(5.0) + 2.0 * buzz) > 6.0


def test_a_buzz_below_4_khz_does_not_count():
    time = torch.arange(5 * RATE) / RATE
    assert abs(line_height_db(noise(5.0) + sum(torch.sin(2 * torch.pi * 50 * k * time) for k in range(1, 60)))) < 0.5


def test_line_height_of_too_little_is_refused():
    with pytest.raises(EvaluationError, match="3200 samples"):
        line_height_db(noise(0.1))


def test_stoi_is_one_for_the_original_and_falls_with_noise():
    pytest.importorskip("pystoi")
    original = babble()
    assert stoi(original, original) == pytest.approx(1.0, abs=1e-3)
    assert stoi(original + noise(2.0, 1), original) < stoi(original + 0.1 * noise(2.0, 1), original)


def test_stoi_of_silence_is_refused():
    pytest.importorskip("pystoi")
    with pytest.raises(EvaluationError, match="active"):
        stoi(torch.zeros(RATE // 4), torch.zeros(RATE // 4))


def test_pesq_is_best_for_the_original_and_falls_with_noise():
    pytest.importorskip("pesq")
    original = babble()
    assert pesq_wb(original, original) > 4.5
    assert pesq_wb(original + noise(2.0, 1), original) < 2.0


def test_pesq_of_silence_is_refused():
    pytest.importorskip("pesq")
    with pytest.raises(EvaluationError, match="PESQ"):
        pesq_wb(torch.zeros(RATE), torch.zeros(RATE))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pystoi", None)
    with pytest.raises(EvaluationError, match="package pystoi"):
        codec_quality.stoi(babble(), babble())
