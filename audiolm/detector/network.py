"""The detector's network: a small CNN on log-mel frames, one logit every 0.25 s, their mean for the clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.audio.resample import resample
from audiolm.audio.spectra import log_mel
from audiolm.config import SAMPLE_RATE_HZ, DetectorConfig
from audiolm.detector.verdict import Verdict, make_verdict, withheld_reason
from audiolm.streams import Waveform

SEGMENT_SAMPLES = SAMPLE_RATE_HZ // 4
HOP_SAMPLES = 125
FRAMES_PER_SEGMENT = SEGMENT_SAMPLES // HOP_SAMPLES
N_FFT = 1024
LEVEL = 0.1  # RMS that every clip is brought to, so that loudness tells nothing
FLOOR = 1e-4  # of the log-mel at that level: what lies more than some 60 dB below the clip's level is not looked at
HIDDEN = 128

_CHUNK_SEGMENTS = 120  # 30 s are computed at once; longer clips in pieces, so that memory does not grow with them
_CONTEXT_SEGMENTS = 4  # more than the receptive field on each side


class Detector(nn.Module):
    """Generated (positive logits) or original.

    AudioLM (arXiv 2209.03143) trains a convolutional network on log-mel, of its speaker classifier's kind, on generated
    audio against originals passed through the same codec, and reports 98.6 %. This is a small network for the same
    task, with calibration, an uncertain band and a stated scope. Each segment's logit sees about 1 s of sound.
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

    def logits(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> [B]: the mean of the segments' logits."""
        return self.segment_logits(waveforms).mean(dim=1)

    def segment_logits(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> [B, T // 4000 + 1]; segment n is centred on n * 0.25 s and sees 0.5 s to either side."""
        levelled = _levelled(waveforms)
        count = waveforms.shape[1] // SEGMENT_SAMPLES + 1
        if count <= _CHUNK_SEGMENTS:
            return self._segments(levelled)
        pieces = []
        for start in range(0, count, _CHUNK_SEGMENTS):
            first = max(0, start - _CONTEXT_SEGMENTS)
            end = (start + _CHUNK_SEGMENTS + _CONTEXT_SEGMENTS) * SEGMENT_SAMPLES
            piece = self._segments(levelled[:, first * SEGMENT_SAMPLES : end])
            pieces.append(piece[:, start - first :][:, :_CHUNK_SEGMENTS])
        return torch.cat(pieces, dim=1)

    def _segments(self, levelled: Tensor) -> Tensor:
        with torch.autocast(levelled.device.type, enabled=False):  # bfloat16 would blur faint bands
            mels = log_mel(levelled, self.config.num_mels, n_fft=N_FFT, hop_length=HOP_SAMPLES, floor=FLOOR)
        x = self.stem((mels[:, None] + 6.0) / 2.0)  # about zero mean and unit variance
        for block in self.blocks:
            x = block(x)
        x = x.flatten(1, 2)  # [B, D * bands, frames]
        remaining = FRAMES_PER_SEGMENT // 2 ** (len(self.blocks) + 1)
        x = F.avg_pool1d(x, remaining, ceil_mode=True)
        return self.output(self.dropout(F.gelu(self.hidden(x))))[:, 0]

    @torch.no_grad()
    def judge(self, waveform: Waveform) -> Verdict:
        """The calibrated verdict on a recording of any rate and length.

        It is withheld, with the reason, for what the detector has not been measured on: too short, near silent,
        clipped, not finite, or a detector that has no error rates.
        """
        samples = waveform.samples.detach().float()
        if waveform.sample_rate_hz != SAMPLE_RATE_HZ:
            samples = resample(samples, waveform.sample_rate_hz, SAMPLE_RATE_HZ)
        if reason := withheld_reason(samples, self.config):
            return make_verdict(self.config.calibration, torch.zeros(0), reason)
        segments = self.segment_logits(samples[None].to(self.output.weight.device))[0]
        return make_verdict(self.config.calibration, segments.double().cpu())


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


def _levelled(waveforms: Tensor) -> Tensor:
    """[B, T] -> [B, T] without offset, at RMS `LEVEL`; silence stays silence."""
    centred = waveforms.float() - waveforms.float().mean(dim=1, keepdim=True)
    rms = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred * (LEVEL / rms.clamp_min(1e-7))
