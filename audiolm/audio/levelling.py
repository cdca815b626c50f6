"""The level that the models read recordings at, whatever level they were made at."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioSilentError

ACTIVE_LEVEL_DB = -23.0  # RMS of the active parts relative to full scale: what the training corpora are brought to
PEAK_LIMIT = 0.95
SILENCE_DB = -75.0
ACTIVITY_SAMPLES = SAMPLE_RATE_HZ // 50  # frames of 20 ms
_RANGE_DB = 38.0  # frames this far below the loud ones (95th percentile) count as silence
_ABOVE_NOISE_DB = 8.0
_LEAST_RANGE_DB = 15.0


def active_frames(samples: Tensor) -> Tensor:
    """samples [T] -> bool [T // 320]: which frames of 20 ms hold sound.

    The threshold lies 38 dB below the loud frames, or 8 dB above the noise floor where that is higher (but never less
    than 15 dB below the loud frames); nothing below -75 dB is sound.
    """
    frames = samples[: samples.shape[0] // ACTIVITY_SAMPLES * ACTIVITY_SAMPLES].reshape(-1, ACTIVITY_SAMPLES)
    if not frames.shape[0]:
        return torch.zeros(0, dtype=torch.bool)
    level_db = 10.0 * torch.log10(frames.double().square().mean(dim=1) + 1e-10)
    loud_db, noise_db = torch.quantile(level_db, 0.95), torch.quantile(level_db, 0.05)
    above_noise_db = torch.minimum(noise_db + _ABOVE_NOISE_DB, loud_db - _LEAST_RANGE_DB)
    return level_db > torch.maximum(loud_db - _RANGE_DB, above_noise_db).clamp_min(SILENCE_DB)


def level_gain(samples: Tensor) -> float:
    """The factor that brings the active parts of samples [T] to -23 dB RMS, or the peak to 0.95 where that is less.

    Raises AudioSilentError where no frame holds sound.
    """
    mask = active_frames(samples).repeat_interleave(ACTIVITY_SAMPLES)
    active = samples[: mask.shape[0]][mask].double()
    if not active.shape[0]:
        seconds = samples.shape[0] / SAMPLE_RATE_HZ
        raise AudioSilentError(f"the {seconds:.2f} s used of the recording hold no sound above {SILENCE_DB:.0f} dB")
    rms = float(active.square().mean().sqrt())
    return min(10.0 ** (ACTIVE_LEVEL_DB / 20.0) / rms, PEAK_LIMIT / float(samples.abs().max()))
