"""Notes of a piano recording, estimated from its spectrum, and how well an estimate agrees with the exact notes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Roll:
    """n notes in order of onset: `onset_s`, `end_s` [n] float64, `pitch` (MIDI) and `velocity` (1..127) [n] int64."""

    onset_s: np.ndarray
    end_s: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray

    def __len__(self) -> int:
        return len(self.pitch)

    def polyphony(self, times_s: np.ndarray) -> np.ndarray:
        """How many notes sound at each of times_s [m] -> [m] int64."""
        started = np.searchsorted(np.sort(self.onset_s), times_s, side="right")
        return started - np.searchsorted(np.sort(self.end_s), times_s, side="right")


def estimate_roll(waveform: Tensor) -> Roll:
    """Notes of waveform [T] at 16 kHz; an estimate."""
    raise NotImplementedError


def note_f1(estimated: Roll, exact: Roll, tolerance_s: float = 0.05) -> tuple[float, float, float]:
    """(precision, recall, F1) of notes: equal pitch and onsets within `tolerance_s`, matched one to one (MIREX).

    Within a pitch both lists are walked in order of time, which gives the largest possible matching. An empty side
    has precision or recall 0, two empty rolls have 1.
    """
    if len(estimated) == 0 and len(exact) == 0:
        return 1.0, 1.0, 1.0
    matched = sum(
        _matches(np.sort(estimated.onset_s[estimated.pitch == pitch]), np.sort(exact.onset_s[exact.pitch == pitch]),
                 tolerance_s)
        for pitch in np.intersect1d(estimated.pitch, exact.pitch)
    )  # fmt: skip
    return matched / max(len(estimated), 1), matched / max(len(exact), 1), 2 * matched / (len(estimated) + len(exact))


def _matches(a: np.ndarray, b: np.ndarray, tolerance: float) -> int:
    """Size of the largest one-to-one matching of two sorted lists within the tolerance."""
    i = j = matched = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance + 1e-9:
            i, j, matched = i + 1, j + 1, matched + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return matched
