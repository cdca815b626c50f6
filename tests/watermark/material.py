"""A sound that the watermark knows how to mark."""

from __future__ import annotations

import math

import torch

from audiolm.audio.resample import resample
from audiolm.streams import Waveform


def voice(seconds: float, seed: int = 0, rate_hz: int = 16_000) -> Waveform:
    """Something like speech: harmonics of a wandering pitch, four syllables a second, a little noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * 16_000)) / 16_000
    pitch_hz = 130.0 + 30.0 * torch.sin(2 * math.pi * 0.7 * time + seed)
    phase = 2 * math.pi * torch.cumsum(pitch_hz, 0) / 16_000
    tones = sum(torch.sin(n * phase) / n for n in range(1, 30))
    syllables = 0.2 + 0.8 * torch.sin(2 * math.pi * 2 * time).square()
    samples = 0.1 * syllables * tones + 0.003 * torch.randn(time.shape[0], generator=generator)
    return Waveform(resample(samples, 16_000, rate_hz), rate_hz)
