"""Reduces the Salamander Grand Piano V3 samples (Alexander Holm, CC BY 3.0) to a 16 kHz bank."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch

from audiolm.audio.resample import resample
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.bank import StoredBank
from audiolm.data.corpus import to_pcm
from audiolm.errors import DataError

# The velocity each of the instrument's 16 layers stands for: the middle of its range in the instrument's definition.
_LAYER_VELOCITIES = (13, 30.5, 35.5, 40, 45, 48.5, 53.5, 60.5, 68.5, 76.5, 84.5, 92.5, 100.5, 108.5, 116.5, 124)
_SEMITONES = {"C": 0, "Ds": 3, "Fs": 6, "A": 9}
_ONSET_SHARE = 0.1  # of the peak: the attack has begun
_BEFORE_ONSET_S = 0.005
_TAIL_RANGE_DB = 55.0  # a sample ends where it has decayed this far below its start
_TAIL_FRAME_S = 0.05


def read_note(path: Path, max_s: float) -> np.ndarray:
    """One sample -> float32 [T] mono 16 kHz that starts at its attack and ends where it has decayed.

    Raises: DataError when the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing sample")
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1))
    note = resample(mono, rate_hz, SAMPLE_RATE_HZ).numpy()
    loud = np.abs(note[: SAMPLE_RATE_HZ // 2])
    onset = int(np.argmax(loud > _ONSET_SHARE * loud.max()))
    note = note[max(0, onset - round(_BEFORE_ONSET_S * SAMPLE_RATE_HZ)) :][: round(max_s * SAMPLE_RATE_HZ)]
    frame = round(_TAIL_FRAME_S * SAMPLE_RATE_HZ)
    level_db = 10.0 * np.log10(np.mean(note[: len(note) // frame * frame].reshape(-1, frame) ** 2, axis=1) + 1e-12)
    audible = np.flatnonzero(level_db > level_db.max() - _TAIL_RANGE_DB)
    return note[: (int(audible[-1]) + 1) * frame]


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
        velocities=np.array([_LAYER_VELOCITIES[layer - 1] for layer in layers], dtype=np.float32),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", type=Path, required=True, help="folder with salamander/audio/*.ogg")
    parser.add_argument("--out", type=Path, required=True, help=".npz file to write")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 3, 5, 8, 10, 12, 14, 16], help="of 1..16")
    parser.add_argument("--max-s", type=float, default=8.0, help="longest sample kept")


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    bank = build(args.raw / "salamander" / "audio", sorted(args.layers), args.max_s)
    bank.write(args.out)
    minutes = len(bank.pcm) / SAMPLE_RATE_HZ / 60.0
    print(f"{args.out}: {len(bank.roots)} roots x {len(bank.velocities)} layers, {minutes:.1f} min")
