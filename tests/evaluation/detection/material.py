"""Pairs that a checkpoint of random weights might have made, a detector that hears a tone, and the inputs of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from audiolm.checkpoints.components import MADE_FOR
from audiolm.data.pairs import PairWriter
from audiolm.detector import Verdict
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.subject import Subject
from audiolm.streams import Waveform

T = 32_000  # after the join, and before it
TONE_HZ = 2_000.0
SHA256 = "d" * 64


def recording(seed: int, length: int = 2 * T) -> Tensor:
    """Noise that comes and goes, RMS about 0.07."""
    generator = torch.Generator().manual_seed(seed)
    envelope = 1.0 + 0.8 * torch.sin(torch.arange(length) / 16_000 * 19.0)
    return 0.06 * envelope * torch.randn(length, generator=generator)


def with_tone(samples: Tensor, first: int = 0) -> Tensor:
    """A tone on top from sample `first` on: what the stand-in detector takes for generated."""
    tone = 0.1 * torch.sin(2 * torch.pi * TONE_HZ * torch.arange(samples.shape[0]) / 16_000)
    return samples + tone * (torch.arange(samples.shape[0]) >= first)


def write_pairs(
    folder: Path, components: dict[str, str], generate: Callable[[Tensor], Tensor] | None = None, join: int = T
) -> Path:
    """12 pairs of split train, 24 of test, two of each speaker; by their notes every second one carries a
    watermark, every third has its fine codes from the masked decoder.

    `generate` makes a generated row [join + T] of its original; a tone after the join where it is not given.
    """
    make = generate or (lambda original: with_tone(original, join))
    meta = {"length": T, "join": join, "made_for": {name: components[name] for name in MADE_FOR["detector"]}}
    for split, first, count in (("train", 0, 12), ("test", 100, 24)):
        originals = torch.stack([recording(first + row, join + T) for row in range(count)])
        notes = [
            {"item": str(row), "group": f"{split}-{row // 2}", "marked": row % 2 == 0, "masked": row % 3 == 0}
            for row in range(count)
        ]
        PairWriter(folder, split, meta).add(torch.stack([make(row) for row in originals]), originals, notes)
    return folder


@dataclass(frozen=True)
class ToneDetector:
    """Stands for a pipeline: calls generated what holds a tone at 2 kHz, and names where it begins.

    `confidence` is the probability it gives to its answer, `verdict` is laid over what it says.
    """

    confidence: float = 0.999
    verdict: dict[str, Any] | None = None
    device: str = "cpu"

    @property
    def models(self) -> SimpleNamespace:
        network = SimpleNamespace(probabilities=lambda rows: torch.stack([self._probability(row) for row in rows]))
        codec = torch.nn.Linear(1, 1)
        codec.num_levels, codec.encode = 8, lambda rows: rows[..., None].expand(-1, -1, 8)
        codec.decode = lambda codes: codes[..., 0]
        return SimpleNamespace(detector=network, codec=codec)

    def detect(self, waveform: Waveform) -> Verdict:
        heard = tonality(waveform.samples) > 0.5
        probability = float(self._probability(waveform.samples))
        boundary_s = None
        if bool(heard.any()) and not bool(heard.all()):
            boundary_s = float(heard.float().argmax()) * 0.1
        said = Verdict(
            "generated" if probability >= 0.5 else "original", probability, 0.5, 0.01, 0.01, 100, 100,
            model_sha256=SHA256, boundary_s=boundary_s,
        )  # fmt: skip
        return replace(said, **(self.verdict or {}))

    def _probability(self, samples: Tensor) -> Tensor:
        is_heard = bool((tonality(samples) > 0.5).float().mean() > 0.1)
        return torch.tensor(self.confidence if is_heard else 1.0 - self.confidence, dtype=torch.float64)


def tonality(samples: Tensor) -> Tensor:
    """[T] -> [T / 1600]: share of power within 6 % of the tone's pitch, in windows of 0.1 s."""
    power = torch.fft.rfft(samples.unfold(0, 1_600, 1_600) * torch.hann_window(1_600)).abs().square()
    hertz = torch.fft.rfftfreq(1_600, 1 / 16_000)
    near = (hertz - TONE_HZ).abs() < 0.06 * TONE_HZ
    return power[:, near].sum(dim=1) / power.sum(dim=1).clamp_min(1e-9)


def stand_in(pairs: Path, detector: ToneDetector, subject: Subject, **others: Any) -> DetectionInputs:
    """Inputs whose detector is the stand-in; `subject` names the components that made the pairs."""
    inputs = DetectionInputs(subject, pairs, **others)
    inputs.__dict__["pipeline"] = detector
    return inputs
