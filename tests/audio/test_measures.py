import math

import pytest
import torch
import torchaudio

from audiolm.audio.distortion import si_sdr_db
from audiolm.audio.loudness import SILENCE_LUFS, integrated_loudness, rms_db
from audiolm.audio.spectra import LOG_FLOOR, log_mel, mel_centres_hz, mel_filters


def test_log_mel_has_a_frame_a_hop_and_peaks_at_the_tone():
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)
    mels = log_mel(torch.stack([tone, torch.zeros_like(tone)]), 64, hop_length=160)
    assert mels.shape == (2, 64, 101)
    assert abs(float(mel_centres_hz(64)[mels[0, :, 50].argmax()]) - 1000) < 40
    assert float(mels[0].max()) == pytest.approx(0.0, abs=0.3)
    assert float(mels[1].max()) == pytest.approx(math.log(LOG_FLOOR))


def test_log_mel_takes_clips_shorter_than_its_window():
    assert log_mel(torch.randn(1, 100), 80, hop_length=320).shape == (1, 80, 1)


def test_log_mel_follows_gain_and_passes_gradients():
    wave = torch.randn(1, 4_000, requires_grad=True)
    louder = log_mel(10 * wave, 40) - log_mel(wave, 40)
    assert torch.allclose(louder, torch.full_like(louder, math.log(10)), atol=1e-4)
    log_mel(wave, 40).sum().backward()
    assert bool(torch.isfinite(wave.grad).all())


def test_every_mel_filter_of_the_sizes_in_use_has_weight():
    for num_mels in (64, 80):
        assert bool((mel_filters(num_mels, 1024).sum(dim=1) > 0).all())


def test_integrated_loudness_equals_torchaudio_and_knows_silence():
    wave = 0.05 * torch.randn(2, 20 * 16_000, generator=torch.Generator().manual_seed(0))
    wave[1] *= torch.linspace(0, 1, wave.shape[1])
    expected = torch.stack([torchaudio.functional.loudness(row[None], 16_000) for row in wave])
    assert torch.allclose(integrated_loudness(wave), expected, atol=0.01)
    assert float(integrated_loudness(torch.zeros(1, 100))) == SILENCE_LUFS
    with pytest.raises(ValueError, match="empty"):
        integrated_loudness(torch.zeros(1, 0))


def test_a_full_scale_tone_has_the_loudness_the_standard_states():
    tone = torch.sin(2 * math.pi * 997 * torch.arange(96_000) / 48_000)[None]
    assert float(integrated_loudness(tone, 48_000)) == pytest.approx(-3.01, abs=0.1)
    assert float(rms_db(tone)) == pytest.approx(-3.01, abs=0.01)


def test_si_sdr_knows_no_gain_and_measures_orthogonal_noise():
    original, disturbance = torch.randn(2, 3, 8_000, generator=torch.Generator().manual_seed(0)).double()
    original, disturbance = (x - x.mean(dim=1, keepdim=True) for x in (original, disturbance))
    share = (disturbance * original).sum(1, keepdim=True) / original.square().sum(1, keepdim=True)
    disturbance = disturbance - share * original
    disturbance = disturbance * (original.norm(dim=1) / disturbance.norm(dim=1))[:, None] * 10 ** (-10 / 20)
    assert si_sdr_db(0.3 * (original + disturbance), original).tolist() == pytest.approx([10.0] * 3, abs=1e-3)
    assert float(si_sdr_db(original[0], original[0])) > 80.0
