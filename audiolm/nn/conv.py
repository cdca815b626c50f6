"""Causal 1-d convolutions with explicit streaming state: `step` over chunks equals `forward` over the whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.errors import ConfigError


class CausalConv1d(nn.Conv1d):
    """[B, D, F] -> [B, D', ceil(F / stride)]; output i sees inputs up to (i + 1) * stride - 1, the end is zero-padded.

    State: the last `(kernel - 1) * dilation + 1 - stride` inputs, zeros at the start.

    Raises:
        ConfigError: the kernel spans fewer inputs than the stride skips.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, **options: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size, **options)
        self.context = _surplus((kernel_size - 1) * self.dilation[0] + 1, self.stride[0])

    def init_state(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, self.in_channels, self.context)

    def forward(self, x: Tensor) -> Tensor:
        extra = -x.shape[-1] % self.stride[0]
        return super().forward(F.pad(x, (self.context, extra)))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, D, n], n a multiple of the stride, 0 included -> ([B, D', n / stride], next state)."""
        if x.shape[-1] == 0:  # torch refuses inputs shorter than the kernel
            return x.new_zeros(x.shape[0], self.out_channels, 0), state
        joined = torch.cat([state, x], dim=-1)
        return super().forward(joined), joined[..., joined.shape[-1] - self.context :]


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """[B, D, F] -> [B, D', F * stride]; the tail that would overlap the future is dropped (forward) or kept (step).

    State: the `kernel - stride` samples, without bias, that wait for the next input.

    Raises:
        ConfigError: the kernel is shorter than the stride.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size, stride)
        self.overlap = _surplus(kernel_size, stride)

    def init_state(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, self.out_channels, self.overlap)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y[..., : y.shape[-1] - self.overlap]

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, D, n], n = 0 included -> ([B, D', n * stride], next state); the bias is added once per output."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), state
        y = F.conv_transpose1d(x, self.weight, None, self.stride)
        y = torch.cat([y[..., : self.overlap] + state, y[..., self.overlap :]], dim=-1)
        ready = x.shape[-1] * self.stride[0]
        bias = 0.0 if self.bias is None else self.bias[:, None]
        return y[..., :ready] + bias, y[..., ready:]


def _surplus(span: int, stride: int) -> int:
    if span < stride:
        raise ConfigError(f"a causal convolution must span at least its stride {stride}, found {span}")
    return span - stride
