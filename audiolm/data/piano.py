"""Piano performances as packed notes: the format, and which pieces belong to which split.

Needs NumPy alone, so that a machine without a MIDI reader can render from the packed file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiolm.errors import DataError

LOWEST_PITCH = 21  # MIDI number of the lowest key of a piano
HIGHEST_PITCH = 108
_VALID_ONE_IN = 20
_NOTE_VALUES = ("pitch", "velocity")
_SPANS = (("onset_s", "release_s"), ("pedal_down_s", "pedal_up_s"))
_META_FIELDS = ("id", "group", "source", "licence", "split")


@dataclass(frozen=True)
class Performance:
    """One performance of a piece: N notes in order of onset, P presses of the sustain pedal.

    `release_s` is when the key is let go, whatever the pedal does. `group` is `composer/title`.
    """

    id: str
    group: str
    source: str
    licence: str
    split: str
    onset_s: np.ndarray  # float32 [N]
    release_s: np.ndarray  # float32 [N]
    pitch: np.ndarray  # uint8 [N], MIDI number
    velocity: np.ndarray  # uint8 [N], 1..127
    pedal_down_s: np.ndarray  # float32 [P]
    pedal_up_s: np.ndarray  # float32 [P]

    @property
    def duration_s(self) -> float:
        return float(self.release_s.max()) if len(self.release_s) else 0.0


def piece_split(piece: str) -> str:
    """Split of a piece named `composer/title`.

    Test: the SHA-1 of the name ends in hex 0 or 1 (one in eight). Of the others, one in twenty, by the SHA-1 of
    `valid:` and the name, is valid. Every performance of a piece is in the same split.

    >>> piece_split("Schumann/Toccata"), piece_split("Bach/Fugue_bwv_846")
    ('test', 'train')
    """
    if hashlib.sha1(piece.encode()).hexdigest()[-1] in "01":
        return "test"
    return "valid" if int(hashlib.sha1(f"valid:{piece}".encode()).hexdigest(), 16) % _VALID_ONE_IN == 0 else "train"


def pack(path: Path, performances: Sequence[Performance]) -> None:
    """Writes one compressed .npz: all notes end to end, all pedal presses end to end, and where each part starts.

    Times are kept to the millisecond, as steps from one onset to the next and as durations, which compress well.
    """
    arrays: dict[str, np.ndarray] = {}
    for begin, end in _SPANS:
        starts_ms = [_milliseconds(getattr(performance, begin)) for performance in performances]
        ends_ms = [_milliseconds(getattr(performance, end)) for performance in performances]
        arrays[begin] = np.concatenate([np.diff(part, prepend=0) for part in starts_ms]).astype(np.uint32)
        lengths_ms = [stop - start for start, stop in zip(starts_ms, ends_ms, strict=True)]
        arrays[end] = np.concatenate(lengths_ms).astype(np.uint32)
    for name in _NOTE_VALUES:
        arrays[name] = np.concatenate([getattr(performance, name) for performance in performances])
    arrays["note_starts"] = np.cumsum([0] + [len(performance.pitch) for performance in performances])
    arrays["pedal_starts"] = np.cumsum([0] + [len(performance.pedal_down_s) for performance in performances])
    meta = [{name: getattr(performance, name) for name in _META_FIELDS} for performance in performances]
    arrays["performances"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def unpack(path: Path) -> list[Performance]:
    """The performances in a file written by `pack`.

    Raises: DataError when the file is missing or not of this format.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
        meta = json.loads(stored["performances"].tobytes())
        notes, pedals = stored["note_starts"], stored["pedal_starts"]
        return [
            Performance(**values, **_unpack_part(stored, notes[index : index + 2], pedals[index : index + 2]))
            for index, values in enumerate(meta)
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a file of packed notes ({error})") from error


def _unpack_part(stored: dict[str, np.ndarray], notes: np.ndarray, pedals: np.ndarray) -> dict[str, np.ndarray]:
    fields = {name: stored[name][notes[0] : notes[1]] for name in _NOTE_VALUES}
    for (begin, end), (first, last) in zip(_SPANS, (notes, pedals), strict=True):
        start_ms = np.cumsum(stored[begin][first:last], dtype=np.int64)
        fields[begin] = (start_ms * 1e-3).astype(np.float32)
        fields[end] = ((start_ms + stored[end][first:last]) * 1e-3).astype(np.float32)
    return fields


def _milliseconds(times_s: np.ndarray) -> np.ndarray:
    return np.round(times_s.astype(np.float64) * 1e3).astype(np.int64)


def sounding_end_s(performance: Performance) -> np.ndarray:
    """When each note is damped: float32 [N].

    That is the release of its key, or of the pedal where it is down at that moment.
    """
    ends = performance.release_s.astype(np.float32)
    if len(performance.pedal_down_s) == 0:
        return ends
    press = np.searchsorted(performance.pedal_down_s, ends, side="right") - 1
    held_until = performance.pedal_up_s[np.maximum(press, 0)]
    return np.where((press >= 0) & (held_until > ends), held_until, ends).astype(np.float32)
