import math

import pytest
import torch

from audiolm.nn.phase import BLOCK_FRAMES, PhaseReconstruction

N_FFT, HOP = 640, 160
WINDOW = torch.hann_window(N_FFT)


def spectra_of(waveform: torch.Tensor) -> torch.Tensor:
    return torch.stft(waveform[None], N_FFT, HOP, window=WINDOW, center=False, return_complex=True)


def waveform_of(spectra: torch.Tensor) -> torch.Tensor:
    length = (spectra.shape[-1] - 1) * HOP + N_FFT
    frames = torch.fft.irfft(spectra, N_FFT, dim=1) * WINDOW[:, None]
    summed = torch.nn.functional.fold(frames, (1, length), (1, N_FFT), stride=(1, HOP))[0, 0, 0]
    return summed / (0.375 * N_FFT / HOP)


def convergence_db(found: torch.Tensor, magnitudes: torch.Tensor) -> float:
    """Magnitudes of the waveform that the spectra add up to against those asked for; the ends are left out."""
    got = spectra_of(waveform_of(found)).abs()[..., 5:-5]
    wanted = magnitudes[..., 5:-5]
    return 20 * math.log10(float((got - wanted).norm() / wanted.norm()))


@pytest.mark.parametrize("frequency_hz", [110.0, 443.0, 1000.0, 3217.0])
def test_a_steady_tone_comes_back_from_its_magnitudes(frequency_hz):
    waveform = 0.3 * torch.sin(2 * math.pi * frequency_hz * torch.arange(32_000) / 16_000)
    magnitudes = spectra_of(waveform).abs()
    assert convergence_db(PhaseReconstruction(N_FFT, HOP)(magnitudes), magnitudes) < -25.0


def test_struck_decaying_chords_come_back_far_better_than_with_random_phases():
    time = torch.arange(32_000) / 16_000
    chord = sum(torch.sin(2 * math.pi * hz * time) / k for k, hz in enumerate((196.0, 246.9, 293.7, 587.3), 1))
    waveform = 0.2 * chord * torch.exp(-3.0 * (time % 0.5))
    magnitudes = spectra_of(waveform).abs()
    found = convergence_db(PhaseReconstruction(N_FFT, HOP)(magnitudes), magnitudes)
    random = torch.rand(magnitudes.shape, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    assert found < -12.0
    assert convergence_db(torch.polar(magnitudes, random), magnitudes) > found + 9.0


def test_magnitudes_are_kept_as_they_are():
    magnitudes = torch.rand(2, N_FFT // 2 + 1, 70, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(PhaseReconstruction(N_FFT, HOP)(magnitudes).abs(), magnitudes, atol=1e-4)


def test_silence_stays_silent():
    found = PhaseReconstruction(N_FFT, HOP)(torch.zeros(1, N_FFT // 2 + 1, 60))
    assert float(found.abs().max()) == 0.0


@pytest.mark.parametrize("chunk", [1, 7, BLOCK_FRAMES, 200])
def test_chunks_give_the_spectra_of_the_whole(chunk):
    phases = PhaseReconstruction(N_FFT, HOP)
    magnitudes = torch.rand(2, N_FFT // 2 + 1, 130, generator=torch.Generator().manual_seed(2))
    state, parts = phases.init_state(2), []
    for start in range(0, magnitudes.shape[-1], chunk):
        part, state = phases.step(magnitudes[..., start : start + chunk], state)
        parts.append(part)
    streamed = torch.cat([*parts, phases.flush(state)], dim=-1)
    assert streamed.shape == magnitudes.shape
    assert torch.equal(streamed, phases(magnitudes))


def test_rows_of_a_batch_do_not_touch_each_other():
    magnitudes = torch.rand(3, N_FFT // 2 + 1, 60, generator=torch.Generator().manual_seed(3))
    phases = PhaseReconstruction(N_FFT, HOP)
    together = phases(magnitudes)
    alone = torch.cat([phases(row[None]) for row in magnitudes])
    assert float((together - alone).abs().max()) < 1e-3
