"""What the detector says of a clip, and when it says nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ, DetectorCalibration, DetectorConfig

SCOPE = "holds only for audio of these checkpoints"
SEGMENT_S = 0.25
SOUND_DB = -60.0  # 50 ms windows above this level, relative to full scale, count as sound
MIN_SOUND_S = 0.5
MAX_CLIPPED_SHARE = 0.01

_WINDOW = SAMPLE_RATE_HZ // 20


@dataclass(frozen=True)
class Verdict:
    """`label` is generated, original, uncertain or withheld (`reason` says why).

    `probability` is that of "generated", None where the verdict is withheld.

    At `threshold` the detector called `false_positive_rate` of `num_originals` held-out originals generated, and missed
    `false_negative_rate` of `num_generated` generated clips. Segment probabilities, one every 0.25 s at
    `segment_times_s` (centres), use the clip's calibration: read their course, not their values.

    `model_sha256` names the detector's weights ("" where the caller does not know them). `boundary_s` is the likeliest
    place where an original becomes generated, None where the whole is of one kind. `scope_distance` says how far the
    clip lies from those that the detector was calibrated on, None where that was not measured.
    """

    label: str
    probability: float | None
    threshold: float
    false_positive_rate: float | None
    false_negative_rate: float | None
    num_originals: int
    num_generated: int
    reason: str = ""
    scope: str = SCOPE
    segment_times_s: tuple[float, ...] = ()
    segment_probabilities: tuple[float, ...] = ()
    model_sha256: str = ""
    boundary_s: float | None = None
    scope_distance: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def make_verdict(calibration: DetectorCalibration, segment_logits: Tensor, reason: str = "") -> Verdict:
    """segment_logits [N] -> the verdict; with a `reason` it is withheld."""
    segments = torch.sigmoid(calibration.scale * segment_logits + calibration.bias)
    probability = None if reason else probability_of(calibration, float(segment_logits.mean()))
    return Verdict(
        label="withheld" if probability is None else label_of(calibration, probability),
        probability=probability,
        threshold=calibration.threshold,
        false_positive_rate=calibration.false_positive_rate,
        false_negative_rate=calibration.false_negative_rate,
        num_originals=calibration.num_originals,
        num_generated=calibration.num_generated,
        reason=reason,
        segment_times_s=() if reason else tuple(SEGMENT_S * n for n in range(segments.shape[0])),
        segment_probabilities=() if reason else tuple(segments.tolist()),
    )


def probability_of(calibration: DetectorCalibration, logit: float) -> float:
    """Platt scaling: sigmoid(scale * logit + bias)."""
    return float(torch.sigmoid(torch.tensor(calibration.scale * logit + calibration.bias, dtype=torch.float64)))


def label_of(calibration: DetectorCalibration, probability: float) -> str:
    """ "uncertain" inside the band, else the side of the threshold."""
    if calibration.uncertain_low < probability < calibration.uncertain_high:
        return "uncertain"
    return "generated" if probability >= calibration.threshold else "original"


def withheld_reason(samples: Tensor, config: DetectorConfig) -> str:
    """Why the detector should not judge samples [T] (16 kHz), or "" where it may; each with the limit and the value."""
    if config.calibration.false_positive_rate is None or config.calibration.false_negative_rate is None:
        return "this detector's error rates have not been measured"
    duration_s = samples.shape[0] / SAMPLE_RATE_HZ
    if duration_s < config.min_s:
        return f"too short: {duration_s:.2f} s, at least {config.min_s:g} s are needed"
    if not bool(torch.isfinite(samples).all()):
        return "some samples are not finite"
    sound_s = float(sounding_s(samples[None])[0])
    if sound_s < MIN_SOUND_S:
        return f"near silence: {sound_s:.2f} s lie above {SOUND_DB:g} dB, at least {MIN_SOUND_S:g} s are needed"
    share = clipped_share(samples)
    if share > MAX_CLIPPED_SHARE:
        return f"clipped: {100 * share:.1f} % of the samples, at most {100 * MAX_CLIPPED_SHARE:g} % are accepted"
    return ""


def sounding_s(waveforms: Tensor) -> Tensor:
    """[B, T] -> [B] seconds in 50 ms windows whose level, about the clip's mean, exceeds `SOUND_DB`."""
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    power = centred.unfold(1, _WINDOW, _WINDOW).square().mean(dim=2)
    return (power > 10.0 ** (SOUND_DB / 10.0)).sum(dim=1) * (_WINDOW / SAMPLE_RATE_HZ)


def clipped_share(samples: Tensor) -> float:
    """Share of samples [T] on flat tops: at the clip's peak and equal to the sample before (whatever its level now)."""
    peak = samples.abs().max()
    flat = (samples[1:].abs() >= 0.999 * peak) & ((samples[1:] - samples[:-1]).abs() <= 1e-4 * peak)
    return float(flat.float().mean())
