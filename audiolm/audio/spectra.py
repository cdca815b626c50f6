"""Log-mel spectrograms, shared by the models, the losses and the pictures. Torch only, differentiable."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from audiolm.config import SAMPLE_RATE_HZ

LOG_FLOOR = 1e-5
POWER_FLOOR = 1e-9  # where the level must not matter


def log_mel(
    waveforms: Tensor,
    num_mels: int = 80,
    *,
    n_fft: int = 1024,
    hop_length: int = 160,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    floor: float = LOG_FLOOR,
) -> Tensor:
    """Natural log of the mel magnitude spectrogram.

    waveforms [B, T] -> [B, num_mels, T // hop_length + 1]; frame k is centred on sample k * hop_length, and the signal
    is taken as zero beyond its ends. HTK mel scale from 0 Hz to half the sample rate, triangular filters of height 1.
    A full-scale sine gives about 0; values below `floor` are raised to it.
    """
    window = torch.hann_window(n_fft, device=waveforms.device, dtype=waveforms.dtype)
    spectrum = torch.stft(
        waveforms, n_fft, hop_length, window=window, center=True, pad_mode="constant", return_complex=True
    )
    magnitude = spectrum.abs() * (2.0 / n_fft)  # undoes the window: a sine's main lobe adds up to about its amplitude
    filters = mel_filters(num_mels, n_fft, sample_rate_hz).to(magnitude)
    return torch.einsum("mf,bfk->bmk", filters, magnitude).clamp_min(floor).log()


def occupied_bands(waveforms: Tensor) -> Tensor:
    """How wide recordings are: waveforms [B, T] -> how many of 80 mel bands [B] lie below 99 % of the power."""
    mels = log_mel(waveforms, 80, hop_length=SAMPLE_RATE_HZ // 50, floor=POWER_FLOOR)
    power = mels.exp().square().mean(dim=2).cumsum(dim=1)
    return (power < 0.99 * power[:, -1:]).sum(dim=1)


@lru_cache(maxsize=32)
def mel_filters(num_mels: int, n_fft: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Tensor:
    """Triangular HTK mel filters [num_mels, n_fft // 2 + 1] of height 1, on the CPU; do not write to it."""
    filters = melscale_fbanks(n_fft // 2 + 1, 0.0, sample_rate_hz / 2, num_mels, sample_rate_hz)
    return filters.T.contiguous()


def mel_centres_hz(num_mels: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Tensor:
    """Centre frequencies [num_mels] of `mel_filters`, in Hz."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate_hz / 2 / 700.0))
    mels = torch.linspace(0.0, float(top), num_mels + 2)[1:-1]
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
