"""The seam meter on signals with known answers."""

import numpy as np
import pytest
import torch

from audiolm.errors import EvaluationError
from audiolm.inspection.seam import flux_near, is_seamless, measure_seam, spectral_flux

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0, level: float = 0.1) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def test_a_steady_tone_has_no_flux_and_a_change_has():
    steady, changed = tone(440), torch.cat([tone(440, 0.5), tone(2000, 0.5)])
    assert spectral_flux(steady).shape == (RATE // 80,)
    assert float(spectral_flux(steady)[10:-10].max()) < 0.05
    assert abs(int(spectral_flux(changed)[10:-10].argmax()) + 10 - 100) <= 4


def test_the_flux_near_an_instant_is_the_largest_of_the_windows_that_touch_it():
    waveform = noise(1.0)
    flux, near = spectral_flux(waveform), flux_near(waveform)
    assert near.shape == (RATE // 80 + 1,)
    assert float(near[100]) == float(flux[96:104].max())


def test_one_recording_is_seamless_at_about_95_of_100_instants():
    whole = noise(3.0)
    found = [is_seamless(whole[: 32_000 + step], 24_000 + step) for step in range(0, 16_000, 400)]
    assert 0.85 < np.mean(found) <= 1.0


def test_a_cut_a_jump_and_a_click_are_heard():
    prompt = tone(440, 1.5) + noise(1.5, level=1e-3)
    click = torch.cat([prompt, prompt])
    click[len(prompt)] += 1.0
    assert is_seamless(tone(440, 3.0) + noise(3.0, level=1e-3), len(prompt))
    assert not is_seamless(torch.cat([prompt, noise(1.0, 1)]), len(prompt))
    assert not is_seamless(torch.cat([prompt, 0.01 * prompt]), len(prompt))
    assert not is_seamless(click, len(prompt))


def test_too_little_around_the_seam_is_refused():
    with pytest.raises(EvaluationError, match="8000 samples before"):
        is_seamless(noise(1.0), 4000)


def test_the_level_step_is_that_of_the_sound_and_the_percentile_that_of_the_prompt():
    prompt = noise(1.5)
    louder = measure_seam(torch.cat([prompt, 2.0 * noise(1.0, 1)]), len(prompt))
    assert louder.level_step_db == pytest.approx(6.02, abs=0.5)
    same = measure_seam(torch.cat([prompt, noise(1.0, 1)]), len(prompt))
    assert same.level_step_db == pytest.approx(0.0, abs=0.5)
    assert 0.0 <= same.flux_percentile <= louder.flux_percentile <= 1.0
    silence = measure_seam(torch.zeros(32_000), 16_000)
    assert (silence.flux, silence.level_step_db, silence.seamless) == (0.0, 0.0, True)
