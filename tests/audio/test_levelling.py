from __future__ import annotations

import pytest
import torch

from audiolm.audio.levelling import ACTIVE_LEVEL_DB, PEAK_LIMIT, active_frames, level_gain
from audiolm.errors import AudioSilentError


def noise(num_samples: int, gain: float = 0.05) -> torch.Tensor:
    return gain * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))


def rms_db(samples: torch.Tensor) -> float:
    return float(10 * torch.log10(samples.square().mean()))


def test_active_parts_come_to_the_level_whatever_pauses_lie_between():
    sound, pause = noise(16_000), noise(32_000, 1e-4)
    for samples in (sound, torch.cat([sound, pause]), torch.cat([pause, sound, pause])):
        levelled = samples * level_gain(samples)
        active = levelled[active_frames(samples).repeat_interleave(320)]
        assert rms_db(active) == pytest.approx(ACTIVE_LEVEL_DB, abs=0.01)


def test_the_gain_undoes_the_recording_level():
    samples = noise(16_000)
    assert level_gain(samples * 0.01) == pytest.approx(100 * level_gain(samples), rel=1e-3)


def test_peaks_limit_the_gain():
    samples = noise(16_000, 0.001)
    samples[8000] = 0.9
    assert float((samples * level_gain(samples)).abs().max()) <= PEAK_LIMIT + 1e-6


@pytest.mark.parametrize("samples", [torch.zeros(16_000), noise(16_000, 1e-5), torch.zeros(100), torch.zeros(0)])
def test_silence_is_refused(samples):
    with pytest.raises(AudioSilentError, match="no sound"):
        level_gain(samples)
