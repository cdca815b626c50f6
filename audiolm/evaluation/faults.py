"""What one looks for in the spectrogram of a continuation, as numbers: noise, gaps, held sounds, loops, lines, drift.

Every measure takes (prompt [P], continuation [C]) of one signal at 16 kHz, both of at least 0.5 s, so that a recording
is measured the same way: its own start against its own rest. The limits of FAULTS were set on recordings of 10 s
(speech: 3 s against 7 s, piano: 4 s against 6 s) of the training splits, such that at most 1 to 2 % pass each one. Of
recordings held out, 6.7 % of piano (119 windows) and 4.0 % of speech (200) pass any; at most 2.5 % pass one of them.
Longer continuations have longer gaps: the limits do not hold for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio.spectra import log_mel
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.codec_quality import line_height_db

MIN_SAMPLES = SAMPLE_RATE_HZ // 2
DB_PER_NAT = 20.0 / math.log(10.0)
_TINY = 1e-12  # power: -120 dB
_LOUD_RANGE_DB = 30.0  # frames within this of the loud ones (95th percentile) are active
_HEARING_RANGE_DB = 50.0  # mel bands further below the loud moments do not count as sounding
_FLOOR_RANGE_DB = 65.0  # a noise floor further below the prompt's active level is as good as none


@dataclass(frozen=True)
class Fault:
    """`limits` holds, for each domain that has it, the greatest value (or magnitude) that is no fault.

    `digits` are those after the point that mean something.
    """

    name: str
    unit: str
    measure: Callable[[Tensor, Tensor], float]
    limits: Mapping[str, float]
    digits: int = 1
    both_ways: bool = False

    def occurs(self, value: float, domain: str) -> bool:
        """Whether `value` passes the limit of "speech" or "piano"; never where it has none there."""
        return (abs(value) if self.both_ways else value) > self.limits.get(domain, math.inf)

    @property
    def explanation(self) -> str:
        """The first paragraph of the measure's documentation."""
        return " ".join((self.measure.__doc__ or "").split("\n\n")[0].split())


def measure_faults(faults: Sequence[Fault], prompt: Tensor, continuation: Tensor, domain: str) -> dict[str, float]:
    """Value by name of those of the domain. Raises EvaluationError for under 0.5 s of prompt or continuation."""
    if min(prompt.shape[0], continuation.shape[0]) < MIN_SAMPLES:
        found = f"{prompt.shape[0]} and {continuation.shape[0]}"
        raise EvaluationError(f"faults need {MIN_SAMPLES} samples of prompt and continuation, found {found}")
    return {fault.name: fault.measure(prompt, continuation) for fault in faults if domain in fault.limits}


def occurring(faults: Sequence[Fault], values: Mapping[str, float], domain: str) -> tuple[str, ...]:
    """Names of the faults that occur, of those that were measured."""
    return tuple(one.name for one in faults if one.name in values and one.occurs(values[one.name], domain))


def noise_floor_rise_db(prompt: Tensor, continuation: Tensor) -> float:
    """Steady noise: how far the floor above 2 kHz lies over the prompt's, in dB.

    The floor is, in each band of 500 Hz, the lower quartile over its bins (between partials) of the power spectrum
    (64 ms), then the 10th percentile over time (between events); mean over the bands of 10 log10. Floors further than
    65 dB below the prompt's active level count as that.
    """
    lowest_db = active_level_db(prompt) - _FLOOR_RANGE_DB
    return float((_floor_db(continuation, lowest_db) - _floor_db(prompt, lowest_db)).mean())


def _floor_db(waveform: Tensor, lowest_db: float) -> Tensor:
    bands = power_spectra(waveform, 1024, 256)[128:512].reshape(12, 32, -1)
    floor = bands.quantile(0.25, dim=1).quantile(0.1, dim=1)
    return (10.0 * torch.log10(512.0 * floor + _TINY)).clamp_min(lowest_db)  # as if the whole spectrum were like it


def noise_between_partials_db(prompt: Tensor, continuation: Tensor) -> float:
    """Noise under held notes: how much shallower the valleys between partials are than the prompt's, in dB.

    A valley's depth is the lower quartile of the power in a band over the mean there; mean of 10 log10 over ten equal
    log bands of 200 Hz to 4 kHz (spectra of 256 ms) and over active frames. Noise at -20 dB makes it about 6 dB.
    """
    lowest = 10.0 ** ((active_level_db(prompt) - _FLOOR_RANGE_DB) / 10.0)
    return _valley_db(continuation, lowest) - _valley_db(prompt, lowest)


def _valley_db(waveform: Tensor, lowest: float) -> float:
    """Of frames whose power is at least `lowest` and within 30 dB of the loud ones; of silence, that of one tone."""
    size = 4096
    power = power_spectra(waveform, size, 1024)
    total = power.sum(dim=0)
    active = power[:, total >= max(float(total.quantile(0.95)) * 10.0 ** (-_LOUD_RANGE_DB / 10.0), lowest)] + _TINY
    if not active.shape[1]:
        return -_FLOOR_RANGE_DB
    edges = (torch.logspace(math.log10(200.0), math.log10(4000.0), 11) * size / SAMPLE_RATE_HZ).long().tolist()
    bands = [active[low:high] for low, high in pairwise(edges)]
    return float(torch.stack([10.0 * torch.log10(b.quantile(0.25, dim=0) / b.mean(dim=0)) for b in bands]).mean())


def drop_outs(prompt: Tensor, continuation: Tensor) -> float:
    """Number of holes: 10 to 120 ms at least 30 dB below the 50 ms before and after, with edges of 10 ms."""
    level = _frame_level_db(continuation, 160)
    count, frame = 0, 5
    while frame < len(level) - 5:
        before = level[frame - 5 : frame].median()
        length = 0
        while frame + length < len(level) - 5 and level[frame + length] < before - 30.0:
            length += 1
        after = level[frame + length + 1 : frame + length + 6].median()
        if 1 <= length <= 12 and after - level[frame : frame + length].max() >= 30.0:
            count += 1
        frame += max(length, 1)
    return float(count)


def silence_percent(prompt: Tensor, continuation: Tensor) -> float:
    """Frames of 20 ms more than 45 dB below the prompt's active level, in %."""
    return 100.0 * float((_frame_level_db(continuation, 320) < active_level_db(prompt) - 45.0).float().mean())


def onset_gap_excess_s(prompt: Tensor, continuation: Tensor) -> float:
    """Nothing new: the longest time without an onset minus the prompt's longest, in s.

    What an onset is says `longest_gap_s`.
    """
    reference_db = _loudest_db(prompt) - _HEARING_RANGE_DB
    return longest_gap_s(continuation, reference_db) - longest_gap_s(prompt, reference_db)


def longest_gap_s(waveform: Tensor, reference_db: float) -> float:
    """[T] -> longest time between onsets, or between one and an end, s.

    An onset is a peak within 60 ms of the mean rise over 40 ms of 40 mel bands (dB, none below `reference_db`) of at
    least 3 dB.
    """
    mel_db = DB_PER_NAT * log_mel(waveform[None], 40, n_fft=512, floor=1e-6)[0]
    smooth = F.avg_pool1d(mel_db.clamp_min(reference_db)[None], 3, 1, 1)[0]
    rise = (smooth[:, 4:] - smooth[:, :-4]).clamp_min(0.0).mean(dim=0)
    peak = F.max_pool1d(rise[None], 13, 1, 6)[0]
    onsets_s = 0.01 * ((rise >= 3.0) & (rise == peak)).nonzero()[:, 0] + 0.02
    marks_s = [0.0, *onsets_s.tolist(), waveform.shape[0] / SAMPLE_RATE_HZ]
    return max(later - earlier for earlier, later in pairwise(marks_s))


def standing_sound_s(prompt: Tensor, continuation: Tensor) -> float:
    """A held tone: the longest stretch whose spectrum stays within 4 dB (rms over 40 mel bands) of its start, in s.

    Spectra are means of power over 200 ms, every 100 ms; nothing more than 50 dB below the prompt's loud moments
    counts, and silence does not stand.
    """
    reference_db = _loudest_db(prompt) - _HEARING_RANGE_DB
    power = (2.0 * log_mel(continuation[None], 40, floor=1e-6)[0]).exp()
    mel_db = (10.0 * torch.log10(power.unfold(1, 20, 10).mean(dim=-1))).clamp_min(reference_db)
    alike = (mel_db[:, :, None] - mel_db[:, None, :]).square().mean(dim=0).sqrt() <= 4.0
    alike &= (mel_db > reference_db).any(dim=0)
    from_start = torch.triu(alike) | torch.tril(torch.ones_like(alike), -1)
    longest = from_start.long().cumprod(dim=1).sum(dim=1) - torch.arange(alike.shape[0])
    return 0.1 * (float(longest.max()) - 1.0) + 0.2 if bool(alike.any()) else 0.0


def loop_strength(prompt: Tensor, continuation: Tensor) -> float:
    """How well the sound's changes repeat at the best lag from 0.3 s to half its length: a loop has 1.

    Normalised correlation with itself of the change over 40 ms of 40 log-mel bands (20 ms steps, at most 50 dB deep).
    """
    mel = log_mel(continuation[None], 40, hop_length=320, floor=1e-6)[0]
    mel = mel.clamp_min(float(mel.amax(dim=0).quantile(0.95)) - _HEARING_RANGE_DB / DB_PER_NAT)
    change = mel[:, 2:] - mel[:, :-2]
    strongest = 0.0
    for lag in range(15, change.shape[1] // 2 + 1):
        early, late = change[:, :-lag], change[:, lag:]
        energy = float((early.square().sum() * late.square().sum()).sqrt())
        strongest = max(strongest, float((early * late).sum()) / (energy + _TINY))
    return strongest


def buzz_db(prompt: Tensor, continuation: Tensor) -> float:
    """Metallic buzz: height of spectral lines at multiples of 50 Hz above 4 kHz, in dB.

    As `codec_quality.line_height_db`, of the continuation alone.
    """
    return line_height_db(continuation)


def level_drift_db(prompt: Tensor, continuation: Tensor) -> float:
    """Level of the sounding parts of the last third of the continuation minus the prompt's, in dB."""
    return active_level_db(continuation[-(continuation.shape[0] // 3) :]) - active_level_db(prompt)


def active_level_db(waveform: Tensor) -> float:
    """Mean power of 20 ms frames within 30 dB of the loud ones (95th percentile), dB relative to full scale."""
    level = _frame_level_db(waveform, 320)
    active = level[level >= level.quantile(0.95) - _LOUD_RANGE_DB]
    return float(10.0 * torch.log10((10.0 ** (active / 10.0)).mean()))


def _frame_level_db(waveform: Tensor, size: int) -> Tensor:
    frames = waveform[: waveform.shape[0] // size * size].reshape(-1, size)
    return (10.0 * torch.log10(frames.double().square().mean(dim=1) + _TINY)).float()


def _loudest_db(waveform: Tensor) -> float:
    mel = log_mel(waveform[None], 40, floor=1e-6)[0]
    return DB_PER_NAT * float(mel.amax(dim=0).quantile(0.95))


def power_spectra(waveform: Tensor, size: int, hop: int) -> Tensor:
    """[T] -> [size // 2 + 1, frames], so scaled that the bins of a frame add up to about its mean power."""
    window = torch.hann_window(size)
    spectrum = torch.stft(waveform, size, hop, window=window, center=False, return_complex=True)
    return spectrum.abs().square() * (2.0 / (size * float(window.square().sum())))


FAULTS = (
    Fault("steady noise", "dB", noise_floor_rise_db, {"speech": 9.0, "piano": 4.0}),
    Fault("noise between partials", "dB", noise_between_partials_db, {"piano": 5.5}),
    Fault("drop-outs", "", drop_outs, {"speech": 1.0, "piano": 0.0}, digits=0),
    Fault("silence", "%", silence_percent, {"speech": 25.0, "piano": 15.0}, digits=0),
    Fault("no onsets", "s", onset_gap_excess_s, {"speech": 1.2, "piano": 2.3}),
    Fault("held sound", "s", standing_sound_s, {"speech": 1.2, "piano": 2.8}),
    Fault("loop", "", loop_strength, {"speech": 0.3, "piano": 0.65}, digits=2),
    Fault("buzz lines", "dB", buzz_db, {"speech": 0.6, "piano": 0.7}),
    Fault("level drift", "dB", level_drift_db, {"speech": 9.0, "piano": 16.0}, both_ways=True),
)
