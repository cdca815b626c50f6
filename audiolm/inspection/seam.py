"""How much the join of prompt and continuation stands out: spectral flux and level at one instant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio.spectra import log_mel
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError

PERCENTILE = 0.95
LEVEL_WINDOW_S = 0.25
N_FFT = 512
HOP = 80  # 5 ms
NUM_MELS = 40
FLOOR = 1e-4
MIN_BEFORE = 8000
MIN_AFTER = 800
_REACH = N_FFT // 2 // HOP + 1  # flux values before an instant whose windows touch it
_SILENCE_RMS = 1e-5  # -100 dB: keeps the ratio of two silences at 0 dB


@dataclass(frozen=True)
class Seam:
    """`flux` is in nats per 5 ms; `flux_percentile` is the share 0..1 of the prompt's own instants with no more of it.

    `level_step_db` is the RMS of the 0.25 s after the join against that of the 0.25 s before. `seamless`: the flux is
    within the 95th percentile of the prompt's own.
    """

    flux: float
    flux_percentile: float
    level_step_db: float
    seamless: bool


def spectral_flux(waveform: Tensor) -> Tensor:
    """waveform [T] at 16 kHz -> [T // 80]: rms over 40 mel bands of the change of log magnitude, in nats per 5 ms.

    Value k is the change from the 32 ms around sample 80 k to those around 80 (k + 1); rises and falls both count.
    """
    spectra = log_mel(waveform[None], NUM_MELS, n_fft=N_FFT, hop_length=HOP, floor=FLOOR)[0]
    return spectra.diff(dim=-1).square().mean(dim=0).sqrt()


def flux_near(waveform: Tensor) -> Tensor:
    """[T] -> the largest flux among all windows that touch each multiple of 5 ms, from 80 (0) on: [T // 80 + 1].

    A click at a sample raises the flux half a window before and after it, never at it: hence the largest nearby.
    """
    padded = F.pad(spectral_flux(waveform), (_REACH, _REACH))
    return padded.unfold(0, 2 * _REACH, 1).amax(dim=1)


def measure_seam(waveform: Tensor, prompt_samples: int) -> Seam:
    """The join at `prompt_samples` of waveform [T] at 16 kHz against all instants of the prompt.

    Raises EvaluationError for a prompt under 0.5 s, or less than 50 ms after it.
    """
    if prompt_samples < MIN_BEFORE or waveform.shape[0] < prompt_samples + MIN_AFTER:
        found = f"{prompt_samples} and {waveform.shape[0] - prompt_samples}"
        raise EvaluationError(f"a seam needs {MIN_BEFORE} samples before it and {MIN_AFTER} after it, found {found}")
    margin = 2 * _REACH  # nearer to the ends of the prompt windows see the zeros beyond
    own = flux_near(waveform[:prompt_samples])[margin:-margin]
    at_seam = flux_near(waveform)[prompt_samples // HOP]
    window = round(LEVEL_WINDOW_S * SAMPLE_RATE_HZ)
    before, after = waveform[prompt_samples - window : prompt_samples], waveform[prompt_samples:][:window]
    return Seam(
        flux=float(at_seam),
        flux_percentile=float((own <= at_seam).float().mean()),
        level_step_db=_level_db(after) - _level_db(before),
        seamless=bool(at_seam <= torch.quantile(own, PERCENTILE)),
    )


def is_seamless(waveform: Tensor, prompt_samples: int) -> bool:
    """Whether the flux near `prompt_samples` is within the 95th percentile of the same figure all over the prompt.

    By construction true for 95 % of the instants of one and the same recording. Raises as `measure_seam`.
    """
    return measure_seam(waveform, prompt_samples).seamless


def _level_db(samples: Tensor) -> float:
    return float(20.0 * samples.square().mean().sqrt().clamp_min(_SILENCE_RMS).log10())
