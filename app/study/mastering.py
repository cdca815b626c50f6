"""From what the models and recordings sound like to the files that are heard: nothing but the sound may differ.

Every clip gets the same length, fades, loudness and a dither of its own, and is written behind the plainest header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from scipy.signal import fftconvolve, firwin, kaiserord
from torch import Tensor

from app.study.headphones import wav
from audiolm.audio.loudness import SILENCE_LUFS, integrated_loudness
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioSilentError

TARGET_LUFS = -23.0
PEAK_LIMIT = 0.95
FADE_S = 0.01
BEEP_HZ, BEEP_S, BEEP_GAP_S, NUM_BEEPS = 1000.0, 0.15, 0.25, 3
_BEEP_ABOVE = 3.0  # times the clip's RMS level
_LEVELLING_ROUNDS = 4
_STOP_DB, _TRANSITION = 60.0, 1.0 / 7.0  # BS.1534: -25 dB at 4 kHz and -50 dB at 4.5 kHz for the 3.5 kHz anchor


def mastered(sounds: Mapping[str, Tensor], seed: int) -> tuple[dict[str, bytes], float]:
    """Sounds [T] by clip id, all of one length -> their WAV files, and the loudness (LUFS) that all of them have.

    That is TARGET_LUFS, or less where a peak would pass PEAK_LIMIT. Raises AudioSilentError, ValueError for lengths
    that differ.
    """
    lengths = {sound.shape[-1] for sound in sounds.values()}
    if len(lengths) != 1:
        raise ValueError(f"clips must have one length, found {sorted(lengths)}")
    fades = _fades(lengths.pop())
    faded = {name: sound.double() * fades for name, sound in sounds.items()}
    if silent := [name for name, sound in faded.items() if _loudness(sound) <= SILENCE_LUFS]:
        raise AudioSilentError(f"{len(silent)} of {len(sounds)} clips are silent")
    levelled = {name: _levelled(sound, TARGET_LUFS) for name, sound in faded.items()}
    peak = max(float(sound.abs().max()) for sound in levelled.values())
    target = TARGET_LUFS + min(0.0, 20.0 * math.log10(PEAK_LIMIT / peak))
    files = {}
    for number, (name, sound) in enumerate(levelled.items()):
        samples = _levelled(sound, target).numpy()
        files[name] = wav(_dithered(samples, np.random.default_rng((seed, number)))[:, None])
    return files, target


def low_passed(samples: Tensor, cutoff_hz: float) -> Tensor:
    """[T] -> [T] below the cutoff, as the anchors of BS.1534: flat to it, -60 dB from 8/7 of it on, without delay."""
    taps = _low_pass(cutoff_hz)
    return torch.from_numpy(fftconvolve(samples.double().numpy(), taps, mode="same")).to(samples.dtype)


def with_beeps(samples: Tensor) -> Tensor:
    """[T] with three beeps in its middle, well above the rest."""
    beep = _BEEP_ABOVE * float(samples.double().square().mean().sqrt()) * math.sqrt(2.0)
    time_s = torch.arange(round(BEEP_S * SAMPLE_RATE_HZ), dtype=torch.float64) / SAMPLE_RATE_HZ
    tone = beep * torch.sin(2.0 * math.pi * BEEP_HZ * time_s) * _fades(time_s.shape[0])
    step = round((BEEP_S + BEEP_GAP_S) * SAMPLE_RATE_HZ)
    start = (samples.shape[-1] - (NUM_BEEPS - 1) * step - tone.shape[0]) // 2
    if start < 0:
        raise ValueError(f"{samples.shape[-1]} samples are too few for {NUM_BEEPS} beeps")
    mixed = samples.double().clone()
    for number in range(NUM_BEEPS):
        place = start + number * step
        mixed[place : place + tone.shape[0]] += tone
    return mixed


def _levelled(sound: Tensor, target_lufs: float) -> Tensor:
    """[T] with that loudness. One gain is not enough: what passes the gate of -70 LUFS depends on the gain."""
    for _ in range(_LEVELLING_ROUNDS):
        sound = sound * 10.0 ** ((target_lufs - _loudness(sound)) / 20.0)
    return sound


def _loudness(sound: Tensor) -> float:
    return float(integrated_loudness(sound[None])[0])


@lru_cache(maxsize=4)
def _low_pass(cutoff_hz: float) -> np.ndarray:
    width_hz = _TRANSITION * cutoff_hz  # the design's edges lie half of it on either side of its own cutoff
    count, beta = kaiserord(_STOP_DB, width_hz / (SAMPLE_RATE_HZ / 2))
    middle_hz = min(cutoff_hz + width_hz / 2, SAMPLE_RATE_HZ / 2 - 1.0)
    return firwin(count | 1, middle_hz, window=("kaiser", beta), fs=SAMPLE_RATE_HZ)


def _fades(length: int) -> Tensor:
    """[T] raised-cosine ramps at both ends."""
    size = min(round(FADE_S * SAMPLE_RATE_HZ), length // 2)
    envelope = torch.ones(length, dtype=torch.float64)
    ramp = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size)
    envelope[:size], envelope[length - size :] = ramp, ramp.flip(0)
    return envelope


def _dithered(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[T] as int16, with triangular dither of two steps: no file is silent, and no two are equal."""
    noise = generator.random(samples.shape) - generator.random(samples.shape)
    return np.clip(np.round(samples * 32767.0 + noise), -32767, 32767).astype(np.int16)
