"""How far one signal is from another."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.audio.spectra import log_mel

MEL_WINDOWS = ((2048, 80), (1024, 80), (512, 64), (256, 32), (128, 16))  # (n_fft, mel bands) to compare sounds at


def si_sdr_db(output: Tensor, target: Tensor) -> Tensor:
    """[..., T] each -> [...] scale-invariant signal-to-distortion ratio in dB (J. Le Roux et al., arXiv 1811.02508)."""
    output, target = (x.double() - x.double().mean(dim=-1, keepdim=True) for x in (output, target))
    scale = (output * target).sum(-1, keepdim=True) / (target.square().sum(-1, keepdim=True) + 1e-12)
    projected = scale * target
    ratio = projected.square().sum(-1) / ((output - projected).square().sum(-1) + 1e-12)
    return 10.0 * torch.log10(ratio + 1e-12)


def mel_distance(output: Tensor, original: Tensor) -> float:
    """Mean absolute difference of log-mel magnitudes in nats, over five resolutions (those of the codec's training).

    [T] at 16 kHz; the floor lies at 1e-3 of the unscaled transform, as in training.
    """
    distances = []
    for n_fft, num_mels in MEL_WINDOWS:
        options = {"num_mels": num_mels, "n_fft": n_fft, "hop_length": n_fft // 4, "floor": 2e-3 / n_fft}
        distances.append((log_mel(output[None], **options) - log_mel(original[None], **options)).abs().mean())
    return float(torch.stack(distances).mean())
