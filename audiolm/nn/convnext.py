"""Frame-by-frame codec backbone: STFT -> ConvNeXt blocks -> latents, and back through an inverse STFT.

It departs from SoundStream's waveform SEANet (the idea is that of Vocos, arXiv 2306.00814): the encoder sees both sides
(about 0.3 s), the decoder is causal but for a stated look-ahead, so that it streams with explicit state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import SAMPLES_PER_FRAME, FrameBackboneConfig
from audiolm.nn.conv import CausalConv1d
from audiolm.nn.phase import PhaseReconstruction

State = dict[str, Any]


class ConvNextBlock(nn.Module):
    """[B, F, D] -> [B, F, D]: depthwise convolution, layer norm, two-layer perceptron, scaled residual."""

    def __init__(self, width: int, expansion: int, kernel_size: int, causal: bool) -> None:
        super().__init__()
        if causal:
            self.mix: nn.Conv1d = CausalConv1d(width, width, kernel_size, groups=width)
        else:
            self.mix = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width * expansion)
        self.down = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self._transform(x, self.mix(x.transpose(1, 2)).transpose(1, 2))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        mixed, state = self.mix.step(x.transpose(1, 2), state)
        return self._transform(x, mixed.transpose(1, 2)), state

    def _transform(self, x: Tensor, mixed: Tensor) -> Tensor:
        return x + self.scale * self.down(F.gelu(self.up(self.norm(mixed)), approximate="tanh"))


class FrameEncoder(nn.Module):
    """Waveforms [B, T] -> latents [B, D, F], F = ceil(T / 320)."""

    def __init__(self, config: FrameBackboneConfig, dimension: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.input = nn.Linear((5 if config.phase == "predicted" else 2) * (config.n_fft // 2 + 1), width)
        self.fast = nn.ModuleList(_blocks(config, config.encoder_blocks[0], causal=False))
        self.merge = nn.Linear(2 * width, width)
        self.slow = nn.ModuleList(_blocks(config, config.encoder_blocks[1], causal=False))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, dimension)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        x = self.input(self._features(waveforms))
        for block in self.fast:
            x = block(x)
        x = self.merge(x.reshape(x.shape[0], x.shape[1] // 2, -1))
        for block in self.slow:
            x = block(x)
        return self.output(self.norm(x)).transpose(1, 2)

    def spectra(self, waveforms: Tensor) -> Tensor:
        """[B, T] -> complex [B, n_fft / 2 + 1, 2F], the frames that latents stand for."""
        config = self.config
        margin = (config.n_fft - config.hop_length) // 2
        padded = F.pad(waveforms.float(), (0, -waveforms.shape[-1] % SAMPLES_PER_FRAME))
        # A sound that is cut off has all frequencies, and phases cannot take them out again: it is mirrored instead.
        mirrored = config.phase == "reconstructed" and padded.shape[-1] > margin
        padded = F.pad(padded, (margin, margin), mode="reflect" if mirrored else "constant")
        return torch.stft(
            padded, config.n_fft, config.hop_length, window=self.window, center=False, return_complex=True
        )

    def _features(self, waveforms: Tensor) -> Tensor:
        """[B, T] -> [B, 2F, 5 bins]: spectra with magnitudes to the power 0.3, log magnitudes, spectra as they are.

        Any one could be learnt from the others, but without the log magnitudes the envelope takes several times as
        many steps, and without a linear path from spectrum to spectrum the phase stays out for thousands. Where phases
        are reconstructed: [B, 2F, 2 bins], the magnitudes alone.
        """
        spectra = self.spectra(waveforms).transpose(1, 2)
        power = spectra.real**2 + spectra.imag**2 + 1e-7
        logs = 0.25 * torch.log(power) + 1.0
        if self.config.phase == "reconstructed":
            return torch.cat([power**0.15, logs], dim=-1)
        gain = power**-0.35
        compressed = [spectra.real * gain, spectra.imag * gain, logs]
        return torch.cat([*compressed, 0.3 * spectra.real, 0.3 * spectra.imag], dim=-1)


class FrameDecoder(nn.Module):
    """Latents [B, D, F] -> waveforms [B, 320 F].

    `step` lags behind by `look_ahead_frames`, and where phases are reconstructed by a block of them.
    """

    def __init__(self, config: FrameBackboneConfig, dimension: int) -> None:
        super().__init__()
        self.config = config
        width, ahead = config.width, config.look_ahead_frames
        self.input = CausalConv1d(dimension, width, 2 * ahead + 1)
        self.slow = nn.ModuleList(_blocks(config, config.decoder_blocks[0], causal=True))
        self.split = nn.Linear(width, 2 * width)
        self.fast = nn.ModuleList(_blocks(config, config.decoder_blocks[1], causal=True))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, (3 if config.phase == "predicted" else 1) * (config.n_fft // 2 + 1))
        self.phases = PhaseReconstruction(config.n_fft, config.hop_length) if config.phase == "reconstructed" else None
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.margin = (config.n_fft - config.hop_length) // 2

    def forward(self, latents: Tensor) -> Tensor:
        heads = self._heads(latents)
        return self._inner(self._directed(heads)) if self.phases is None else self.sound(_rounded(heads))

    def sound(self, log_magnitudes: Tensor) -> Tensor:
        """[B, n_fft / 2 + 1, 2F] -> waveforms [B, 320 F]; gradients reach the magnitudes, the phases are as found."""
        magnitudes = _magnitudes(log_magnitudes)
        with torch.no_grad():
            directions = torch.sgn(self.phases(magnitudes))
        return self._inner(magnitudes * directions)

    def log_magnitudes(self, latents: Tensor) -> Tensor:
        """[B, D, F] -> [B, n_fft / 2 + 1, 2F], what a decoder that reconstructs phases is trained by."""
        return self._heads(latents)

    def init_state(self, batch: int) -> State:
        blocks = [*self.slow, *self.fast]
        return {
            "input": self.input.init_state(batch),
            "blocks": [block.mix.init_state(batch) for block in blocks],
            "phases": None if self.phases is None else self.phases.init_state(batch),
            "overlap": self.window.new_zeros(batch, self.config.n_fft - self.config.hop_length),
            "skip_frames": self.config.look_ahead_frames,
            "skip_samples": self.margin,
        }

    def step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """latents [B, D, n] -> (the waveform samples that are now final [B, m], next state)."""
        x, input_state = self.input.step(latents, state["input"])
        skipped = min(state["skip_frames"], x.shape[-1])
        x = x[..., skipped:].transpose(1, 2)
        next_state = {**state, "input": input_state, "skip_frames": state["skip_frames"] - skipped}
        if x.shape[1] == 0:
            return self.window.new_zeros(latents.shape[0], 0), next_state
        states = list(state["blocks"])
        for index, block in enumerate(self.slow):
            x, states[index] = block.step(x, states[index])
        x = self._double(x)
        for index, block in enumerate(self.fast, start=len(self.slow)):
            x, states[index] = block.step(x, states[index])
        next_state["blocks"], heads = states, self._head(x)
        if self.phases is None:
            return self._emit(self._directed(heads), next_state)
        spectra, next_state["phases"] = self.phases.step(_magnitudes(_rounded(heads)), state["phases"])
        return self._emit(spectra, next_state)

    def flush(self, state: State) -> Tensor:
        """The samples withheld for look-ahead, phases and overlap [B, m]."""
        weight = self.input.weight
        batch = state["overlap"].shape[0]
        silence = weight.new_zeros(batch, self.input.in_channels, self.config.look_ahead_frames)
        waveforms, state = self.step(silence, state)
        if self.phases is not None:
            rest, state = self._emit(self.phases.flush(state["phases"]), state)
            waveforms = torch.cat([waveforms, rest], dim=-1)
        return torch.cat([waveforms, state["overlap"][:, : self.margin]], dim=-1)

    def _emit(self, spectra: Tensor, state: State) -> tuple[Tensor, State]:
        """Spectra [B, bins, n] -> (the samples that no later spectrum touches [B, m], next state)."""
        if spectra.shape[-1] == 0:
            return self.window.new_zeros(spectra.shape[0], 0), state
        overlapped = self._overlap_add(spectra)
        tail = state["overlap"].shape[-1]
        overlapped = torch.cat([overlapped[:, :tail] + state["overlap"], overlapped[:, tail:]], dim=-1)
        ready = overlapped[:, : spectra.shape[-1] * self.config.hop_length]
        samples = min(state["skip_samples"], ready.shape[-1])
        rest = {"overlap": overlapped[:, ready.shape[-1] :], "skip_samples": state["skip_samples"] - samples}
        return ready[:, samples:], {**state, **rest}

    def _heads(self, latents: Tensor) -> Tensor:
        ahead = self.config.look_ahead_frames
        x = self.input(F.pad(latents, (0, ahead)))[..., ahead:].transpose(1, 2)
        for block in self.slow:
            x = block(x)
        x = self._double(x)
        for block in self.fast:
            x = block(x)
        return self._head(x)

    def _head(self, x: Tensor) -> Tensor:
        """[B, 2F, width] -> [B, outputs, 2F] float32."""
        return self.head(self.norm(x)).float().transpose(1, 2)

    def _double(self, x: Tensor) -> Tensor:
        return self.split(x).reshape(x.shape[0], 2 * x.shape[1], -1)

    def _directed(self, heads: Tensor) -> Tensor:
        """[B, 3 bins, 2F] -> complex [B, bins, 2F]: exp(log magnitude) times a direction.

        The direction is a linear real and imaginary part over their norm. Angles as such (Vocos) do not learn from
        spectral losses alone here.
        """
        log_magnitude, real, imaginary = heads.chunk(3, dim=1)
        scale = _magnitudes(log_magnitude) * torch.rsqrt(real**2 + imaginary**2 + 1e-4)
        return torch.complex(scale * real, scale * imaginary)

    def _inner(self, spectra: Tensor) -> Tensor:
        """Complex [B, bins, 2F] -> waveforms [B, 320 F], without what lies before and after the frames."""
        overlapped = self._overlap_add(spectra)
        return overlapped[:, self.margin : overlapped.shape[-1] - self.margin]

    def _overlap_add(self, spectra: Tensor) -> Tensor:
        """Complex [B, bins, N] -> [B, (N - 1) hop + n_fft]; the squared windows add up to 3/8 of n_fft / hop."""
        config = self.config
        frames = torch.fft.irfft(spectra, config.n_fft, dim=1) * self.window[:, None]
        length = (frames.shape[-1] - 1) * config.hop_length + config.n_fft
        summed = F.fold(frames, (1, length), (1, config.n_fft), stride=(1, config.hop_length))
        return summed[:, 0, 0] / (0.375 * config.n_fft / config.hop_length)


def _rounded(log_magnitudes: Tensor) -> Tensor:
    """To 1/64 nat (0.14 dB): the search for phases makes a difference in the last digit audible, such as between a
    stream's chunks and the whole; rounded, it rarely is one (only where a value lies at the edge of a step)."""
    return torch.round(log_magnitudes * 64.0) / 64.0


def _magnitudes(log_magnitudes: Tensor) -> Tensor:
    """Bounded: an early model explodes."""
    return torch.exp(log_magnitudes.clamp(max=6.0))


def _blocks(config: FrameBackboneConfig, count: int, causal: bool) -> list[ConvNextBlock]:
    return [ConvNextBlock(config.width, config.expansion, config.kernel_size, causal) for _ in range(count)]
