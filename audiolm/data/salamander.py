"""Reduces the Salamander Grand Piano V3 samples (Alexander Holm, CC BY 3.0) to a 16 kHz bank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

from audiolm.audio.resample import resample
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.bank import StoredBank, trim_note
from audiolm.data.corpus import to_pcm
from audiolm.errors import DataError

# The velocity each of the instrument's 16 layers stands for: the middle of its range in the instrument's definition.
LAYER_VELOCITIES = (13, 30.5, 35.5, 40, 45, 48.5, 53.5, 60.5, 68.5, 76.5, 84.5, 92.5, 100.5, 108.5, 116.5, 124)
_SEMITONES = {"C": 0, "Ds": 3, "Fs": 6, "A": 9}


def read_note(path: Path, max_s: float) -> np.ndarray:
    """One sample -> float32 [T] mono 16 kHz that starts at its attack and ends where it has decayed.

    Raises: DataError when the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing sample")
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1))
    return trim_note(resample(mono, rate_hz, SAMPLE_RATE_HZ).numpy(), max_s)


def build(folder: Path, layers: list[int], max_s: float) -> StoredBank:
    """The bank of `layers` (1..16) of all 30 roots in `folder`."""
    roots = sorted(
        (12 * (octave + 1) + semitone, f"{name}{octave}")
        for name, semitone in _SEMITONES.items()
        for octave in range(9)
        if 21 <= 12 * (octave + 1) + semitone <= 108
    )
    notes = [to_pcm(read_note(folder / f"{name}v{layer}.ogg", max_s)) for _, name in roots for layer in layers]
    return StoredBank(
        pcm=np.concatenate(notes),
        starts=np.cumsum([0] + [len(note) for note in notes]),
        roots=np.array([pitch for pitch, _ in roots]),
        velocities=np.array([LAYER_VELOCITIES[layer - 1] for layer in layers], dtype=np.float32),
    )
