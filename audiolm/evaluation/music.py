"""C6: does the continuation stay in the prompt's key, pace, loudness and texture? Chroma, onsets, level and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import librosa
import numpy as np
import torch
from torch import Tensor

from audiolm.audio.loudness import integrated_loudness
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import ContinuedPrompt, continue_prompts, describe
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.notes import NoteStatistics, estimate_figures, exact_rolls, note_statistics
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import mean_interval, pairing_p_value, rate_interval
from audiolm.evaluation.subject import untrained
from audiolm.inspection.pianoroll import Roll, estimate_roll

TITLE = "Piano: key, onset rate, loudness and notes of the continuation against the prompt"
TARGET = "key, onset rate and loudness each closer than in a shuffled pairing, p < 0.01"
MIN_PAIRS = 5  # fewer have too few orders for p < 0.01
CHROMA_FFT = 4096
ONSET_HOP = 160
_RATE_OFFSET = 0.5  # a second: rates of 0 have a logarithm too


def chroma(waveform: Tensor, hop_length: int = 1024) -> np.ndarray:
    """[T] at 16 kHz -> [12, T // hop_length + 1] energy of the pitch classes, C first (librosa, A = 440 Hz).

    Windows of 256 ms; columns are not normalised.
    """
    return librosa.feature.chroma_stft(
        y=waveform.numpy(), sr=SAMPLE_RATE_HZ, n_fft=CHROMA_FFT, hop_length=hop_length, norm=None, tuning=0.0
    )


def key_profile(waveform: Tensor) -> np.ndarray:
    """[T] -> [12] share of the energy in each pitch class; all equal for silence."""
    energy = chroma(waveform).sum(axis=1).astype(np.float64)
    return energy / energy.sum() if energy.sum() > 0.0 else np.full(12, 1.0 / 12)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's of two vectors; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-12 else 0.0


def onset_rate(waveform: Tensor) -> float:
    """Onsets a second of [T] at 16 kHz (librosa: peaks of the mel spectral flux)."""
    onsets = librosa.onset.onset_detect(y=waveform.numpy(), sr=SAMPLE_RATE_HZ, hop_length=ONSET_HOP, units="time")
    return len(onsets) * SAMPLE_RATE_HZ / waveform.shape[0]


def loudness(waveform: Tensor) -> float:
    """Integrated loudness of [T] in LUFS (ITU-R BS.1770-4)."""
    return float(integrated_loudness(waveform[None])[0])


@dataclass(frozen=True)
class Music:
    """What is compared of a stretch of piano: energy by pitch class [12], onsets a second, LUFS, estimated notes."""

    key: np.ndarray
    onset_rate: float
    loudness: float
    notes: NoteStatistics


def listen(waveform: Tensor, start: int, end: int) -> Music:
    """Samples `start` to `end` of [T] at 16 kHz. Notes are estimated from the whole: held ones must not begin anew."""
    stretch, notes = waveform[start:end], estimate_roll(waveform)
    return Music(
        key=key_profile(stretch),
        onset_rate=onset_rate(stretch),
        loudness=loudness(stretch),
        notes=note_statistics(notes, start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ),
    )


def _log_ratio(a: float, b: float) -> float:
    return abs(float(np.log((a + _RATE_OFFSET) / (b + _RATE_OFFSET))))


def _difference(a: float | None, b: float | None) -> float:
    """NaN where either is unknown."""
    return np.nan if a is None or b is None else abs(a - b)


ASPECTS: dict[str, Callable[[Music, Music], float]] = {
    "key (1 - chroma correlation)": lambda a, b: 1.0 - correlation(a.key, b.key),
    "onset rate (absolute log ratio)": lambda a, b: _log_ratio(a.onset_rate, b.onset_rate),
    "loudness (LU)": lambda a, b: abs(a.loudness - b.loudness),
    "notes a second (absolute log ratio)": lambda a, b: _log_ratio(a.notes.rate, b.notes.rate),
    "pitch classes of notes (1 - correlation)": lambda a, b: (
        1.0 - correlation(a.notes.pitch_classes, b.notes.pitch_classes)
    ),
    "polyphony (difference)": lambda a, b: abs(a.notes.polyphony - b.notes.polyphony),
    "velocity (difference)": lambda a, b: _difference(a.notes.velocity, b.notes.velocity),
}
JUDGED = tuple(ASPECTS)[:3]
VALUES: dict[str, Callable[[NoteStatistics], float | None]] = {
    "notes a second": lambda notes: notes.rate,
    "polyphony": lambda notes: notes.polyphony,
    "velocity": lambda notes: notes.velocity,
}


def distances(prompts: Sequence[Music], continuations: Sequence[Music]) -> dict[str, np.ndarray]:
    """[N, N] distances of prompt i and continuation j by aspect; NaN where either has no notes to compare."""
    return {
        aspect: np.array([[distance(a, b) for b in continuations] for a in prompts])
        for aspect, distance in ASPECTS.items()
    }


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError for speech, without a whole checkpoint, recordings, a work folder, or with one prompt."""
    if inputs.domain != "piano":
        raise EvaluationError("keys and onsets are a matter of music")
    samples = continue_prompts(inputs)
    if len(samples) < 2:
        raise EvaluationError(f"a shuffled pairing needs at least 2 continuations, found {len(samples)}")
    random = continue_prompts(replace(inputs, subject=untrained(inputs.subject)))
    exact = exact_rolls(inputs.holdout)
    sides = listen_to_all(samples, random)
    figures, p_values = pairing_figures(sides)
    figures += [*value_figures(sides, samples, exact), *estimate_figures(samples, exact)]
    notes = [describe(samples), *(f"{aspect}: p = {p:.4g} (permutation test)" for aspect, p in p_values.items())]
    if few := len(samples) < MIN_PAIRS:
        notes.append(f"not judged: {len(samples)} pairs are too few for p < 0.01")
    met = None if few else all(p_values[aspect] < 0.01 for aspect in JUDGED)
    return RowReport("C6", TITLE, TARGET, tuple(figures), met, tuple(notes))


def listen_to_all(samples: Sequence[ContinuedPrompt], random: Sequence[ContinuedPrompt]) -> dict[str, list[Music]]:
    """Prompts, and by name what is set beside them: own continuations, the originals' rests, those of `random`."""

    def rests(continued: Sequence[ContinuedPrompt]) -> list[Music]:
        wholes = [(one, torch.cat([one.prompt, one.continuation])) for one in continued]
        return [listen(whole, len(one.prompt), len(whole)) for one, whole in wholes]

    return {
        "prompts": [listen(one.prompt, 0, len(one.prompt)) for one in samples],
        "own continuation": rests(samples),
        "the original's rest": [listen(one.original, len(one.prompt), len(one.original)) for one in samples],
        "an untrained stage's continuation": rests(random),
    }


def pairing_figures(sides: Mapping[str, list[Music]]) -> tuple[list[Figure], dict[str, float]]:
    """Distances from the prompts by aspect, beside those of a shuffled pairing; and the p value of each aspect.

    Pairs without a distance are left out; an aspect with fewer than two left has no p value.
    """
    prompts, others = sides["prompts"], {name: rests for name, rests in sides.items() if name != "prompts"}
    matrices = {name: distances(prompts, rests) for name, rests in others.items()}
    figures, p_values = [], {}
    for aspect in ASPECTS:
        own = matrices["own continuation"][aspect]
        known = ~np.isnan(own.diagonal())
        own, shuffled = own[np.ix_(known, known)], np.zeros(0)
        if len(own) > 1:
            p_values[aspect] = pairing_p_value(own)
            shuffled = (own.sum(axis=1) - own.diagonal()) / (len(own) - 1)
        figures += [_mean(f"{aspect}, {name}", found[aspect].diagonal()) for name, found in matrices.items()]
        figures.insert(-2, _mean(f"{aspect}, others' continuations", shuffled))
    return figures, p_values


def _mean(name: str, values: Sequence[float | None] | np.ndarray) -> Figure:
    """Without the unknown ones."""
    return Figure.computed(name, lambda: mean_interval(values))


def value_figures(
    sides: Mapping[str, list[Music]], samples: Sequence[ContinuedPrompt], exact: Mapping[str, Roll]
) -> list[Figure]:
    """Plain means of the estimated notes, which say in what direction continuations differ; exact ones where known.

    And the share of stretches without notes, whose velocity is left out.
    """
    found = {f"{name}, estimated": [music.notes for music in rests] for name, rests in sides.items()}
    found["the original's rest, exact"] = [
        note_statistics(exact[one.id], len(one.prompt) / SAMPLE_RATE_HZ, len(one.original) / SAMPLE_RATE_HZ)
        for one in samples
        if one.id in exact
    ]
    found = {name: statistics for name, statistics in found.items() if statistics}
    means = [
        _mean(f"{value}: {name}", [read(notes) for notes in statistics])
        for value, read in VALUES.items()
        for name, statistics in found.items()
    ]
    without = [
        Figure.of(f"stretches without notes: {name}", rate_interval([notes.velocity is None for notes in statistics]))
        for name, statistics in found.items()
    ]
    return means + without
