"""Mark a waveform, and look for the mark in one.

Perth changes the magnitudes below 2 kHz, by less than its psychoacoustic model lets be heard, in a pattern that its
decoder was trained to know. There is no message and no key: the mark says that some system with Perth made this.
Here the change alone is added to the waveform: what lies above 2 kHz, the rate and the length stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio.levelling import active_frames
from audiolm.audio.resample import resample
from audiolm.streams import Waveform
from audiolm.watermark.network import VERSION, network

NAME = f"resemble-perth {VERSION}"
THRESHOLD = 0.8  # false alarms, by length: see the README
MIN_S = 2.0  # of sound: what is shorter cannot reach the threshold

RATE_HZ = 32_000  # Perth's
HOP_SAMPLES = 320  # its frames: 10 ms
FADE_SAMPLES = 640  # 20 ms, so that a marked part joins an unmarked one without a step
WINDOWS_FRAMES = (400, 800)  # a short part that is clearly marked, or a longer one that is less so
STEP_FRAMES = 25
UNMARKED_FRAMES = 50  # counted beside those heard, so that what is short must be marked throughout to be believed
MARKED_LOGIT = 1.0  # frames lie about 0 without and about 6 with a mark

_PIECE_SAMPLES = 30 * RATE_HZ  # at a time, so that memory does not grow with the recording
_CONTEXT_SAMPLES = 25 * HOP_SAMPLES  # more than half of a window and the network's reach of 15 frames


@dataclass(frozen=True)
class MarkResult:
    """Found where `confidence`, 0..1, reaches `threshold`.

    It is m / (n + 0.5 s): of n = 4 or 8 s of sound, or all where there is less, m look marked, wherever that is most.
    With a `reason` nothing was looked for, and the confidence is 0.
    """

    found: bool
    confidence: float
    reason: str = ""
    threshold: float = THRESHOLD


@torch.no_grad()
def mark(waveform: Waveform) -> Waveform:
    """The waveform with the mark, of the same rate and length, clipped at full scale; deterministic.

    What cannot carry one is returned as it is: less than 2 s of sound, silence, samples that are not finite.

    Raises WatermarkError where resemble-perth is missing.
    """
    raised = _raised(waveform)
    if _obstacle(raised):
        return waveform
    model = network()
    magnitudes, phases = model.ap.signal_to_magphase(F.pad(raised, (0, HOP_SAMPLES)))  # the way back is cut to hops
    marked, _ = model.encoder(magnitudes[None])
    change = model.ap.magphase_to_signal(marked[0], phases)[: raised.shape[0]] - raised
    rising = torch.linspace(0.0, 1.0, FADE_SAMPLES)
    change[:FADE_SAMPLES] *= rising
    change[-FADE_SAMPLES:] *= rising.flip(0)
    samples = waveform.samples.detach().cpu().float()
    change = resample(change, RATE_HZ, waveform.sample_rate_hz)[: samples.shape[0]]
    return Waveform((samples + change).clamp(-1.0, 1.0), waveform.sample_rate_hz)


@torch.no_grad()
def check(waveform: Waveform) -> MarkResult:
    """Is there a mark, in all of it or in a part? Any rate and length; deterministic.

    Perth's own score is a mean over the whole clip, which a prompt without a mark pulls down: the frames that it is
    made of are read instead, those with sound in them, 4 and 8 s at a time. They come from one of the decoder's three
    branches; the slow and the fast one hardly move in these weights.

    Raises WatermarkError where resemble-perth is missing.
    """
    raised = _raised(waveform)
    if reason := _obstacle(raised):
        return MarkResult(False, 0.0, reason)
    marked = (_logits(raised) > MARKED_LOGIT)[active_frames(raised)].float()
    confidence = max(_confidence(marked, window) for window in WINDOWS_FRAMES)
    return MarkResult(confidence >= THRESHOLD, confidence)


def _confidence(marked: Tensor, window: int) -> float:
    """marked [frames] of 0 and 1 -> that of the stretch of `window` frames where most are marked."""
    length = min(window, marked.shape[0])
    share = float(F.avg_pool1d(marked[None], length, STEP_FRAMES).max())
    return share * length / (length + UNMARKED_FRAMES)


def _logits(raised: Tensor) -> Tensor:
    """samples [T] at 32 kHz -> [T // 320], one each 10 ms."""
    model, pieces = network(), []
    for start in range(0, raised.shape[0], _PIECE_SAMPLES):
        first = max(0, start - _CONTEXT_SAMPLES)
        magnitudes, _ = model.ap.signal_to_magphase(raised[first : start + _PIECE_SAMPLES + _CONTEXT_SAMPLES])
        logits = model.decoder.normal_layers(magnitudes[None, : model.subband])[0, 1]
        pieces.append(logits[(start - first) // HOP_SAMPLES :][: _PIECE_SAMPLES // HOP_SAMPLES])
    return torch.cat(pieces)[: raised.shape[0] // HOP_SAMPLES]


def _raised(waveform: Waveform) -> Tensor:
    return resample(waveform.samples.detach().cpu().float(), waveform.sample_rate_hz, RATE_HZ)


def _obstacle(raised: Tensor) -> str:
    """Why samples [T] at 32 kHz carry no mark that could be found, with the limit and the value; "" where they may."""
    if not bool(torch.isfinite(raised).all()):
        return "some samples are not finite"
    duration_s = raised.shape[0] / RATE_HZ
    if duration_s < MIN_S:
        return f"too short: {duration_s:.2f} s, at least {MIN_S:g} s are needed"
    sound_s = float(active_frames(raised).sum()) * HOP_SAMPLES / RATE_HZ
    if sound_s < MIN_S:
        return f"near silence: {sound_s:.2f} s of sound, at least {MIN_S:g} s are needed"
    return ""
