"""Discriminators of the codec, of waveforms or of magnitudes alone; hinge losses and feature matching.

Pictures go through 2-d convolutions: of waveforms the complex spectrogram, as two channels, at several resolutions
(SoundStream, arXiv 2107.03312, section III-D; resolutions and relative feature matching as in EnCodec, arXiv
2210.13438, section 3.4). Our deviation is for speed: every layer strides, 4-fold in time and 16-fold in frequency
altogether, and there are few channels.
"""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from audiolm.config import SAMPLE_RATE_HZ

LEAKY_SLOPE = 0.2
HOPS_PER_WINDOW = 4
HIGH_BAND_HZ = 3000.0
NUM_MELS = 64
FLOOR = 1e-2  # of magnitudes under a Hann window: about the background of a quiet room, whose texture is nobody's
MEAN, SPREAD = -2.0, 1.5  # of such logarithms, about: what is centred is learnt from sooner

ScaleOutput = tuple[Tensor, list[Tensor]]


class Patches(nn.Module):
    """Pictures [B, C, frames, bins] -> (logits [B, frames', bins'], features, one [B, D, frames, bins] a layer)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.ModuleList(
            [
                _conv(channels_in, channels, (3, 7), (2, 2)),
                _conv(channels, channels, (3, 5), (1, 2)),
                _conv(channels, wide, (3, 5), (2, 2)),
                _conv(wide, wide, (3, 5), (1, 2)),
            ]
        )
        self.head = _conv(wide, 1, (3, 3), (1, 1))

    def forward(self, x: Tensor) -> ScaleOutput:
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAKY_SLOPE)
            features.append(x)
        return self.head(x)[:, 0].float(), features


class StftScale(Patches):
    """One resolution of waveforms [B, T]."""

    def __init__(self, channels: int, n_fft: int) -> None:
        super().__init__(2, channels)
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveforms: Tensor) -> ScaleOutput:
        return super().forward(self._spectrum(waveforms))

    def _spectrum(self, waveforms: Tensor) -> Tensor:
        """[B, 2, frames, bins], unit bins for unit white noise."""
        spectrum = torch.stft(
            waveforms.float(),  # no half-precision FFT of every size
            self.n_fft,
            hop_length=self.n_fft // HOPS_PER_WINDOW,
            window=self.window / self.window.norm(),
            center=True,
            pad_mode="constant",  # reflection would refuse crops shorter than half a window
            return_complex=True,
        )
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1).contiguous()


class StftDiscriminator(nn.Module):
    """Waveforms [B, T], T >= 1 -> one (logits, features) a scale of `n_ffts`."""

    def __init__(self, channels: int = 16, n_ffts: tuple[int, ...] = (1024, 512, 256)) -> None:
        super().__init__()
        self.scales = nn.ModuleList(StftScale(channels, n_fft) for n_fft in n_ffts)

    def forward(self, waveforms: Tensor) -> list[ScaleOutput]:
        return [scale(waveforms) for scale in self.scales]


class MagnitudeDiscriminator(nn.Module):
    """Log magnitudes [B, bins, N] of n_fft-point spectra -> one (logits, features) a view of them.

    Where a codec says no phases, there are no waveforms to judge in training. The views are all bins, those above 3 kHz
    by themselves (quiet, and the first that distances smooth away), and bands as the ear has them.
    """

    def __init__(self, n_fft: int, channels: int = 16) -> None:
        super().__init__()
        self.first_high_bin = round(HIGH_BAND_HZ * n_fft / SAMPLE_RATE_HZ)
        bank = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, NUM_MELS, SAMPLE_RATE_HZ)
        self.register_buffer("bank", bank, persistent=False)
        self.views = nn.ModuleList(Patches(1, channels) for _ in range(3))

    def forward(self, log_magnitudes: Tensor) -> list[ScaleOutput]:
        magnitudes = torch.exp(log_magnitudes.float().clamp(max=6.0)).transpose(1, 2)
        fine = torch.log(magnitudes + FLOOR)
        mel = torch.log(magnitudes @ self.bank + FLOOR)
        pictures = (fine, fine[..., self.first_high_bin :], mel)
        return [view((one[:, None] - MEAN) / SPREAD) for view, one in zip(self.views, pictures, strict=True)]


def discriminator_loss(real: list[ScaleOutput], fake: list[ScaleOutput]) -> Tensor:
    """Hinge loss of the discriminator, mean over scales: 2 when it cannot tell, 0 when it always can by a margin of 1.

    `fake` must come from detached reconstructions.
    """
    losses = [F.relu(1.0 - r).mean() + F.relu(1.0 + f).mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(real: list[ScaleOutput], fake: list[ScaleOutput]) -> tuple[Tensor, Tensor]:
    """(hinge loss of the generator, feature matching), each a mean over scales.

    Feature matching: L1 distance of the features, each layer relative to the mean size of the real ones, so that no
    layer outweighs the others. No gradient reaches `real`.
    """
    adversarial = [F.relu(1.0 - logits).mean() for logits, _ in fake]
    matching = [
        _relative_distance(r, f)
        for (_, of_real), (_, of_fake) in zip(real, fake, strict=True)
        for r, f in zip(of_real, of_fake, strict=True)
    ]
    return torch.stack(adversarial).mean(), torch.stack(matching).mean()


def _relative_distance(real: Tensor, fake: Tensor) -> Tensor:
    real = real.detach()
    return F.l1_loss(fake, real) / real.abs().mean().clamp_min(1e-6)


class _Strided(nn.Conv2d):
    """Its kernels are averaged over a stride: else every second bin and frame has another gradient, and a decoder that
    says bins one by one learns the comb (lines at multiples of 50 Hz)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.avg_pool2d(self.weight, self.stride, 1, tuple(step - 1 for step in self.stride))
        weight = weight * math.prod(self.stride) ** 0.5  # answers to noise stay as strong
        return F.conv2d(x, weight, self.bias, self.stride, (weight.shape[2] // 2, weight.shape[3] // 2))


def _conv(channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Module:
    return weight_norm(_Strided(channels_in, channels_out, kernel, stride))
