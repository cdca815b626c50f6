"""A 16 kHz bank out of a SoundFont's piano, played note by note by the program `fluidsynth`: another timbre to test on.

Debian has both: packages fluidsynth and fluid-soundfont-gm (FluidR3, MIT licence, 140 MB).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np
import soundfile
import torch

from audiolm.audio.resample import resample
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.bank import StoredBank, trim_note, velocity_track
from audiolm.data.corpus import to_pcm
from audiolm.data.piano import HIGHEST_PITCH, LOWEST_PITCH
from audiolm.errors import DataError

_ROOT_STEP = 3  # semitones
_RATE_HZ = 44_100  # that of most fonts' samples: fluidsynth's own resampling would alias at 16 kHz
_PAUSE_S = 1.0  # after each note, for its release
_PEAK = 0.9
_TIMEOUT_S = 300  # a key takes about a second
_TICKS_A_BEAT = 1000  # a beat is a second
_OPTIONS = ("-ni", "-q", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(_RATE_HZ), "-O", "float", "-T", "wav")


def build(soundfont: Path, velocities: Sequence[float], max_s: float, licence: str) -> StoredBank:
    """The bank of every third key at each of `velocities`, from the font's first preset (General MIDI: a grand piano).

    Raises: DataError when the font or the program is missing, or no sound comes out.
    """
    if not soundfont.is_file():
        raise DataError(f"{soundfont}: no such file")
    played = [round(velocity) for velocity in velocities]
    roots = range(LOWEST_PITCH, HIGHEST_PITCH + 1, _ROOT_STEP)
    # The bank is played with `velocity_track` on top of the samples' levels; the font's own response has all of it.
    notes = [
        note / velocity_track(velocity)
        for root in roots
        for note, velocity in zip(play(soundfont, root, played, max_s), played, strict=True)
    ]
    scale = _PEAK / max(float(np.abs(note).max()) for note in notes)
    return StoredBank(
        pcm=np.concatenate([to_pcm(note * scale) for note in notes]),
        starts=np.cumsum([0] + [len(note) for note in notes]),
        roots=np.array(roots),
        velocities=np.array(played, dtype=np.float32),
        name=soundfont.stem,
        licence=licence,
    )


def play(soundfont: Path, pitch: int, velocities: Sequence[int], note_s: float) -> list[np.ndarray]:
    """One key at each velocity, held for `note_s`, dry: float32 [T] each, at 16 kHz, from its attack on.

    Raises: DataError when the program is missing, fails or takes too long, or a note makes no sound.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        _score(pitch, velocities, note_s).save(score)
        command = ["fluidsynth", *_OPTIONS, "-F", str(sound), str(soundfont.resolve()), str(score)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except FileNotFoundError as error:
            raise DataError("sound fonts need the program fluidsynth (Debian: package fluidsynth)") from error
        except subprocess.TimeoutExpired as error:
            raise DataError(f"fluidsynth took more than {_TIMEOUT_S} s for a key of {soundfont}") from error
        if done.returncode or not sound.is_file():
            raise DataError(f"fluidsynth failed on {soundfont}: {done.stderr.strip()[-300:]}")
        samples, rate_hz = soundfile.read(sound, dtype="float32", always_2d=True)
    mono = resample(torch.from_numpy(samples.mean(axis=1)), rate_hz, SAMPLE_RATE_HZ).numpy()
    step = round((note_s + _PAUSE_S) * SAMPLE_RATE_HZ)
    notes = [mono[index * step : (index + 1) * step] for index in range(len(velocities))]
    if silent := [velocity for note, velocity in zip(notes, velocities, strict=True) if not np.abs(note).any()]:
        raise DataError(f"{soundfont}: key {pitch} is silent at velocity {silent[0]}")
    return [trim_note(note, note_s) for note in notes]


def _score(pitch: int, velocities: Sequence[int], note_s: float) -> mido.MidiFile:
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000)])
    pause = round(_PAUSE_S * _TICKS_A_BEAT)
    for index, velocity in enumerate(velocities):
        track.append(mido.Message("note_on", note=pitch, velocity=velocity, time=pause if index else 0))
        track.append(mido.Message("note_off", note=pitch, time=round(note_s * _TICKS_A_BEAT)))
    track.append(mido.MetaMessage("end_of_track", time=pause))
    return mido.MidiFile(ticks_per_beat=_TICKS_A_BEAT, tracks=[track])
