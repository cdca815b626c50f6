"""How loud a signal is: RMS level, and integrated loudness after ITU-R BS.1770-4."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.config import SAMPLE_RATE_HZ

SILENCE_LUFS = -70.0  # BS.1770's absolute gate: what never passes it is reported as this
_BLOCK_S = 0.4
_STEP_S = 0.1
_RELATIVE_GATE_LU = -10.0
_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
_SILENT_BELOW_DB = 40.0


def rms_db(waveforms: Tensor, floor_db: float = -120.0) -> Tensor:
    """[..., T] -> [...] root mean square level in dB relative to full scale (a full-scale sine: -3 dB)."""
    power = waveforms.double().square().mean(dim=-1)
    return (10.0 * torch.log10(power.clamp_min(10.0 ** (floor_db / 10.0)))).to(waveforms.dtype)


def silent_share(waveforms: Tensor) -> Tensor:
    """[B, T] -> which share [B] of their frames of 20 ms lies more than 40 dB below the loudest one."""
    levels = rms_db(waveforms.unfold(1, _FRAME_SAMPLES, _FRAME_SAMPLES))
    return (levels < levels.amax(dim=1, keepdim=True) - _SILENT_BELOW_DB).float().mean(dim=1)


def integrated_loudness(waveforms: Tensor, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Tensor:
    """[B, T] mono -> [B] gated loudness in LUFS; `SILENCE_LUFS` where no block passes the absolute gate.

    Signals shorter than one block of 0.4 s are measured as a single block. The K weighting is applied to the spectrum,
    which equals the recursive filters to within 1e-4 LU.

    Raises ValueError for an empty signal.
    """
    if waveforms.shape[-1] == 0:
        raise ValueError("loudness of an empty signal is undefined")
    weighted = _k_weighted(waveforms.double(), sample_rate_hz)
    block = min(round(_BLOCK_S * sample_rate_hz), weighted.shape[-1])
    power = weighted.unfold(-1, block, round(_STEP_S * sample_rate_hz)).square().mean(dim=-1)  # [B, blocks]
    above = power > _power_of(SILENCE_LUFS)
    relative = _gated_mean(power, above) * 10.0 ** (_RELATIVE_GATE_LU / 10.0)
    gated = _gated_mean(power, above & (power > relative[:, None]))
    loudness = -0.691 + 10.0 * torch.log10(gated.clamp_min(_power_of(SILENCE_LUFS)))
    return loudness.to(waveforms.dtype)


def _power_of(lufs: float) -> float:
    return 10.0 ** ((lufs + 0.691) / 10.0)


def _gated_mean(power: Tensor, passed: Tensor) -> Tensor:
    return (power * passed).sum(dim=-1) / passed.sum(dim=-1).clamp_min(1)


def _k_weighted(waveforms: Tensor, sample_rate_hz: int) -> Tensor:
    """[B, T] -> [B, T], in pieces of 8 s that each start with the half second before them, to bound the memory."""
    history = sample_rate_hz // 2  # the high pass has rung out by then
    step = 8 * sample_rate_hz
    size = 2 ** math.ceil(math.log2(step + 2 * history))
    response = _k_response(size, sample_rate_hz).to(waveforms.device)
    padded = F.pad(waveforms, (history, 0))
    pieces = []
    for start in range(0, waveforms.shape[-1], step):
        piece = padded[..., start : start + history + step]
        filtered = torch.fft.irfft(torch.fft.rfft(piece, size) * response, size)
        pieces.append(filtered[..., history : piece.shape[-1]])
    return torch.cat(pieces, dim=-1)


@lru_cache(maxsize=8)
def _k_response(size: int, sample_rate_hz: int) -> Tensor:
    """Frequency response [size // 2 + 1] of the K weighting: a +4 dB shelf at 1.5 kHz, then a high pass at 38 Hz."""
    z = torch.exp(-2j * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size)  # one sample's delay
    gain = 10.0 ** (4.0 / 40.0)
    w = 2.0 * math.pi * 1500.0 / sample_rate_hz
    cosine, slope = math.cos(w), 2.0 * math.sqrt(gain) * math.sin(w) / math.sqrt(2.0)
    shelf = _biquad(
        z,
        gain * ((gain + 1) + (gain - 1) * cosine + slope),
        -2 * gain * ((gain - 1) + (gain + 1) * cosine),
        gain * ((gain + 1) + (gain - 1) * cosine - slope),
        (gain + 1) - (gain - 1) * cosine + slope,
        2 * ((gain - 1) - (gain + 1) * cosine),
        (gain + 1) - (gain - 1) * cosine - slope,
    )
    w = 2.0 * math.pi * 38.0 / sample_rate_hz
    cosine, alpha = math.cos(w), math.sin(w)  # Q = 1/2
    high_pass = _biquad(z, (1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2, 1 + alpha, -2 * cosine, 1 - alpha)
    return shelf * high_pass


def _biquad(z: Tensor, b0: float, b1: float, b2: float, a0: float, a1: float, a2: float) -> Tensor:
    """Second-order section of the audio-EQ cookbook (R. Bristow-Johnson), evaluated at delays `z`."""
    return (b0 + b1 * z + b2 * z * z) / (a0 + a1 * z + a2 * z * z)
