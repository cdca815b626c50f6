"""Reconstruction losses of the codec: log-mel over several windows, compressed complex STFT, waveform; magnitudes."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.audio.distortion import MEL_WINDOWS
from audiolm.config import SAMPLE_RATE_HZ

COMPLEX_WINDOWS = (1024, 512, 256)
NUM_MELS = 100


class SpectralLosses(nn.Module):
    """Distances between waveforms [B, T]: `forward(output, target)` returns them by name, unweighted."""

    def __init__(self) -> None:
        super().__init__()
        for n_fft in sorted({n for n, _ in MEL_WINDOWS} | set(COMPLEX_WINDOWS)):
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)
        for n_fft, num_mels in MEL_WINDOWS:
            bank = torchaudio.functional.melscale_fbanks(
                n_fft // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, num_mels, SAMPLE_RATE_HZ
            )
            self.register_buffer(f"bank_{n_fft}", bank, persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        output, target = output.float(), target.float()
        pairs = {n_fft: (self._stft(output, n_fft), self._stft(target, n_fft)) for n_fft in self._sizes()}
        mel = sum(F.l1_loss(self._log_mel(pairs[n][0], n), self._log_mel(pairs[n][1], n)) for n, _ in MEL_WINDOWS)
        phase = sum(F.l1_loss(_compress(pairs[n][0]), _compress(pairs[n][1])) for n in COMPLEX_WINDOWS)
        return {
            "mel": mel / len(MEL_WINDOWS),
            "complex": phase / len(COMPLEX_WINDOWS),
            "waveform": F.l1_loss(output, target),
        }

    def _sizes(self) -> set[int]:
        return {n for n, _ in MEL_WINDOWS} | set(COMPLEX_WINDOWS)

    def _stft(self, waveforms: Tensor, n_fft: int) -> Tensor:
        """[B, T] -> real view of the spectrum [B, bins, frames, 2]."""
        window = getattr(self, f"window_{n_fft}")
        return torch.view_as_real(torch.stft(waveforms, n_fft, n_fft // 4, window=window, return_complex=True))

    def _log_mel(self, spectra: Tensor, n_fft: int) -> Tensor:
        magnitude = (spectra.square().sum(dim=-1) + 1e-8).sqrt()
        return torch.log(magnitude.transpose(1, 2) @ getattr(self, f"bank_{n_fft}") + 1e-3)


class MagnitudeLosses(nn.Module):
    """Distances of log magnitudes [B, bins, N] from spectra of the same frames, for a codec that codes no phases."""

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        bank = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, NUM_MELS, SAMPLE_RATE_HZ)
        self.register_buffer("bank", bank.T, persistent=False)

    def forward(self, log_magnitudes: Tensor, spectra: Tensor) -> dict[str, Tensor]:
        """spectra: complex [B, bins, N] -> losses by name, unweighted.

        `mel`: as the ear weighs bands; `compressed`: magnitudes to the power 0.3, bin by bin; `linear`: relative error,
        which the loud partials rule. Log magnitudes bin by bin would spend most of the gradient on the noise floor.
        """
        output, target = torch.exp(log_magnitudes.float().clamp(max=6.0)), spectra.abs()
        mel = [torch.log(self.bank @ magnitudes + 1e-3) for magnitudes in (output, target)]
        error, size = (output - target).square().sum(dim=(1, 2)), target.square().sum(dim=(1, 2))
        return {
            "mel": F.l1_loss(*mel),
            "compressed": F.l1_loss((output + 1e-4) ** 0.3, (target + 1e-4) ** 0.3),
            "linear": (error / (size + 1e-3)).sqrt().mean(),
        }


def _compress(spectra: Tensor) -> Tensor:
    """Complex values with magnitudes raised to the power 0.3, phase kept."""
    return spectra * (spectra.square().sum(dim=-1, keepdim=True) + 1e-4) ** -0.35
