"""C6: does the continuation stay in the prompt's key, pace and loudness? Chroma, onsets and loudness of piano."""

from __future__ import annotations

import librosa
import numpy as np
from torch import Tensor

from audiolm.audio.loudness import integrated_loudness
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import ContinuedPrompt, continue_prompts
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import mean_interval, pairing_p_value

TITLE = "Piano: key, onset rate and loudness of the continuation against the prompt"
TARGET = "each closer than in a shuffled pairing, p < 0.01"
CHROMA_FFT = 4096
ONSET_HOP = 160
_ONSET_OFFSET = 0.5  # a second: rates of 0 have a logarithm too


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


def distances(prompts: list[Tensor], continuations: list[Tensor]) -> dict[str, np.ndarray]:
    """[N, N] distances of prompt i and continuation j by aspect.

    key: 1 - correlation of the pitch-class profiles; onset rate: absolute log ratio; loudness: absolute LU.
    """
    keys = [[key_profile(one) for one in side] for side in (prompts, continuations)]
    rates = [np.log([onset_rate(one) + _ONSET_OFFSET for one in side]) for side in (prompts, continuations)]
    levels = [np.array([loudness(one) for one in side]) for side in (prompts, continuations)]
    return {
        "key (1 - chroma correlation)": np.array([[1.0 - correlation(a, b) for b in keys[1]] for a in keys[0]]),
        "onset rate (absolute log ratio)": np.abs(rates[0][:, None] - rates[1][None]),
        "loudness (LU)": np.abs(levels[0][:, None] - levels[1][None]),
    }


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError for speech, without a whole checkpoint, recordings, a work folder, or with one prompt."""
    if inputs.domain != "piano":
        raise EvaluationError("keys and onsets are a matter of music")
    samples = continue_prompts(inputs)
    if len(samples) < 2:
        raise EvaluationError(f"a shuffled pairing needs at least 2 continuations, found {len(samples)}")
    figures, p_values = pairing_figures(samples)
    notes = tuple(f"{aspect}: p = {p:.4g} (permutation test)" for aspect, p in p_values.items())
    return RowReport("C6", TITLE, TARGET, figures, all(p < 0.01 for p in p_values.values()), notes)


def pairing_figures(samples: list[ContinuedPrompt]) -> tuple[tuple[Figure, ...], dict[str, float]]:
    """Figures of the true, the shuffled and the original pairing by aspect, and the p value of each aspect."""
    prompts = [one.prompt for one in samples]
    generated = distances(prompts, [one.continuation for one in samples])
    originals = distances(prompts, [one.original[one.prompt.shape[0] :] for one in samples])
    figures, p_values = [], {}
    for aspect, matrix in generated.items():
        others = (matrix.sum(axis=1) - matrix.diagonal()) / (len(matrix) - 1)
        figures.append(Figure.of(f"{aspect}, own continuation", mean_interval(matrix.diagonal())))
        figures.append(Figure.of(f"{aspect}, others' continuations", mean_interval(others)))
        figures.append(Figure.of(f"{aspect}, the original's rest", mean_interval(originals[aspect].diagonal())))
        p_values[aspect] = pairing_p_value(matrix)
    return tuple(figures), p_values
