"""C7: does the join of prompt and continuation stand out?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio.spectra import log_mel
from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import continue_prompts
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import rate_interval

TITLE = "Seam: spectral flux at the prompt's end within the 95th percentile of the prompt's own"
TARGET = "in >= 95 % of runs"
PERCENTILE = 0.95
N_FFT = 512
HOP = 80  # 5 ms
NUM_MELS = 40
FLOOR = 1e-4
_REACH = N_FFT // 2 // HOP + 1  # flux values before an instant whose windows touch it


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


def is_seamless(waveform: Tensor, prompt_samples: int) -> bool:
    """Whether the flux near `prompt_samples` is within the 95th percentile of the same figure all over the prompt.

    waveform [T] at 16 kHz. By construction true for 95 % of the instants of one and the same recording.

    Raises EvaluationError for a prompt under 0.5 s, or less than 50 ms after it.
    """
    if prompt_samples < 8000 or waveform.shape[0] < prompt_samples + 800:
        found = f"{prompt_samples} and {waveform.shape[0] - prompt_samples}"
        raise EvaluationError(f"a seam needs 8000 samples before it and 800 after it, found {found}")
    own = flux_near(waveform[:prompt_samples])
    margin = 2 * _REACH  # nearer to the ends of the prompt windows see the zeros beyond
    at_seam = flux_near(waveform)[prompt_samples // HOP]
    return bool(at_seam <= torch.quantile(own[margin:-margin], PERCENTILE))


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without a whole checkpoint, recordings or a work folder."""
    samples = continue_prompts(inputs)
    generated = [is_seamless(torch.cat([one.prompt, one.continuation]), one.prompt.shape[0]) for one in samples]
    originals = [is_seamless(one.original, one.prompt.shape[0]) for one in samples]
    figures = (
        Figure.of("share of continuations", rate_interval(generated)),
        Figure.of("share of originals at the same instant", rate_interval(originals)),
    )
    return RowReport("C7", TITLE, TARGET, figures, figures[0].value >= PERCENTILE)
