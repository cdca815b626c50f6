"""Asking the detector as the pipeline does, clip by clip, and keeping what it said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import EvaluationError
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform

DECIDED = ("generated", "original")
_LEAST = 1e-12  # probability, so that log odds stay finite


@dataclass(frozen=True)
class Clip:
    """samples [T] at 16 kHz, whether they are generated, and their speaker or piece."""

    samples: Tensor
    generated: bool
    group: str


@dataclass(frozen=True)
class Judged:
    """What the detector said of N clips; all arrays are [N].

    `probabilities` are of "generated": the verdict's, or what it would have been where the verdict is withheld.
    `labels` are the verdicts', `reasons` why they were withheld, "" elsewhere.
    """

    generated: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    reasons: np.ndarray
    groups: np.ndarray
    threshold: float

    def __len__(self) -> int:
        return len(self.generated)

    def where(self, chosen: np.ndarray) -> Judged:
        """Those clips alone."""
        arrays = (self.generated, self.probabilities, self.labels, self.reasons, self.groups)
        return Judged(*(array[chosen] for array in arrays), self.threshold)

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """All of them, in that order."""
        names = ("generated", "probabilities", "labels", "reasons", "groups")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names), parts[0].threshold)

    @property
    def log_odds(self) -> np.ndarray:
        kept = self.probabilities.clip(_LEAST, 1.0 - _LEAST)
        return np.log(kept) - np.log1p(-kept)

    @property
    def called(self) -> np.ndarray:
        """Forced decisions at the detector's threshold: generated?"""
        return self.probabilities >= self.threshold

    @property
    def right(self) -> np.ndarray:
        return self.called == self.generated

    @property
    def decided(self) -> np.ndarray:
        """Where the verdict is neither uncertain nor withheld."""
        return np.isin(self.labels, DECIDED)

    @property
    def withheld(self) -> np.ndarray:
        return self.labels == "withheld"

    def why_withheld(self) -> str:
        """Reasons without their figures, with how often each was given, or ""."""
        counts = Counter(reason.split(":")[0] for reason in self.reasons[self.withheld])
        return ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def judge(pipeline: Pipeline, clips: Iterable[Clip]) -> Judged:
    """Raises EvaluationError without a clip."""
    rows = []
    for clip in clips:
        verdict = pipeline.detect(Waveform(clip.samples))
        probability = verdict.probability
        if probability is None:
            probability = forced_probability(pipeline, clip.samples)
        rows.append((clip.generated, probability, verdict.label, verdict.reason, clip.group))
    if not rows:
        raise EvaluationError("there is no clip to judge")
    generated, probabilities, labels, reasons, groups = (np.array(column) for column in zip(*rows, strict=True))
    return Judged(generated, probabilities, labels, reasons, groups, verdict.threshold)


@torch.no_grad()
def forced_probability(pipeline: Pipeline, samples: Tensor) -> float:
    """The calibrated probability of "generated" for what a verdict is withheld for: samples [T] finite, at 16 kHz."""
    return float(pipeline.models.detector.probabilities(samples[None].to(pipeline.device))[0])
