"""SoundStream's causal SEANet encoder and decoder (arXiv 2107.03312, section III-A and figure 3).

Strided convolutions of kernel 2 * stride, each beside a stack of dilated residual units; ELU, no normalisation, causal
padding throughout, as in the paper. Our deviations: ELU stands before each convolution (as in EnCodec, arXiv
2210.13438), so that the residual path stays linear, and the residual kernel is a setting (7 in SoundStream, 3 by
default as in EnCodec).
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import SeanetConfig
from audiolm.nn.conv import CausalConv1d, CausalConvTranspose1d

LATENT_KERNEL_SIZE = 3  # of the convolution onto the latent dimension

SeanetState = tuple[Tensor, ...]


class ResidualUnit(nn.Module):
    """x + pointwise(ELU(dilated(ELU(x)))), [B, D, F] -> [B, D, F]. State: that of the dilated convolution."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.dilated = CausalConv1d(channels, channels, kernel_size, dilation=dilation)
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def init_state(self, batch: int) -> Tensor:
        return self.dilated.init_state(batch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.elu(self.dilated(F.elu(x))))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.dilated.step(F.elu(x), state)
        return (x + self.pointwise(F.elu(y)) if x.shape[-1] else x), state


class SeanetEncoder(nn.Module):
    """Waveforms [B, T] -> latents [B, D, F], F = ceil(T / hop), hop = product of the strides (320).

    The end is zero-padded to whole frames; frame f sees samples up to (f + 1) * hop - 1 only.
    """

    def __init__(self, config: SeanetConfig, dimension: int) -> None:
        super().__init__()
        self.hop_length = math.prod(config.strides)
        channels = config.base_channels
        layers: list[nn.Module] = [CausalConv1d(1, channels, config.kernel_size)]
        for stride in config.strides:
            layers += _residual_units(config, channels)
            layers += [nn.ELU(), CausalConv1d(channels, 2 * channels, 2 * stride, stride=stride)]
            channels *= 2
        layers += [nn.ELU(), CausalConv1d(channels, dimension, LATENT_KERNEL_SIZE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, waveforms: Tensor) -> Tensor:
        padded = F.pad(waveforms, (0, -waveforms.shape[-1] % self.hop_length))
        return self.layers(padded[:, None])


class SeanetDecoder(nn.Module):
    """Latents [B, D, F] -> waveforms [B, F * hop]; causal: frame f changes no sample before f * hop.

    Streaming: `step` over successive chunks, starting from `init_state`, gives what `forward` gives over the whole.
    """

    def __init__(self, config: SeanetConfig, dimension: int) -> None:
        super().__init__()
        channels = config.base_channels * 2 ** len(config.strides)
        layers: list[nn.Module] = [CausalConv1d(dimension, channels, config.kernel_size)]
        for stride in reversed(config.strides):
            layers += [nn.ELU(), CausalConvTranspose1d(channels, channels // 2, 2 * stride, stride)]
            channels //= 2
            layers += _residual_units(config, channels)
        layers += [nn.ELU(), CausalConv1d(channels, 1, config.kernel_size)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)[:, 0]

    def init_state(self, batch: int) -> SeanetState:
        """State before the first frame: one tensor a convolution with memory, in the order of the layers."""
        return tuple(layer.init_state(batch) for layer in self.layers if not isinstance(layer, nn.ELU))

    def step(self, latents: Tensor, state: SeanetState) -> tuple[Tensor, SeanetState]:
        """Latents [B, D, n] of the next n >= 0 frames -> (waveforms [B, n * hop], next state)."""
        x, waiting, done = latents, iter(state), []
        for layer in self.layers:
            if isinstance(layer, nn.ELU):
                x = layer(x)
            else:
                x, after = layer.step(x, next(waiting))
                done.append(after)
        return x[:, 0], tuple(done)

    def flush(self, state: SeanetState) -> Tensor:
        """[B, 0]: a causal decoder withholds nothing."""
        return state[0].new_zeros(state[0].shape[0], 0)


def _residual_units(config: SeanetConfig, channels: int) -> list[nn.Module]:
    return [ResidualUnit(channels, config.residual_kernel_size, dilation) for dilation in config.dilations]
