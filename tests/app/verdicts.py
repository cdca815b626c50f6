"""Verdicts and judged sounds of made-up values."""

from __future__ import annotations

from pathlib import Path

import torch

from app.results import Hearing
from audiolm.detector import Verdict
from audiolm.streams import Waveform

HASH = "0123456789ab" + "f" * 52


def verdict(**changes) -> Verdict:
    values = {
        "label": "generated",
        "probability": 0.9,
        "threshold": 0.5,
        "false_positive_rate": 0.01,
        "false_negative_rate": 0.02,
        "num_originals": 2000,
        "num_generated": 1800,
        "model_sha256": HASH,
    }
    return Verdict(**{**values, **changes})


def withheld(reason: str = "too short: 0.40 s", **changes) -> Verdict:
    return verdict(label="withheld", probability=None, reason=reason, **changes)


def spliced() -> Verdict:
    """Of 2 s: original at first, then generated."""
    course = {"segment_times_s": (0.0, 0.5, 1.0, 1.5, 2.0), "segment_probabilities": (0.1, 0.05, 0.2, 0.97, 0.9)}
    return verdict(boundary_s=1.25, judged_from_s=1.25, **course)


def heard(one: Verdict) -> Hearing:
    """2 s of a tone; saliency of 16 bands where there is a score."""
    tone = Waveform(0.3 * torch.sin(torch.arange(32_000) / 9.0))
    saliency = torch.linspace(-1, 1, 16)[:, None].expand(16, 257) if one.probability is not None else None
    return Hearing(tone, Path("nowhere.wav"), one, saliency)
