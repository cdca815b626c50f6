"""The notes of a stretch of piano as figures: how many, which, how many at once and how loud; estimated or exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from audiolm.data.render import read_notes
from audiolm.evaluation.continuations import ContinuedPrompt
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.report import Figure
from audiolm.evaluation.statistics import mean_interval
from audiolm.inspection.pianoroll import Roll, estimate_roll, note_f1


@dataclass(frozen=True)
class NoteStatistics:
    """Onsets a second, share of them in each pitch class [12] (C first), mean number of notes that sound at once, mean
    velocity (None without notes)."""

    rate: float
    pitch_classes: np.ndarray
    polyphony: float
    velocity: float | None


def note_statistics(roll: Roll, start_s: float, end_s: float) -> NoteStatistics:
    """Of the notes of a roll that begin from `start_s` to `end_s`; polyphony also counts those held from before."""
    inside = (roll.onset_s >= start_s) & (roll.onset_s < end_s)
    counts = np.bincount(roll.pitch[inside] % 12, minlength=12).astype(float)
    times_s = np.arange(start_s, end_s, 1 / FRAME_RATE_HZ)
    return NoteStatistics(
        rate=float(inside.sum()) / (end_s - start_s),
        pitch_classes=counts / counts.sum() if counts.any() else np.full(12, 1 / 12),
        polyphony=float(roll.polyphony(times_s).mean()),
        velocity=float(roll.velocity[inside].mean()) if inside.any() else None,
    )


def exact_rolls(holdout: HoldOut) -> dict[str, Roll]:
    """The notes of the items of a rendered corpus; none for recordings. Raises DataError where they are damaged."""
    if holdout.corpus is None:
        return {}
    return {
        name: Roll(notes.onset_s, notes.end_s, notes.pitch, notes.velocity)
        for name, notes in read_notes(holdout.corpus.folder).items()
    }


def estimate_figures(samples: Sequence[ContinuedPrompt], exact: Mapping[str, Roll]) -> list[Figure]:
    """How far the estimated notes can be trusted here: against the exact ones, from the recording and from its codec's
    version; none where no notes are known."""
    known = [one for one in samples if one.id in exact]
    if not known:
        return []
    figures = []
    for name in ("recording", "original"):
        scores = []
        for one in known:
            heard, notes = getattr(one, name), exact[one.id]
            inside = notes.onset_s < len(heard) / SAMPLE_RATE_HZ
            cut = Roll(notes.onset_s[inside], notes.end_s[inside], notes.pitch[inside], notes.velocity[inside])
            scores.append(note_f1(estimate_roll(heard), cut))
        of = "recordings" if name == "recording" else "recordings through the codec"
        for label, values in zip(("precision", "recall", "F1"), zip(*scores, strict=True), strict=True):
            figures.append(Figure.of(f"note estimate, {label}, {of}", mean_interval(values)))
    return figures
