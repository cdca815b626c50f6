"""A bank of piano notes at 16 kHz: for some roots and velocity layers, one decaying sample each.

Stored small (int16, about every third key); when opened, the keys between are made by band-limited resampling and the
levels of the layers are turned into a smooth response to velocity. Needs NumPy alone.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.piano import HIGHEST_PITCH, LOWEST_PITCH
from audiolm.errors import DataError

# The samples' own levels span about 18 dB between the softest and loudest layer. The sampled instrument is meant to be
# played with "amp_veltrack=73": an added gain of 1 - 0.73 (1 - (velocity / 127)^2).
_VELOCITY_TRACK = 0.73
_LEVEL_WINDOW_S = 0.5
_FADE_IN_S = 0.001
_FADE_OUT_S = 0.6
_ONSET_SHARE = 0.1  # of the peak: the attack has begun
_BEFORE_ONSET_S = 0.005
_TAIL_RANGE_DB = 55.0  # a sample ends where it has decayed this far below its start
_TAIL_FRAME_S = 0.05


@dataclass(frozen=True)
class StoredBank:
    """What the file holds: `pcm` int16 of all samples end to end; sample (root r, layer l) is part r * L + l.

    `name` and `licence` are those of the sampled instrument; files of the first format name none, and are Salamander's.
    """

    pcm: np.ndarray  # int16 [T]
    starts: np.ndarray  # int64 [R * L + 1]
    roots: np.ndarray  # int64 [R], MIDI numbers
    velocities: np.ndarray  # float32 [L], the velocity each layer stands for
    name: str = "salamander"
    licence: str = "CC BY 3.0 (samples: Salamander Grand Piano, Alexander Holm)"

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def read(cls, path: Path) -> StoredBank:
        """Raises: DataError when the file is missing or not of this format."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                labels = {key: str(arrays[key]) for key in ("name", "licence") if key in arrays}
                return cls(arrays["pcm"], arrays["starts"], arrays["roots"], arrays["velocities"], **labels)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not a sample bank ({error})") from error


class Bank:
    """Playable notes for the 88 keys: `note(pitch, velocity)` gives a sample and its gain."""

    def __init__(self, stored: StoredBank) -> None:
        self.name, self.licence = stored.name, stored.licence
        num_layers = len(stored.velocities)
        self._velocities = stored.velocities.astype(np.float64)
        self._samples: dict[tuple[int, int], np.ndarray] = {}
        levels_db = np.zeros((len(stored.roots), num_layers))
        parts = np.split(stored.pcm.astype(np.float32) / 32767.0, stored.starts[1:-1])
        for index, part in enumerate(parts):
            levels_db[divmod(index, num_layers)] = _level_db(part)
        for pitch in range(LOWEST_PITCH, HIGHEST_PITCH + 1):
            root = int(np.argmin(np.abs(stored.roots - pitch)))
            for layer in range(num_layers):
                shifted = shift_pitch(parts[root * num_layers + layer], pitch - int(stored.roots[root]))
                self._samples[pitch, layer] = _fade(shifted)
        # Averaged over the roots, so that the response to velocity is smooth where one recording is not.
        self._level_db = np.maximum.accumulate(levels_db.mean(axis=0))

    def note(self, pitch: int, velocity: int) -> tuple[np.ndarray, float]:
        """float32 [T] of the nearest layer, and the gain that makes loudness a smooth function of `velocity`."""
        layer = int(np.argmin(np.abs(self._velocities - velocity)))
        correction_db = float(np.interp(velocity, self._velocities, self._level_db)) - self._level_db[layer]
        return self._samples[pitch, layer], velocity_track(velocity) * 10.0 ** (correction_db / 20.0)


def velocity_track(velocity: float) -> float:
    """The factor that playing puts on top of the samples' own levels: 1 at velocity 127."""
    return 1.0 - _VELOCITY_TRACK * (1.0 - (velocity / 127.0) ** 2)


def trim_note(note: np.ndarray, max_s: float) -> np.ndarray:
    """[T] of one note at 16 kHz -> [T'] from 5 ms before its attack to where it has decayed, at most `max_s`."""
    loud = np.abs(note[: SAMPLE_RATE_HZ // 2])
    onset = int(np.argmax(loud > _ONSET_SHARE * loud.max()))
    note = note[max(0, onset - round(_BEFORE_ONSET_S * SAMPLE_RATE_HZ)) :][: round(max_s * SAMPLE_RATE_HZ)]
    frame = round(_TAIL_FRAME_S * SAMPLE_RATE_HZ)
    level_db = 10.0 * np.log10(np.mean(note[: len(note) // frame * frame].reshape(-1, frame) ** 2, axis=1) + 1e-12)
    audible = np.flatnonzero(level_db > level_db.max() - _TAIL_RANGE_DB)
    return note[: (int(audible[-1]) + 1) * frame]


def shift_pitch(samples: np.ndarray, semitones: int) -> np.ndarray:
    """[T] -> [round(T / 2^(semitones / 12))]: band-limited resampling, so higher notes are also shorter."""
    if semitones == 0:
        return samples
    length = round(len(samples) * 2.0 ** (-semitones / 12.0))
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(spectrum[: length // 2 + 1], n=length).astype(np.float32) * np.float32(length / len(samples))


def _fade(samples: np.ndarray) -> np.ndarray:
    rise = min(round(_FADE_IN_S * SAMPLE_RATE_HZ), len(samples))
    fall = min(round(_FADE_OUT_S * SAMPLE_RATE_HZ), len(samples) // 2)
    faded = samples.astype(np.float32)
    faded[:rise] *= np.linspace(0.0, 1.0, rise, dtype=np.float32)
    faded[len(faded) - fall :] *= 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, fall, dtype=np.float32))
    return faded


def _level_db(samples: np.ndarray) -> float:
    head = samples[: round(_LEVEL_WINDOW_S * SAMPLE_RATE_HZ)].astype(np.float64)
    return 10.0 * float(np.log10(np.mean(head**2) + 1e-12))
