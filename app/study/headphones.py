"""Sounds for the start of a study: the headphone screening by Huggins pitch, and the noise that sets the volume.

Milne et al. 2021, "An online headphone screening test based on dichotic pitch" (doi:10.3758/s13428-020-01514-0): three
bursts of white noise of 1 s; in one of them the right ear gets the noise with a phase shift of 180 degrees within 6 %
of 600 Hz. Over headphones a faint tone is heard there, over loudspeakers next to nothing. Neither ear alone holds any
cue, and every trial has the same length and loudness. Our noise has a bandwidth of 8 kHz, theirs of 22 kHz.
"""

from __future__ import annotations

import io
import wave

import numpy as np
import torch

from audiolm.audio.loudness import integrated_loudness
from audiolm.config import SAMPLE_RATE_HZ

NUM_TRIALS = 6
NUM_BURSTS = 3
BURST_S, GAP_S, RAMP_S = 1.0, 0.5, 0.03
CENTRE_HZ, HALF_WIDTH = 600.0, 0.06
LEVEL_S = 6.0
_PEAK = 0.99


def screening(seed: int, loudness_lufs: float) -> list[tuple[np.ndarray, str]]:
    """NUM_TRIALS of (samples int16 [T, 2], the burst with the tone: "1", "2" or "3").

    Every burst is right equally often.
    """
    generator = np.random.default_rng(seed)
    places = generator.permutation(np.arange(NUM_TRIALS) % NUM_BURSTS)
    return [(_trial(generator, int(place), loudness_lufs), str(place + 1)) for place in places]


def level_noise(loudness_lufs: float) -> np.ndarray:
    """Pink noise as loud as the clips, the same in both ears: int16 [T, 2]."""
    size = round(LEVEL_S * SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=size))
    frequency_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    pink = np.fft.irfft(spectrum * np.where(frequency_hz < 80.0, 0.0, np.maximum(frequency_hz, 80.0) ** -0.5), size)
    return _levelled(np.stack([pink, pink], axis=1) * _ramps(size)[:, None], loudness_lufs)


def wav(samples: np.ndarray) -> bytes:
    """int16 [T, channels] as a WAV file that holds nothing but the samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def _trial(generator: np.random.Generator, odd: int, loudness_lufs: float) -> np.ndarray:
    gap = np.zeros((round(GAP_S * SAMPLE_RATE_HZ), 2))
    pieces = []
    for burst in range(NUM_BURSTS):
        left = generator.normal(size=round(BURST_S * SAMPLE_RATE_HZ))
        right = _shifted(left) if burst == odd else left
        pieces += [np.stack([left, right], axis=1) * _ramps(len(left))[:, None], gap]
    return _levelled(np.concatenate(pieces[:-1]), loudness_lufs)


def _shifted(noise: np.ndarray) -> np.ndarray:
    """[T] with the sign of every component near CENTRE_HZ turned."""
    spectrum = np.fft.rfft(noise)
    frequency_hz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE_HZ)
    spectrum[np.abs(frequency_hz - CENTRE_HZ) <= HALF_WIDTH * CENTRE_HZ] *= -1.0
    return np.fft.irfft(spectrum, len(noise))


def _ramps(size: int) -> np.ndarray:
    """[T] raised-cosine ramps of RAMP_S at both ends, 1 between."""
    length = round(RAMP_S * SAMPLE_RATE_HZ)
    envelope = np.ones(size)
    envelope[:length] = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)
    envelope[-length:] = envelope[:length][::-1]
    return envelope


def _levelled(stereo: np.ndarray, loudness_lufs: float) -> np.ndarray:
    """[T, 2] as int16 whose left ear, heard alone, has the loudness; less where that would clip."""
    found_lufs = float(integrated_loudness(torch.from_numpy(stereo[None, :, 0]))[0])
    gain = min(10.0 ** ((loudness_lufs - found_lufs) / 20.0), _PEAK / float(np.abs(stereo).max()))
    return np.round(stereo * gain * 32767.0).astype(np.int16)
