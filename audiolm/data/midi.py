"""Reads the MIDI performances (ASAP; GiantMIDI-Piano) into packed notes."""

from __future__ import annotations

import argparse
import csv
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np

from audiolm.data.piano import HIGHEST_PITCH, LOWEST_PITCH, Performance, pack, piece_split
from audiolm.errors import DataError

_SUSTAIN = 64  # MIDI controller; values from 64 up count as pressed
_PRESSED = 64
_DEFAULT_TEMPO_US = 500_000
_ASAP_LICENCE = "CC BY-NC-SA 4.0"
_GIANT_LICENCE = "CC BY 4.0"

# Recordings of pieces that ASAP's hold-out also holds, by a part of the file name.
_HELD_OUT_IN_GIANT = (
    "Debussy_Pour_le_piano_KLicw5ryMpQ_cut_no_1",
    "Schubert_Impromptus_D899",
    "Schubert_Fantasie_in_C_major_D760",
    "Schumann_Robert_Toccata_Op_7",
    "Chopin, Frédéric, Études, Op.10",  # all twelve, number 2 among them
    "BWV862",
    "Beethoven_Piano_Sonata_No_10_",
)


def read_midi(path: Path) -> dict[str, np.ndarray]:
    """Notes and pedal presses of one file, as the array fields of `Performance`.

    Raises: DataError when the file is no MIDI file or holds no note within a piano's range.
    """
    try:
        midi = mido.MidiFile(path)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path}: unreadable MIDI file ({error})") from error
    events = sorted(_events(midi), key=lambda event: event[0])
    ticks = np.array([event[0] for event in events], dtype=np.float64)
    times_s = _seconds(ticks, events, midi.ticks_per_beat)
    notes, pedals = _pair(events, times_s)
    if not notes:
        raise DataError(f"{path}: no notes within a piano's range")
    table = np.array(sorted(notes), dtype=np.float64)
    presses = np.array(pedals, dtype=np.float32).reshape(-1, 2)
    return {
        "onset_s": table[:, 0].astype(np.float32),
        "release_s": table[:, 1].astype(np.float32),
        "pitch": table[:, 2].astype(np.uint8),
        "velocity": table[:, 3].astype(np.uint8),
        "pedal_down_s": presses[:, 0],
        "pedal_up_s": presses[:, 1],
    }


def _events(midi: mido.MidiFile) -> Iterator[tuple[int, str, int, int]]:
    """(tick, kind, number, value) of what matters, from all tracks."""
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "note_on":
                yield tick, "note", message.note, message.velocity
            elif message.type == "note_off":
                yield tick, "note", message.note, 0
            elif message.type == "control_change" and message.control == _SUSTAIN:
                yield tick, "pedal", 0, message.value
            elif message.type == "set_tempo":
                yield tick, "tempo", 0, message.tempo


def _seconds(ticks: np.ndarray, events: list[tuple[int, str, int, int]], ticks_per_beat: int) -> np.ndarray:
    changes = [(tick, value) for tick, kind, _, value in events if kind == "tempo"]
    if not changes or changes[0][0] > 0:
        changes.insert(0, (0, _DEFAULT_TEMPO_US))
    starts = np.array([tick for tick, _ in changes], dtype=np.float64)
    seconds_per_tick = np.array([tempo for _, tempo in changes]) * 1e-6 / ticks_per_beat
    start_s = np.concatenate([[0.0], np.cumsum(np.diff(starts) * seconds_per_tick[:-1])])
    part = np.searchsorted(starts, ticks, side="right") - 1
    return start_s[part] + (ticks - starts[part]) * seconds_per_tick[part]


def _pair(
    events: list[tuple[int, str, int, int]], times_s: np.ndarray
) -> tuple[list[tuple[float, float, int, int]], list[tuple[float, float]]]:
    """Pairs note-ons with their note-offs, pedal-downs with pedal-ups; what stays open ends with the file."""
    notes: list[tuple[float, float, int, int]] = []
    open_notes: dict[int, tuple[float, int]] = {}
    pedals: list[tuple[float, float]] = []
    pedal_down_s: float | None = None
    last_s = float(times_s[-1]) if len(times_s) else 0.0
    for (_, kind, number, value), now_s in zip(events, times_s.tolist(), strict=True):
        if kind == "note" and LOWEST_PITCH <= number <= HIGHEST_PITCH:
            if number in open_notes:
                onset_s, velocity = open_notes.pop(number)
                notes.append((onset_s, now_s, number, velocity))
            if value > 0:
                open_notes[number] = (now_s, value)
        elif kind == "pedal" and value >= _PRESSED and pedal_down_s is None:
            pedal_down_s = now_s
        elif kind == "pedal" and value < _PRESSED and pedal_down_s is not None:
            pedals.append((pedal_down_s, now_s))
            pedal_down_s = None
    notes.extend((onset_s, last_s, number, velocity) for number, (onset_s, velocity) in open_notes.items())
    if pedal_down_s is not None:
        pedals.append((pedal_down_s, last_s))
    return notes, pedals


def list_performances(raw: Path) -> list[tuple[Path, dict[str, str]]]:
    """Path and meta fields of every performance below `raw` (folders `asap` and `giantmidi`).

    Raises: DataError when ASAP's table is missing.
    """
    table = raw / "asap" / "metadata.csv"
    if not table.is_file():
        raise DataError(f"{table}: missing; ASAP's titles decide the splits")
    listed = []
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            path = raw / "asap" / row["midi_performance"]
            piece = f"{row['composer']}/{row['title']}"
            name = "asap-" + row["midi_performance"].removesuffix(".mid").replace("/", "-")
            listed.append((path, _meta(name, piece, "asap", _ASAP_LICENCE, piece_split(piece))))
    listed.extend(_giant(raw / "giantmidi"))
    return listed


def _giant(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    for path in sorted(folder.rglob("*.mid")):
        if any(part in path.stem for part in _HELD_OUT_IN_GIANT):
            continue
        composer = path.stem.split("_")[0].split(",")[0]
        # Titles here differ from ASAP's, so its hash rule cannot tell the same piece: all of these are for training.
        yield (
            path,
            _meta(f"giantmidi-{path.stem}", f"{composer}/giantmidi-{path.stem}", "giantmidi", _GIANT_LICENCE, "train"),
        )


def _meta(name: str, piece: str, source: str, licence: str, split: str) -> dict[str, str]:
    return {"id": name, "group": piece, "source": source, "licence": licence, "split": split}


def _read(entry: tuple[Path, dict[str, str]]) -> Performance:
    path, meta = entry
    return Performance(**meta, **read_midi(path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", type=Path, required=True, help="folder with asap/ and giantmidi/")
    parser.add_argument("--out", type=Path, required=True, help=".npz file to write")
    parser.add_argument("--processes", type=int, default=2)


def run(args: argparse.Namespace) -> None:
    with multiprocessing.Pool(args.processes) as pool:
        performances = pool.map(_read, list_performances(args.raw), chunksize=8)
    pack(args.out, performances)
    hours: dict[str, float] = defaultdict(float)
    pieces: dict[str, set[str]] = defaultdict(set)
    for performance in performances:
        hours[performance.split] += performance.duration_s / 3600.0
        pieces[performance.split].add(performance.group)
    parts = [f"{split} {hours[split]:.1f} h / {len(pieces[split])} pieces" for split in sorted(hours)]
    print(f"{args.out}: {len(performances)} performances, " + ", ".join(parts))
