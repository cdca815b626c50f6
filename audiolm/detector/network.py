"""The detector's network: two branches, one on log-mel frames, one on what the checkpoint's own models hear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.audio.resample import resample
from audiolm.audio.spectra import log_mel
from audiolm.config import SAMPLE_RATE_HZ, DetectorConfig
from audiolm.detector.ear import Ear
from audiolm.detector.scope import scope_distances
from audiolm.detector.verdict import (
    Verdict,
    after_boundary,
    is_judged_after,
    make_verdict,
    probability_of,
    withheld_reason,
)
from audiolm.errors import ConfigError
from audiolm.streams import Waveform

SEGMENT_SAMPLES = SAMPLE_RATE_HZ // 4
HOP_SAMPLES = 125
FRAMES_PER_SEGMENT = SEGMENT_SAMPLES // HOP_SAMPLES
N_FFT = 1024
LEVEL = 0.1  # RMS that every clip is brought to, so that loudness tells nothing
FLOOR = 1e-4  # of the log-mel at that level: what lies more than some 60 dB below the clip's level is not looked at
HIDDEN = 128
EVIDENCE_S = 6.0  # the longest clips of training

_CHUNK_SEGMENTS = 120  # 30 s are computed at once; longer clips in pieces, so that memory does not grow with them
_CONTEXT_SEGMENTS = 4  # more than the receptive field on each side
_SMOOTH_MELS, _SMOOTH_FRAMES = 5, 25  # of the saliency picture


@dataclass(frozen=True)
class Views:
    """What branches read of clips of `num_samples`: log-mel frames [B, mels, M], figures [B, D, S] (None: no ear)."""

    mels: Tensor
    figures: Tensor | None
    num_samples: int

    def to(self, device: torch.device) -> Views:
        figures = None if self.figures is None else self.figures.to(device)
        return Views(self.mels.to(device), figures, self.num_samples)


@dataclass(frozen=True)
class Reading:
    """What one branch says: a logit every 0.25 s [B, N], one a clip [B], and what the latter was read from [B, E]."""

    segments: Tensor
    clips: Tensor
    pooled: Tensor


class Detector(nn.Module):
    """Generated (positive logits) or original.

    AudioLM (arXiv 2209.03143) trains a convolutional network on log-mel, of its speaker classifier's kind, on generated
    audio against originals passed through the same codec, and reports 98.6 %. This is a small network for the same
    task, with calibration, an uncertain band and a stated scope; and beside it (`config.num_heard`) a second branch on
    the checkpoint's own semantic features and on how far its stages expected the clip's tokens: it needs a tenth of
    the clips to learn as much.

    The branches are trained side by side and their logits weighed on held-out clips (buffer `weights`): together, the
    one that learns its clips by heart would silence the other.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.stem = nn.Conv2d(1, widths[0], 5, stride=2, padding=2)
        before = (widths[0], *widths[:-1])
        self.blocks = nn.ModuleList(
            _Block(before[n], widths[n], time_kernel=1 if n == len(widths) - 1 else 3) for n in range(len(widths))
        )
        num_bands = -(-config.num_mels // 2 ** (len(widths) + 1))
        self.hidden = nn.Conv1d(widths[-1] * num_bands, HIDDEN, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Conv1d(HIDDEN, 1, 1)
        self.listener: Callable[[Tensor], Tensor] | None = None
        if config.num_heard:
            self.ear = Ear(config.num_heard, config.heard_width, config.dropout)
            self.register_buffer("weights", torch.tensor([0.5, 0.5]))
            self.register_buffer("growth", torch.zeros(()))
        if config.scope_limit is not None:
            num_pooled = config.num_heard or HIDDEN
            self.register_buffer("scope_mean", torch.zeros(num_pooled))
            self.register_buffer("scope_std", torch.ones(num_pooled))
            self.register_buffer("scope_map", torch.zeros(num_pooled, num_pooled))

    def attach(self, listener: Callable[[Tensor], Tensor]) -> None:
        """`listener` turns waveforms [B, T] into figures [B, config.num_heard, T // 640]; no part of the module."""
        self.listener = listener

    # ---- waveforms

    def logits(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> [B]. Raises ConfigError where a detector with an ear has nothing to listen with."""
        return self.fused(self.read(self.view(waveforms)), waveforms.shape[1])[1]

    def segment_logits(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> [B, T // 4000 + 1]; segment n is centred on n * 0.25 s and sees 0.5 s to either side.

        Raises as `logits`.
        """
        return self.fused(self.read(self.view(waveforms)), waveforms.shape[1])[0]

    def probabilities(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> calibrated probabilities [B] of "generated", whatever a verdict would withhold."""
        return probability_of(self.config.calibration, self.logits(waveforms).double())

    def view(self, waveforms: Tensor) -> Views:
        """waveforms [B, T] -> what the branches read. Raises as `logits`."""
        figures = None
        if self.config.num_heard:
            if self.listener is None:
                raise ConfigError("this detector listens with its checkpoint's models: attach a listener first")
            figures = self.listener(waveforms)
        return Views(mel_frames(waveforms, self.config.num_mels), figures, waveforms.shape[1])

    # ---- views

    def read(self, views: Views) -> list[Reading]:
        """What each branch says: log-mel first, then the ear where there is one."""
        count = views.num_samples // SEGMENT_SAMPLES + 1
        hidden = self._hidden(views.mels, count)
        segments = self.output(self.dropout(hidden))[:, 0]
        readings = [Reading(segments, segments.mean(dim=1), hidden.mean(dim=2))]
        if views.figures is not None:
            readings.append(Reading(*self.ear(views.figures, count)))
        return readings

    def fused(self, readings: list[Reading], num_samples: int) -> tuple[Tensor, Tensor]:
        """-> (segment logits [B, N], clip logits [B]): the weighted sum of the branches'.

        Clips bring the more evidence the longer they are, up to `EVIDENCE_S`; `growth` says how fast.
        """
        if len(readings) == 1:
            return readings[0].segments, readings[0].clips
        segments, clips = (
            sum(weight * getattr(reading, name) for weight, reading in zip(self.weights, readings, strict=True))
            for name in ("segments", "clips")
        )
        return segments, clips * min(1.0, num_samples / SAMPLE_RATE_HZ / EVIDENCE_S) ** self.growth

    def distances(self, readings: list[Reading]) -> Tensor:
        """[B]: how far clips lie from the calibration clips."""
        return scope_distances(pooled_of(readings), self.scope_mean, self.scope_std, self.scope_map)

    def _hidden(self, mels: Tensor, count: int) -> Tensor:
        """[B, mels, M] -> [B, HIDDEN, count], long clips in pieces."""
        if count <= _CHUNK_SEGMENTS:
            return self._hidden_piece(mels)
        pieces = []
        for start in range(0, count, _CHUNK_SEGMENTS):
            first = max(0, start - _CONTEXT_SEGMENTS)
            end = (start + _CHUNK_SEGMENTS + _CONTEXT_SEGMENTS) * FRAMES_PER_SEGMENT
            piece = self._hidden_piece(mels[:, :, first * FRAMES_PER_SEGMENT : end])
            pieces.append(piece[:, :, start - first :][:, :, :_CHUNK_SEGMENTS])
        return torch.cat(pieces, dim=2)

    def _hidden_piece(self, mels: Tensor) -> Tensor:
        x = self.stem((mels[:, None] + 6.0) / 2.0)  # about zero mean and unit variance
        for block in self.blocks:
            x = block(x)
        x = x.flatten(1, 2)  # [B, D * bands, frames]
        remaining = FRAMES_PER_SEGMENT // 2 ** (len(self.blocks) + 1)
        return F.gelu(self.hidden(F.avg_pool1d(x, remaining, ceil_mode=True)))

    # ---- verdicts

    @torch.no_grad()
    def judge(self, waveform: Waveform) -> Verdict:
        """The calibrated verdict on a recording of any rate and length.

        Where an original seems to become generated, what comes after is judged, if it is long enough. The verdict is
        withheld, with the reason, for what the detector was not measured on, or may err on too often: too short, near
        silent, clipped, not finite, far from what it was calibrated on; where the models' own answer is not finite; and
        by a detector that has no error rates.
        """
        samples = _at_model_rate(waveform)
        whole = self._judge(samples)
        boundary_s, calibration = whole.boundary_s, self.config.calibration
        if boundary_s is None or not is_judged_after(calibration, boundary_s, samples.shape[0] / SAMPLE_RATE_HZ):
            return whole
        return after_boundary(whole, self._judge(samples[round(boundary_s * SAMPLE_RATE_HZ) :]))

    def _judge(self, samples: Tensor) -> Verdict:
        """samples [T] at 16 kHz, as one."""
        calibration, duration_s = self.config.calibration, samples.shape[0] / SAMPLE_RATE_HZ
        if reason := withheld_reason(samples, self.config):
            return make_verdict(calibration, duration_s, torch.zeros(0), 0.0, reason)
        readings = self.read(self.view(samples[None].to(self.output.weight.device)))
        segments, clips = (x[0].double().cpu() for x in self.fused(readings, samples.shape[0]))
        distance, limit = None, self.config.scope_limit
        if not bool(torch.isfinite(segments).all() & torch.isfinite(clips)):
            return make_verdict(calibration, duration_s, torch.zeros(0), 0.0, "the models gave no finite answer")
        if limit is not None and not (distance := float(self.distances(readings)[0])) <= limit:
            reason = f"unlike what it was measured on: distance {distance:.2f}, at most {limit:.2f} is accepted"
        return make_verdict(calibration, duration_s, segments, float(clips), reason, distance)

    def saliency(self, waveform: Waveform, from_s: float = 0.0) -> tuple[Tensor, Tensor]:
        """What speaks for "generated" (positive) or against it: ([mels, frames], frame times [frames] in seconds).

        Gradient of the clip's logit times input, taken from the mean of each band and smoothed. What the ear adds has
        no place in frequency: it is spread over the bands of a frame by their magnitude. What comes before `from_s` is
        not looked at (`Verdict.judged_from_s`) and is zero. Raises as `logits`.
        """
        samples = _at_model_rate(waveform)[None].to(self.output.weight.device)
        before = round(from_s * SAMPLE_RATE_HZ) // HOP_SAMPLES
        samples = samples[:, before * HOP_SAMPLES :]
        with torch.no_grad():
            views = self.view(samples)
        with torch.enable_grad():
            mels = views.mels.clone().requires_grad_()
            figures = None if views.figures is None else views.figures.clone().requires_grad_()
            inputs = [mels] if figures is None else [mels, figures]
            readings = self.read(Views(mels, figures, views.num_samples))
            logit = self.fused(readings, views.num_samples)[1].sum()
            gradients = torch.autograd.grad(logit, inputs)
        shares = [g * (x - x.mean(dim=2, keepdim=True)) for g, x in zip(gradients, inputs, strict=True)]
        picture = shares[0].detach()[0]
        if len(shares) == 2:
            heard = F.interpolate(shares[1].detach().sum(dim=1, keepdim=True), picture.shape[1], mode="linear")[0]
            heard = heard * shares[1].shape[2] / picture.shape[1]
            picture = picture + heard * views.mels[0].exp() / views.mels[0].exp().sum(dim=0)
        kernel = (_SMOOTH_MELS, _SMOOTH_FRAMES)
        padding = (_SMOOTH_MELS // 2, _SMOOTH_FRAMES // 2)
        smooth = F.avg_pool2d(picture[None], kernel, stride=1, padding=padding, count_include_pad=False)[0]
        smooth = F.pad(smooth, (before, 0))
        return smooth.cpu(), torch.arange(smooth.shape[1]) * HOP_SAMPLES / SAMPLE_RATE_HZ


def pooled_of(readings: list[Reading]) -> Tensor:
    """[B, E]: what the distance of clips is taken from, the ear's mean figures where there is one.

    Other synthesisers sound like nothing that these models know; what a network has learnt to look at hides that.
    """
    return readings[-1].pooled.float()


class _Block(nn.Module):
    """[B, D, mels, frames] -> [B, D', mels / 2, frames / 2] (rounded up), with a short cut.

    `time_kernel` is that of the second convolution: 1 in the last block, where 3 would add half a second of view.
    """

    def __init__(self, channels_in: int, channels_out: int, time_kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, (3, time_kernel), padding=(1, time_kernel // 2), bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x)))))
        return F.gelu(y + self.shortcut(x))


def mel_frames(waveforms: Tensor, num_mels: int) -> Tensor:
    """waveforms [B, T] -> log-mel [B, mels, T // 125 + 1], every row at one level and without constant offset."""
    with torch.autocast(waveforms.device.type, enabled=False):  # bfloat16 would blur faint bands
        return log_mel(_levelled(waveforms), num_mels, n_fft=N_FFT, hop_length=HOP_SAMPLES, floor=FLOOR)


def _levelled(waveforms: Tensor) -> Tensor:
    """[B, T] -> [B, T] without offset, at RMS `LEVEL`; silence stays silence."""
    centred = waveforms.float() - waveforms.float().mean(dim=1, keepdim=True)
    rms = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred * (LEVEL / rms.clamp_min(1e-7))


def _at_model_rate(waveform: Waveform) -> Tensor:
    """samples [T] at 16 kHz."""
    return resample(waveform.samples.detach().float(), waveform.sample_rate_hz, SAMPLE_RATE_HZ)
