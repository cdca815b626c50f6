"""What happens to recordings on their way, drawn at random: what a model is to hear through.

Evaluation has fixed versions of its own (`audiolm.evaluation.degradations`), of which AAC and clipping at given levels
never occur here in just that form.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio.resample import at_speed, resample
from audiolm.config import SAMPLE_RATE_HZ

MOST_FASTER = 1.07
SECOND_SHARE = 0.3

_SPEEDS = (0.935, 0.95, 0.965, 0.98, 1.02, 1.035, 1.05, 1.065)  # few, since every ratio has its own filter
_RATES_HZ = (7_000, 8_000, 9_600, 11_025, 12_000, 14_000)


def degrade(waveform: Tensor, generator: torch.Generator) -> tuple[Tensor, str]:
    """[T] at 16 kHz -> ([T'], what was done): one random change, in three of ten cases two.

    T' is T unless the speed was changed, by at most 7 %.
    """
    done = []
    for number in torch.randperm(len(_CHANGES), generator=generator)[:2].tolist():
        if not done or _uniform(generator, 0.0, 1.0) < SECOND_SHARE:
            name = list(_CHANGES)[number]
            waveform = _CHANGES[name](waveform, generator)
            done.append(name)
    return waveform, " + ".join(done)


def mp3(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """An MP3 file of constant rate, 24 to 140 kbit/s."""
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    return _through_file(waveform, compression_level=_uniform(generator, 0.13, 0.9), **options)


def opus(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """An Ogg Opus file of 12 to 64 kbit/s."""
    return _through_file(waveform, format="OGG", subtype="OPUS", compression_level=_uniform(generator, 0.77, 0.976))


def noise(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Noise 15 to 45 dB below the clip, white to pink."""
    drawn = torch.randn(waveform.shape[0], generator=generator)
    frequency = torch.fft.rfftfreq(waveform.shape[0], 1 / SAMPLE_RATE_HZ).clamp_min(50.0)
    drawn = torch.fft.irfft(torch.fft.rfft(drawn) * frequency ** -_uniform(generator, 0.0, 0.5), waveform.shape[0])
    level = _rms(waveform) / _rms(drawn) * 10.0 ** (-_uniform(generator, 15.0, 45.0) / 20.0)
    return waveform + level * drawn


def narrow(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Through a rate of 7 to 14 kHz: nothing above half of it is left."""
    rate_hz = _RATES_HZ[int(torch.randint(len(_RATES_HZ), (1,), generator=generator))]
    back = resample(resample(waveform, SAMPLE_RATE_HZ, rate_hz), rate_hz, SAMPLE_RATE_HZ)
    return _fitted(back, waveform.shape[0])


def speed(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Faster and higher, or slower and lower, by at most 7 %."""
    return at_speed(waveform, _SPEEDS[int(torch.randint(len(_SPEEDS), (1,), generator=generator))])


def overdrive(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Peaks cut off: the clip's 98th to 99.9th percentile becomes full scale."""
    sorted_levels = waveform.abs().sort().values
    ceiling = sorted_levels[int(_uniform(generator, 0.98, 0.999) * (len(sorted_levels) - 1))].clamp_min(1e-5)
    return (waveform / ceiling).clamp(-1.0, 1.0)


def room(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """An echo that falls by 60 dB within 0.1 to 0.8 s, 0 to 12 dB below the direct sound."""
    length = round(_uniform(generator, 0.1, 0.8) * SAMPLE_RATE_HZ)
    echo = torch.randn(length, generator=generator) * torch.exp(-math.log(1000.0) * torch.arange(length) / length)
    echo *= 10.0 ** (-_uniform(generator, 0.0, 12.0) / 20.0) / echo.square().sum().sqrt()
    echo[0] = 1.0
    size = waveform.shape[0] + length
    wet = torch.fft.irfft(torch.fft.rfft(waveform, size) * torch.fft.rfft(echo, size), size)
    return wet[: waveform.shape[0]]


def tone(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """A cut below 20 to 300 Hz, and a slope of up to 6 dB an octave either way above 1 kHz."""
    spectrum = torch.fft.rfft(waveform)
    frequency = torch.fft.rfftfreq(waveform.shape[0], 1 / SAMPLE_RATE_HZ)
    low = torch.sigmoid((frequency - _uniform(generator, 20.0, 300.0)) / 20.0)
    slope = (frequency / 1_000.0).clamp_min(1.0) ** _uniform(generator, -1.0, 1.0)
    return torch.fft.irfft(spectrum * low * slope, waveform.shape[0])


_CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    change.__name__: change for change in (mp3, opus, noise, narrow, speed, overdrive, room, tone)
}


def _through_file(waveform: Tensor, **options: str | float) -> Tensor:
    """Written and read in memory, at a peak of at most full scale."""
    import soundfile  # training itself does without: its data are raw samples

    peak = waveform.abs().max().clamp_min(1.0)
    file = io.BytesIO()
    soundfile.write(file, (waveform / peak).numpy(), SAMPLE_RATE_HZ, **options)
    file.seek(0)
    decoded, rate_hz = soundfile.read(file, dtype="float32")
    back = resample(torch.from_numpy(decoded), rate_hz, SAMPLE_RATE_HZ)
    return _fitted(back, waveform.shape[0]) * peak


def _fitted(waveform: Tensor, length: int) -> Tensor:
    return F.pad(waveform, (0, length - waveform.shape[0]))


def _rms(waveform: Tensor) -> Tensor:
    return waveform.square().mean().sqrt().clamp_min(1e-9)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
