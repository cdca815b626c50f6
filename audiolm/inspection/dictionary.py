"""What one token id stands for, read off clips: how often and how long it occurs, beside what, and how it sounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio.spectra import log_mel
from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SEMANTIC_RATE_HZ
from audiolm.errors import RequestError
from audiolm.inspection.timeline import Timeline
from audiolm.lm.sequences import merge_repeats
from audiolm.streams import Waveform

NUM_NEIGHBOURS = 8
NUM_MELS = 80
HOP = 160  # 10 ms
CHROMA_FFT = 4096
_CHROMA_HOPS = 256  # at a time: what is held does not grow with the clip
CHROMA_HZ = (55.0, 2100.0)  # where a piano's fundamentals and strong partials lie


@dataclass(frozen=True)
class Occurrence:
    """One run of the id, in seconds of clip number `clip`."""

    clip: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Entry:
    """An id of one level over all clips. A run is an unbroken repetition of the id.

    `count` positions of `total` hold it; `durations` are (positions, runs of that length), shortest first;
    `followers` and `preceders` are the ids before and after runs with their counts, most frequent first, 8 at most.
    `mel_profile` [80] is the mean log-mel spectrum where it sounds, `pitch_classes` [12] the share of energy by pitch
    class, C first; both are None where it does not occur.
    """

    family: str
    level: int
    token: int
    count: int
    total: int
    mean_duration_s: float
    durations: tuple[tuple[int, int], ...]
    followers: tuple[tuple[int, int], ...]
    preceders: tuple[tuple[int, int], ...]
    mel_profile: Tensor | None
    pitch_classes: Tensor | None
    occurrences: tuple[Occurrence, ...]

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else 0.0


def entry(ids: Sequence[Tensor], clips: Sequence[Waveform], token: int, family: str, level: int) -> Entry:
    """The dictionary's entry of `token`, from one level's ids [N] of each clip (16 kHz); -1 is no token.

    Raises RequestError for a token below 0.
    """
    if token < 0:
        raise RequestError(f"a token is at least 0, found {token}")
    rate_hz = SEMANTIC_RATE_HZ if family == "semantic" else FRAME_RATE_HZ
    occurrences: list[Occurrence] = []
    durations: Counter[int] = Counter()
    followers: Counter[int] = Counter()
    preceders: Counter[int] = Counter()
    for clip, own in enumerate(ids):
        merged, runs = merge_repeats(own.cpu())
        ends = runs.cumsum(0)
        for run in (merged == token).nonzero()[:, 0].tolist():
            length, end = int(runs[run]), int(ends[run])
            occurrences.append(Occurrence(clip, (end - length) / rate_hz, end / rate_hz))
            durations[length] += 1
            followers.update(merged[run + 1 : run + 2].tolist())
            preceders.update(merged[max(run - 1, 0) : run].tolist())
    count = sum(length * times for length, times in durations.items())
    mel, pitch_classes = _profiles([own.cpu() == token for own in ids], clips, SAMPLE_RATE_HZ // HOP // rate_hz)
    return Entry(
        family=family,
        level=level,
        token=token,
        count=count,
        total=sum(int((own >= 0).sum()) for own in ids),
        mean_duration_s=count / len(occurrences) / rate_hz if occurrences else 0.0,
        durations=tuple(sorted(durations.items())),
        followers=_most_frequent(followers),
        preceders=_most_frequent(preceders),
        mel_profile=mel,
        pitch_classes=pitch_classes,
        occurrences=tuple(occurrences),
    )


def entry_in(timelines: Sequence[Timeline], token: int, family: str, level: int) -> Entry:
    """`entry` over timelines: of each one the family's first lane; `level` is numbered as its lane shows it.

    Raises RequestError where no timeline has such a level, or for a token below 0.
    """
    ids = [_level_ids(timeline, family, level) for timeline in timelines]
    if not any(len(own) for own in ids):
        raise RequestError(f"no clip has {family} tokens of level {level}")
    return entry(ids, [timeline.waveform for timeline in timelines], token, family, level)


def _level_ids(timeline: Timeline, family: str, level: int) -> Tensor:
    """[N], empty where the timeline has no such level."""
    for lane in timeline.lanes:
        if lane.family == family and 0 <= level - lane.first_level < lane.ids.shape[1]:
            return lane.ids[:, level - lane.first_level]
    return torch.zeros(0, dtype=torch.long)


def _most_frequent(counts: Counter[int]) -> tuple[tuple[int, int], ...]:
    counts.pop(-1, None)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NUM_NEIGHBOURS])


def _profiles(present: Sequence[Tensor], clips: Sequence[Waveform], hops: int) -> tuple[Tensor | None, Tensor | None]:
    """Mean log-mel [80] and share by pitch class [12] of the 10 ms hops within the positions marked in present [N]."""
    mels, energy = [], torch.zeros(12)
    for mask, clip in zip(present, clips, strict=True):
        if not bool(mask.any()):
            continue
        samples = clip.samples.detach().cpu().float()[None]
        mel = log_mel(samples, NUM_MELS, hop_length=HOP)[0]
        hop_mask = mask.repeat_interleave(hops)[: mel.shape[1]]
        mels.append(mel[:, : len(hop_mask)][:, hop_mask])
        energy += _chroma(samples[0], hop_mask.nonzero()[:, 0])
    if not mels:
        return None, None
    return torch.cat(mels, dim=1).mean(dim=1), energy / energy.sum().clamp_min(1e-12)


def _chroma(samples: Tensor, hops: Tensor) -> Tensor:
    """[T] at 16 kHz -> [12] energy of the pitch classes, C first, in windows of 256 ms around the hops [K] named."""
    window = torch.hann_window(CHROMA_FFT)
    windows = F.pad(samples, (CHROMA_FFT // 2, CHROMA_FFT // 2)).unfold(0, CHROMA_FFT, HOP)
    power = torch.zeros(CHROMA_FFT // 2 + 1)
    for some in hops.split(_CHROMA_HOPS):
        power += torch.fft.rfft(windows[some] * window).abs().square().sum(dim=0)
    hertz = torch.arange(1, CHROMA_FFT // 2 + 1) * SAMPLE_RATE_HZ / CHROMA_FFT
    pitch_class = (69 + 12 * torch.log2(hertz / 440.0)).round().long() % 12
    heard = (hertz >= CHROMA_HZ[0]) & (hertz <= CHROMA_HZ[1])
    return torch.zeros(12).index_add_(0, pitch_class[heard], power[1:][heard])
