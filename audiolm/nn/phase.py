"""Phases for magnitudes: one pass along spectral peaks, then consistent ones by iteration, in blocks that stream.

A decoder that need not say phases reads tokens that need not carry them: a held note is then one token and not a
different one in every frame, which is what makes tokens predictable.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK_FRAMES = 50
AHEAD_FRAMES = 5  # further frames that a block is made consistent with
NUM_ITERATIONS = 12
MOMENTUM = 0.99
_TINY = 1e-9


class PhaseState(NamedTuple):
    """`pending` magnitudes [B, K, n] wait for a full block; `context` [B, K, C] are the last spectra given out."""

    pending: Tensor
    context: Tensor


class PhaseReconstruction(nn.Module):
    """Magnitudes [B, K, N] of a short-time Fourier transform (Hann window, K = n_fft / 2 + 1) -> complex spectra.

    Start: single-pass spectrogram inversion (Beauregard, Harish, Wyse, 2015): the phase of every spectral peak advances
    by its interpolated frequency, its neighbours follow it. Then the fast Griffin-Lim algorithm (Perraudin, Balazs,
    Soendergaard, 2013) within blocks of 50 frames, each joined to the spectra before it, which stay as they are.
    """

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.context_frames = n_fft // hop_length - 1
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def init_state(self, batch: int) -> PhaseState:
        bins = self.n_fft // 2 + 1
        context = torch.zeros(batch, bins, self.context_frames, dtype=torch.complex64, device=self.window.device)
        return PhaseState(context.real[..., :0], context)

    def forward(self, magnitudes: Tensor) -> Tensor:
        """The whole at once: `step`, then `flush`."""
        spectra, state = self.step(magnitudes, self.init_state(magnitudes.shape[0]))
        return torch.cat([spectra, self.flush(state)], dim=-1)

    def step(self, magnitudes: Tensor, state: PhaseState) -> tuple[Tensor, PhaseState]:
        """magnitudes [B, K, n] -> (spectra of the blocks that are now complete [B, K, m], next state)."""
        pending, done = torch.cat([state.pending, magnitudes], dim=-1), []
        while pending.shape[-1] >= BLOCK_FRAMES + AHEAD_FRAMES:
            spectra, state = self._block(pending[..., : BLOCK_FRAMES + AHEAD_FRAMES], BLOCK_FRAMES, state)
            done.append(spectra)
            pending = pending[..., BLOCK_FRAMES:]
        none = state.context[..., :0]
        return torch.cat([none, *done], dim=-1), state._replace(pending=pending)

    def flush(self, state: PhaseState) -> Tensor:
        """The spectra of what is pending [B, K, m]."""
        pending, done = state.pending, [state.context[..., :0]]
        while pending.shape[-1]:
            count = min(BLOCK_FRAMES, pending.shape[-1])
            spectra, state = self._block(pending[..., : count + AHEAD_FRAMES], count, state)
            done.append(spectra)
            pending = pending[..., count:]
        return torch.cat(done, dim=-1)

    def _block(self, magnitudes: Tensor, count: int, state: PhaseState) -> tuple[Tensor, PhaseState]:
        """Spectra of the first `count` frames [B, K, n], and the state after them."""
        phases = follow_peaks(magnitudes, state.context[..., -1].angle(), self.n_fft, self.hop_length)
        spectra = torch.polar(magnitudes, phases)
        previous = None
        for _ in range(NUM_ITERATIONS):
            consistent = self._reanalyse(torch.cat([state.context, spectra], dim=-1))[..., self.context_frames :]
            ahead = consistent if previous is None else consistent + MOMENTUM * (consistent - previous)
            previous = consistent
            spectra = magnitudes * ahead / ahead.abs().clamp_min(_TINY)
        known = torch.cat([state.context, spectra[..., :count]], dim=-1)
        return spectra[..., :count], state._replace(context=known[..., -self.context_frames :])

    def _reanalyse(self, spectra: Tensor) -> Tensor:
        """The spectra [B, K, n] of the waveform that these spectra add up to."""
        window = self.window[:, None]
        frames = torch.fft.irfft(spectra, self.n_fft, dim=1) * window
        length = (frames.shape[-1] - 1) * self.hop_length + self.n_fft
        summed = self._add_up(frames, length)
        weights = self._add_up((window**2).expand(1, -1, frames.shape[-1]), length)
        waveforms = summed / weights.clamp_min(1e-2 * float(weights.max()))
        return torch.fft.rfft(waveforms.unfold(1, self.n_fft, self.hop_length).mT * window, dim=1)

    def _add_up(self, frames: Tensor, length: int) -> Tensor:
        return F.fold(frames, (1, length), (1, self.n_fft), stride=(1, self.hop_length))[:, 0, 0]


def follow_peaks(magnitudes: Tensor, phases: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """magnitudes [B, K, n] after a frame with `phases` [B, K] -> phases [B, K, n].

    Neighbours of a peak alternate by pi, as in the spectrum of a sinusoid under a window that starts at its first
    sample.
    """
    owner, advance = _peaks(magnitudes, n_fft, hop_length)
    bins = torch.arange(magnitudes.shape[1], device=magnitudes.device)[:, None]
    steps = torch.remainder(advance.gather(1, owner) + math.pi * ((bins - owner) % 2), 2 * math.pi)
    followed = []
    for frame in range(magnitudes.shape[-1]):
        phases = phases.gather(1, owner[..., frame]) + steps[..., frame]
        followed.append(phases)
    return torch.stack(followed, dim=-1)


def _peaks(magnitudes: Tensor, n_fft: int, hop_length: int) -> tuple[Tensor, Tensor]:
    """[B, K, n] -> (the nearest peak of every bin, itself where a frame has none; each bin's advance in radians)."""
    logs = torch.log(magnitudes + _TINY)
    below, centre, above = logs[:, :-2], logs[:, 1:-1], logs[:, 2:]
    is_peak = F.pad((centre > below) & (centre >= above), (0, 0, 1, 1))
    curvature = (below - 2.0 * centre + above).clamp_max(-_TINY)
    offset = F.pad((0.5 * (below - above) / curvature).clamp(-0.5, 0.5), (0, 0, 1, 1)) * is_peak
    count = magnitudes.shape[1]
    bins = torch.arange(count, device=magnitudes.device)[:, None].expand(magnitudes.shape)
    lower = torch.where(is_peak, bins, -count).cummax(dim=1).values
    upper = torch.where(is_peak, bins, 2 * count).flip(1).cummin(dim=1).values.flip(1)
    owner = torch.where(bins - lower <= upper - bins, lower, upper)
    owner = torch.where((owner >= 0) & (owner < count), owner, bins)
    return owner, 2.0 * math.pi * hop_length / n_fft * (bins + offset)
