"""Multi-scale complex-STFT discriminator of the codec, hinge losses and feature matching.

The complex spectrogram, as two channels, goes through 2-d convolutions (SoundStream, arXiv 2107.03312, section III-D;
several resolutions and the relative feature matching of EnCodec, arXiv 2210.13438, section 3.4). Our deviation is for
speed: every layer strides, 4-fold in time and 16-fold in frequency altogether, and there are few channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

LEAKY_SLOPE = 0.2
HOPS_PER_WINDOW = 4

ScaleOutput = tuple[Tensor, list[Tensor]]


class StftScale(nn.Module):
    """One resolution: waveforms [B, T] -> (logits [B, frames', bins'], features, one [B, D, frames, bins] a layer)."""

    def __init__(self, channels: int, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        wide = 2 * channels
        self.layers = nn.ModuleList(
            [
                _conv(2, channels, (3, 7), (2, 2)),
                _conv(channels, channels, (3, 5), (1, 2)),
                _conv(channels, wide, (3, 5), (2, 2)),
                _conv(wide, wide, (3, 5), (1, 2)),
            ]
        )
        self.head = _conv(wide, 1, (3, 3), (1, 1))

    def forward(self, waveforms: Tensor) -> ScaleOutput:
        x, features = self._spectrum(waveforms), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAKY_SLOPE)
            features.append(x)
        return self.head(x)[:, 0].float(), features

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


def _conv(channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Module:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(channels_in, channels_out, kernel, stride, padding))
