"""The three streams that flow through the system: waveform, semantic tokens, acoustic tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SEMANTIC_RATE_HZ


@dataclass(frozen=True)
class Waveform:
    """Mono audio: `samples` is float32 [T], nominally within [-1, 1]."""

    samples: Tensor
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        if self.samples.ndim != 1:
            raise ValueError(f"Waveform.samples must be [T], found shape {tuple(self.samples.shape)}")

    @property
    def duration_s(self) -> float:
        return self.samples.shape[0] / self.sample_rate_hz

    def int16(self) -> Tensor:
        """[T] int16; values beyond [-1, 1] are clipped."""
        return (self.samples.detach().cpu().clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16)

    def seconds(self, start_s: float, end_s: float | None = None) -> Waveform:
        start = round(start_s * self.sample_rate_hz)
        end = None if end_s is None else round(end_s * self.sample_rate_hz)
        return Waveform(self.samples[start:end], self.sample_rate_hz)


@dataclass(frozen=True)
class SemanticTokens:
    """Semantic token ids [S] long at 25 Hz, repeats kept (`lm.sequences.merge_repeats` takes them out).

    -1 where a run was asked to do without.
    """

    ids: Tensor
    codebook_size: int
    frame_rate_hz: int = SEMANTIC_RATE_HZ

    @property
    def duration_s(self) -> float:
        return self.ids.shape[0] / self.frame_rate_hz


@dataclass(frozen=True)
class AcousticTokens:
    """Codec codes [F, Q] long at 50 Hz: Q residual quantizer levels, coarsest first."""

    codes: Tensor
    codebook_size: int
    frame_rate_hz: int = FRAME_RATE_HZ

    @property
    def num_levels(self) -> int:
        return self.codes.shape[1]

    @property
    def duration_s(self) -> float:
        return self.codes.shape[0] / self.frame_rate_hz
