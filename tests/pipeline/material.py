"""Recordings and requests of the pipeline's tests."""

from __future__ import annotations

import torch

from audiolm.config import (
    FRAME_RATE_HZ,
    FRAMES_PER_SEMANTIC,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    SamplingConfig,
)
from audiolm.events import Event, Result
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform

PROMPT_S, CONTINUATION_S = 1.0, 0.6  # of `request`
PROMPT_FRAMES = round(PROMPT_S * FRAME_RATE_HZ)
NUM_FRAMES = PROMPT_FRAMES + round(CONTINUATION_S * FRAME_RATE_HZ)
KEPT_FRAMES = PROMPT_FRAMES - FRAMES_PER_SEMANTIC  # the prompt's last semantic position is made anew
KEPT_POSITIONS = KEPT_FRAMES // FRAMES_PER_SEMANTIC
KEPT_SAMPLES = KEPT_FRAMES * SAMPLES_PER_FRAME
KEPT_S = KEPT_FRAMES / FRAME_RATE_HZ
NEW_FRAMES = NUM_FRAMES - KEPT_FRAMES


def recording(seconds: float, seed: int = 0, gain: float = 0.1) -> Waveform:
    """Noise that swells and fades four times a second."""
    num_samples = round(seconds * SAMPLE_RATE_HZ)
    noise = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))
    swell = 0.55 + 0.45 * torch.sin(torch.arange(num_samples) * (2 * torch.pi * 4 / SAMPLE_RATE_HZ))
    return Waveform(gain * noise * swell)


def request(**changes: object) -> ContinuationRequest:
    """1 s of prompt, 0.6 s of continuation, two rows, everything at temperature 1."""
    hot = {stage: SamplingConfig() for stage in ("semantic", "coarse", "fine")}
    lengths = {"prompt_s": PROMPT_S, "continuation_s": CONTINUATION_S}
    fields = {**lengths, "num_continuations": 2, "seed": 3, **hot, **changes}
    return ContinuationRequest(**fields)


def random(*shape: int, high: int, seed: int = 0) -> torch.Tensor:
    """Ids below `high`."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def finish(events: object) -> Result:
    """The result of a run, which must be its last event."""
    seen: list[Event] = list(events)
    assert all(not isinstance(event, Result) for event in seen[:-1])
    assert isinstance(seen[-1], Result)
    return seen[-1]
