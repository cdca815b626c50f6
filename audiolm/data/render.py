"""Renders excerpts of piano performances with a sample bank, by overlap-add of notes: some hundred times real time.

Every excerpt has its own recording chain: tempo, transposition, gain, tone, room and noise floor are drawn from a
generator seeded by (seed, number of the excerpt), so the same command gives the same audio. Needs NumPy alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.bank import Bank, StoredBank
from audiolm.data.corpus import SPLITS, CorpusWriter, summary, to_pcm
from audiolm.data.json_lines import read_lines
from audiolm.data.piano import HIGHEST_PITCH, LOWEST_PITCH, Performance, sounding_end_s, unpack
from audiolm.errors import DataError

NOTES_FILE = "notes.jsonl"  # beside a corpus's manifest: the notes of each item, as they sound there
EXCERPT_S = (60.0, 120.0)
MIN_EXCERPT_S = 20.0
MIN_NOTES_PER_S = 0.7
MAX_SILENCE_S = 1.0  # from the end of all sound (or its decay) to the next onset; longer gaps are shortened to this
AUDIBLE_S = 3.0  # a held note counts as sound for this long
LEAD_S = 0.1  # before the first onset
TAIL_S = 1.0  # after the last damped note
LEVEL_DB = -23.0  # RMS of an excerpt before its random gain
PEAK_LIMIT = 0.95
_HIGHEST_DAMPED_PITCH = 88  # strings above have no dampers
_SHORTEST_NOTE_S = 0.05
_RESTRIKE_DAMPING_S = 0.03
_TILT_TAPS = 63
_TILT_CENTRE_HZ = 1000.0
_FFT_SIZE = 1 << 15


@dataclass(frozen=True)
class Augmentation:
    """Ranges (low, high) from which an excerpt's recording chain is drawn uniformly."""

    tempo: tuple[float, float] = (0.95, 1.05)  # factor on speed
    semitones: tuple[int, int] = (-5, 5)
    gain_db: tuple[float, float] = (-8.0, 3.0)
    tilt_db: tuple[float, float] = (-4.0, 2.0)  # per octave about 1 kHz, within 2.5 octaves
    room_db: tuple[float, float] = (-30.0, -14.0)  # energy of the reverberation relative to the direct sound
    decay_s: tuple[float, float] = (0.2, 0.8)  # time in which the reverberation falls by 60 dB
    noise_db: tuple[float, float] = (-85.0, -65.0)  # RMS of the noise floor, full scale

    def draw(self, rng: np.random.Generator) -> Chain:
        return Chain(
            tempo=rng.uniform(*self.tempo),
            semitones=int(rng.integers(self.semitones[0], self.semitones[1] + 1)),
            gain_db=rng.uniform(*self.gain_db),
            tilt_db=rng.uniform(*self.tilt_db),
            room_db=rng.uniform(*self.room_db),
            decay_s=rng.uniform(*self.decay_s),
            noise_db=rng.uniform(*self.noise_db),
        )


@dataclass(frozen=True)
class Chain:
    """One excerpt's recording chain; the fields are those of `Augmentation`, drawn."""

    tempo: float = 1.0
    semitones: int = 0
    gain_db: float = 0.0
    tilt_db: float = 0.0
    room_db: float = -60.0
    decay_s: float = 0.3
    noise_db: float = -90.0


MILD = Augmentation(
    tempo=(1.0, 1.0),
    semitones=(0, 0),
    gain_db=(-3.0, 0.0),
    tilt_db=(-0.5, 0.5),
    room_db=(-30.0, -20.0),
    decay_s=(0.3, 0.5),
    noise_db=(-85.0, -75.0),
)


@dataclass(frozen=True)
class NoteTable:
    """N notes of an excerpt in order of onset; `end_s` is when each is damped."""

    onset_s: np.ndarray
    end_s: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray

    def __len__(self) -> int:
        return len(self.pitch)


@dataclass(frozen=True)
class Window:
    """A stretch of a performance, to be rendered as one excerpt."""

    performance: Performance
    start_s: float
    end_s: float


def cut_windows(performance: Performance, rng: np.random.Generator) -> list[Window]:
    """Consecutive stretches of 60 to 120 s that cover the performance; a short rest joins the last one."""
    windows = []
    start_s, total_s = 0.0, performance.duration_s
    while start_s < total_s:
        end_s = start_s + rng.uniform(*EXCERPT_S)
        if total_s - end_s < MIN_EXCERPT_S:
            end_s = total_s
        windows.append(Window(performance, start_s, end_s))
        start_s = end_s
    return windows


def window_notes(window: Window, chain: Chain) -> NoteTable:
    """Notes that begin within the window, at the chain's tempo and pitch, with long silences shortened.

    Keys transposed beyond the keyboard come back by an octave. The first onset is at 0.1 s.
    """
    source = window.performance
    inside = (source.onset_s >= window.start_s) & (source.onset_s < window.end_s)
    onset_s = source.onset_s[inside].astype(np.float64) / chain.tempo
    end_s = sounding_end_s(source)[inside].astype(np.float64) / chain.tempo
    pitch = source.pitch[inside].astype(np.int64) + chain.semitones
    pitch = np.where(pitch < LOWEST_PITCH, pitch + 12, np.where(pitch > HIGHEST_PITCH, pitch - 12, pitch))
    if len(onset_s):
        silent_from_s = np.maximum.accumulate(np.minimum(end_s, onset_s + AUDIBLE_S))
        excess_s = np.maximum(0.0, onset_s[1:] - silent_from_s[:-1] - MAX_SILENCE_S)
        shift_s = np.concatenate([[0.0], np.cumsum(excess_s)]) + onset_s[0] - LEAD_S
        # A note that lasts into a shortened silence ends no later than it would have by its own length.
        onset_s, end_s = onset_s - shift_s, end_s - shift_s
    return NoteTable(onset_s, end_s, pitch, source.velocity[inside].astype(np.int64))


def render_notes(notes: NoteTable, bank: Bank) -> np.ndarray:
    """The dry sound of the notes: float32 [T], T = (end of the last note, held for 3 s at most, + 1 s) * 16,000.

    Onsets are exact to half a sample.
    """
    if len(notes) == 0:
        return np.zeros(0, dtype=np.float32)
    last_s = float(np.minimum(notes.end_s, notes.onset_s + AUDIBLE_S).max())
    mix = np.zeros(round((last_s + TAIL_S) * SAMPLE_RATE_HZ), dtype=np.float32)
    onset_s, end_s, damping_s = notes.onset_s.tolist(), *_dampings(notes)
    for index, (pitch, velocity) in enumerate(zip(notes.pitch.tolist(), notes.velocity.tolist(), strict=True)):
        sample, gain = bank.note(pitch, velocity)
        held = round((end_s[index] - onset_s[index]) * SAMPLE_RATE_HZ)
        start = round(onset_s[index] * SAMPLE_RATE_HZ)
        fall = round(4.0 * damping_s[index] * SAMPLE_RATE_HZ)
        length = min(len(sample), held + fall, len(mix) - start)
        voice = sample[:length] * np.float32(gain)
        if length > held:
            voice[held:] *= _damping_curve(fall)[: length - held]
        mix[start : start + length] += voice
    fade = round(TAIL_S / 2 * SAMPLE_RATE_HZ)
    mix[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return mix


def _dampings(notes: NoteTable) -> tuple[list[float], list[float]]:
    """Per note: when damping begins, and its time constant. A key struck again damps what it sounded before."""
    end_s = np.maximum(notes.end_s, notes.onset_s + _SHORTEST_NOTE_S)
    end_s = np.where(notes.pitch > _HIGHEST_DAMPED_PITCH, np.inf, end_s)
    # Bass strings carry more energy and stop later: about 0.14 s at the lowest key, 0.05 s at the highest damped one.
    damping_s = np.interp(notes.pitch, [LOWEST_PITCH, _HIGHEST_DAMPED_PITCH], [0.14, 0.05])
    next_onset_s = np.full(HIGHEST_PITCH + 1, np.inf)
    for index in range(len(notes) - 1, -1, -1):
        pitch = notes.pitch[index]
        if next_onset_s[pitch] <= end_s[index]:
            end_s[index], damping_s[index] = next_onset_s[pitch], _RESTRIKE_DAMPING_S
        next_onset_s[pitch] = notes.onset_s[index]
    limit_s = notes.onset_s + 60.0  # beyond any sample's length; keeps the sample counts finite
    return np.minimum(end_s, limit_s).tolist(), damping_s.tolist()


@lru_cache(maxsize=4096)
def _damping_curve(length: int) -> np.ndarray:
    """Exponential fall over four time constants, bent to reach zero at the end: float32 [length]; not to be changed."""
    time = np.arange(length, dtype=np.float64) / max(length, 1)
    return (np.exp(-4.0 * time) * (1.0 - time)).astype(np.float32)


def room_response(chain: Chain, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of tone and room: float32 [K], direct sound at sample 31.

    The room is exponentially decaying noise that begins 5 to 20 ms after the direct sound and loses its treble first.
    """
    length = round(chain.decay_s * SAMPLE_RATE_HZ)
    time = np.arange(length) / SAMPLE_RATE_HZ
    noise = rng.standard_normal(length)
    smooth = np.convolve(noise, [0.25, 0.5, 0.25], mode="same")
    late = time / max(chain.decay_s, 1e-9)
    tail = ((1.0 - late) * noise + late * 2.0 * smooth) * 10.0 ** (-3.0 * time / chain.decay_s)
    tail[: round(rng.uniform(0.005, 0.02) * SAMPLE_RATE_HZ)] = 0.0
    tail *= 10.0 ** (chain.room_db / 20.0) / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
    tail[0] = 1.0
    return np.convolve(_tilt_filter(chain.tilt_db), tail).astype(np.float32)


def _tilt_filter(tilt_db: float) -> np.ndarray:
    """Linear-phase filter [63] that rises by `tilt_db` an octave about 1 kHz, within 2.5 octaves."""
    frequencies = np.fft.rfftfreq(1024, 1.0 / SAMPLE_RATE_HZ)
    octaves = np.clip(np.log2(np.maximum(frequencies, 1.0) / _TILT_CENTRE_HZ), -2.5, 2.5)
    impulse = np.roll(np.fft.irfft(10.0 ** (tilt_db * octaves / 20.0)), _TILT_TAPS // 2)[:_TILT_TAPS]
    return impulse * np.hanning(_TILT_TAPS + 2)[1:-1]


def convolve(samples: np.ndarray, response: np.ndarray, delay: int) -> np.ndarray:
    """[T] * [K], shifted back by `delay` samples and cut to [T]; blockwise by FFT (overlap-add)."""
    hop = _FFT_SIZE - len(response) + 1
    if hop <= 0:
        raise DataError(f"responses of at most {_FFT_SIZE} samples can be applied, found {len(response)}")
    num_blocks = -(-len(samples) // hop)
    blocks = np.zeros((num_blocks, hop), dtype=np.float32)
    blocks.reshape(-1)[: len(samples)] = samples
    spectrum = np.fft.rfft(response.astype(np.float32), _FFT_SIZE)
    wet = np.fft.irfft(np.fft.rfft(blocks, _FFT_SIZE, axis=1) * spectrum, _FFT_SIZE, axis=1).astype(np.float32)
    out = np.zeros(num_blocks * hop + _FFT_SIZE, dtype=np.float32)
    for index, block in enumerate(wet):
        out[index * hop : index * hop + _FFT_SIZE] += block
    return out[delay : delay + len(samples)]


def record(dry: np.ndarray, chain: Chain, rng: np.random.Generator) -> np.ndarray:
    """Dry sound [T] -> the recording [T]: tone, room, level of -23 dB RMS plus the chain's gain, noise floor."""
    wet = convolve(dry, room_response(chain, rng), _TILT_TAPS // 2)
    rms = float(np.sqrt(np.mean(wet.astype(np.float64) ** 2)))
    peak = float(np.abs(wet).max())
    gain = min(10.0 ** ((LEVEL_DB + chain.gain_db) / 20.0) / max(rms, 1e-9), PEAK_LIMIT / max(peak, 1e-9))
    noise = rng.standard_normal(len(wet), dtype=np.float32) * np.float32(10.0 ** (chain.noise_db / 20.0))
    return wet * np.float32(gain) + noise


def render_window(window: Window, bank: Bank, chain: Chain, rng: np.random.Generator) -> tuple[np.ndarray, NoteTable]:
    """float32 [T] of one excerpt, and its notes as they sound there."""
    notes = window_notes(window, chain)
    dry = render_notes(notes, bank)
    return (record(dry, chain, rng) if len(dry) else dry), notes


def schedule(performances: Sequence[Performance], rng: np.random.Generator) -> Iterator[Window]:
    """Windows without end, in random order: all of them once, then all again, cut elsewhere.

    Within a round every piece comes up once before any comes up twice, so few hours still hold many pieces.
    """
    while True:
        by_piece: dict[str, list[Window]] = defaultdict(list)
        for performance in performances:
            by_piece[performance.group].extend(cut_windows(performance, rng))
        turns = []
        for windows in by_piece.values():
            for turn, index in enumerate(rng.permutation(len(windows))):
                turns.append((turn + rng.random(), windows[index]))
        yield from (window for _, window in sorted(turns, key=lambda turn: turn[0]))


def render_split(
    writer: CorpusWriter, performances: Sequence[Performance], bank: Bank, *, split: str, hours: float, seed: int
) -> None:
    """Adds excerpts of `split` to the corpus until it holds `hours` of them; only training excerpts vary widely.

    Raises: DataError when no performance belongs to the split.
    """
    chosen = [performance for performance in performances if performance.split == split]
    if not chosen:
        raise DataError(f"no performance belongs to split {split!r}")
    augmentation = Augmentation() if split == "train" else MILD
    split_seed = (seed, SPLITS.index(split))
    wanted, written = round(hours * 3600.0 * SAMPLE_RATE_HZ), 0
    with (
        tqdm(total=round(hours * 3600.0), unit="s", desc=split) as bar,
        (writer.folder / NOTES_FILE).open("a", encoding="utf-8") as score,
    ):
        for number, window in enumerate(schedule(chosen, np.random.default_rng(split_seed))):
            if written >= wanted:
                return
            rng = np.random.default_rng((*split_seed, number))
            chain = augmentation.draw(rng)
            samples, notes = render_window(window, bank, chain, rng)
            if len(notes) < MIN_NOTES_PER_S * len(samples) / SAMPLE_RATE_HZ or len(samples) < SAMPLE_RATE_HZ:
                continue
            name = f"{window.performance.id}-{window.start_s:.0f}s-{split}{number}"
            _add(writer, name, window.performance, bank, to_pcm(samples))
            score.write(json.dumps(_score_line(name, chain, notes)) + "\n")
            written += len(samples)
            bar.update(round(len(samples) / SAMPLE_RATE_HZ))


def _add(writer: CorpusWriter, name: str, played: Performance, bank: Bank, pcm: np.ndarray) -> None:
    source, licence = f"{played.source}+{bank.name}", f"{played.licence} (notes); {bank.licence}"
    writer.add(pcm, id=name, group=played.group, split=played.split, source=source, licence=licence)


def _score_line(name: str, chain: Chain, notes: NoteTable) -> dict[str, object]:
    return {
        "id": name,
        "chain": {key: round(value, 4) for key, value in dataclasses.asdict(chain).items()},
        "onset_s": np.round(notes.onset_s, 4).tolist(),
        "end_s": np.round(notes.end_s, 4).tolist(),
        "pitch": notes.pitch.tolist(),
        "velocity": notes.velocity.tolist(),
    }


def read_notes(folder: Path) -> dict[str, NoteTable]:
    """The notes of a rendered corpus by item; none for a corpus of recordings.

    Raises: DataError where the file is damaged.
    """
    path = folder / NOTES_FILE
    try:
        lines = read_lines(path) if path.is_file() else []
        return {
            line["id"]: NoteTable(*(np.array(line[key]) for key in ("onset_s", "end_s", "pitch", "velocity")))
            for line in lines
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the notes of a corpus ({error})") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--notes", type=Path, required=True, help="packed notes (piano-notes)")
    parser.add_argument("--bank", type=Path, required=True, help="sample bank (piano-bank)")
    parser.add_argument("--out", type=Path, required=True, help="corpus folder to write")
    parser.add_argument("--hours", type=float, required=True, help="of training excerpts; 0 for none")
    parser.add_argument("--valid-hours", type=float, default=0.4)
    parser.add_argument("--test-hours", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> None:
    performances = unpack(args.notes)
    bank = Bank(StoredBank.read(args.bank))
    hours = {"valid": args.valid_hours, "test": args.test_hours, "train": args.hours}
    with CorpusWriter(args.out) as writer:
        (args.out / NOTES_FILE).unlink(missing_ok=True)
        for split, wanted in hours.items():
            if wanted > 0:
                render_split(writer, performances, bank, split=split, hours=wanted, seed=args.seed)
    print(f"{args.out}: {summary(writer.items)}")
