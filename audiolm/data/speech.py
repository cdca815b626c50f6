"""Prepares the speech corpus: reads the public recordings, levels them, trims silences, drops repeats, fixes splits.

The sources and the splits are those of the training plan: LibriSpeech test-clean and test-other are never trained on;
a tenth of the training speakers, chosen by the hash of their id, serve for early stopping and calibration.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from audiolm.audio.levelling import ACTIVITY_SAMPLES, active_frames, level_gain
from audiolm.audio.resample import resample
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.corpus import CorpusWriter, pcm_hash, summary, to_pcm
from audiolm.errors import AudioSilentError, DataError

MAX_PAUSE_S = 0.7  # longer pauses inside a recording are shortened to this
EDGE_SILENCE_S = 0.15  # kept before the first and after the last sound
MIN_ITEM_S = 0.5
_FADE_S = 0.01
_VALID_ONE_IN = 10

CC_BY = "CC BY 4.0"


@dataclass(frozen=True)
class Utterance:
    """A recording to be read: where it is and what is known about it."""

    path: Path
    id: str
    group: str
    source: str
    licence: str
    split: str
    fluent: bool
    transcript: str | None = None
    sex: str = ""


def is_valid_speaker(speaker: str) -> bool:
    """Whether a training speaker (LibriSpeech reader id, or the corpus's own speaker id) belongs to the valid split.

    One speaker in ten, by SHA-1 of the id, so the answer never depends on which other sources are at hand.

    >>> is_valid_speaker("19"), is_valid_speaker("7190")
    (False, True)
    """
    return int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % _VALID_ONE_IN == 0


def _training_split(speaker: str) -> str:
    return "valid" if is_valid_speaker(speaker) else "train"


def list_utterances(raw: Path) -> list[Utterance]:
    """All recordings of the sources below `raw`, hold-out first, so that a repeat is never kept for training.

    Raises: DataError when a source folder is missing or holds nothing.
    """
    utterances: list[Utterance] = []
    for name, reader in _SOURCES.items():
        found = sorted(reader(raw / name), key=lambda utterance: utterance.id)
        if not found:
            raise DataError(f"no recordings of source {name!r} below {raw / name}")
        utterances.extend(found)
    return utterances


def _librispeech(folder: Path, pattern: str, source: str, test: bool) -> Iterator[Utterance]:
    transcripts = _read_table(folder.rglob("*.trans.txt"), " ")
    sexes = _sexes_of_readers(folder)
    for path in folder.glob(pattern):
        reader = path.stem.split("-")[0]
        yield Utterance(
            path,
            f"libri-{path.stem}",
            f"libri-{reader}",
            source,
            CC_BY,
            "test" if test else _training_split(reader),
            True,
            transcripts.get(path.stem),
            sexes.get(reader, ""),
        )


def _read_table(paths: Iterable[Path], separator: str) -> dict[str, str]:
    """What stands behind the first separator of each line, by what stands before it."""
    lines = (line for path in paths for line in path.read_text(encoding="utf-8").splitlines())
    rows = (line.partition(separator) for line in lines)
    return {key: text.strip() for key, _, text in rows}


def _sexes_of_readers(folder: Path) -> dict[str, str]:
    """ "F" or "M" by reader, from LibriSpeech's own table where there is one."""
    tables = [path.read_text(encoding="utf-8") for path in folder.rglob("SPEAKERS.TXT")]
    rows = (line.split("|") for table in tables for line in table.splitlines() if not line.startswith(";"))
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


def _resemblyzer(folder: Path) -> Iterator[Utterance]:
    audio = folder / "audio_data"
    yield from _librispeech(audio, "librispeech_test-other/*/*.flac", "resemblyzer-test-other", test=True)
    yield from _librispeech(audio, "librispeech_train-clean-100/*.flac", "resemblyzer-train-clean-100", test=False)


def _lj(folder: Path) -> Iterator[Utterance]:
    transcripts: dict[str, str] = {}
    for path in folder.glob("LJSpeech-1.1/metadata.csv"):
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, texts = line.partition("|")
            transcripts[key] = texts.rpartition("|")[2].strip()  # numbers written out
    for path in folder.glob("LJSpeech-1.1/wavs/*.wav"):
        text = transcripts.get(path.stem)
        yield Utterance(path, f"lj-{path.stem}", "lj", "ljspeech", "public domain", "train", True, text)


def _kathleen(folder: Path) -> Iterator[Utterance]:
    for path in folder.glob("data/*.wav"):
        told = path.with_suffix(".txt")
        text = told.read_text(encoding="utf-8").strip() if told.is_file() else None
        yield Utterance(path, f"kathleen-{path.stem}", "kathleen", "kathleen", "CC0", "train", True, text)


def _speechocean(folder: Path) -> Iterator[Utterance]:
    transcripts = _read_table((folder / "train" / "text", folder / "test" / "text"), "\t")
    sexes = _read_table(folder.glob("*/spk2gender"), "\t")
    licence = "free for any use"
    for path in folder.glob("WAVE/SPEAKER*/*.WAV"):
        speaker = path.parent.name.removeprefix("SPEAKER")
        yield Utterance(
            path,
            f"speechocean-{path.stem}",
            f"speechocean-{speaker}",
            "speechocean762",
            licence,
            _training_split(speaker),
            False,
            transcripts.get(path.stem),
            sexes.get(speaker, "").upper(),
        )


def _picovoice(folder: Path) -> Iterator[Utterance]:
    # Speakers are not named in this source: one group, wholly in the training split.
    for path in folder.glob("data/speech/clean/*.wav"):
        yield Utterance(path, f"picovoice-{path.stem}", "picovoice", "picovoice", "Apache-2.0", "train", False)


def _kerstin(folder: Path) -> Iterator[Utterance]:
    transcripts: dict[str, str] = {}
    for path in folder.glob("verified/*.csv"):
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines, delimiter="|"):
                if len(row) >= 2:
                    transcripts[Path(row[0]).stem] = row[-1].strip()
    for path in folder.glob("verified/*.flac"):
        text = transcripts.get(path.stem)
        yield Utterance(path, f"kerstin-{path.stem}", "kerstin", "kerstin", "CC0", "train", False, text)


_SOURCES: dict[str, Callable[[Path], Iterator[Utterance]]] = {
    "testclean": lambda f: _librispeech(f, "LibriSpeech/test-clean/*/*/*.flac", "librispeech-test-clean", test=True),
    "resemblyzer": _resemblyzer,
    "minilibri": lambda f: _librispeech(f, "LibriSpeech/train-clean-5/*/*/*.flac", "mini-librispeech", test=False),
    "deepspeaker": lambda f: _librispeech(
        f, "audio/LibriSpeechSamples/train-clean-100/*/*/*.flac", "deep-speaker", test=False
    ),
    "lj": _lj,
    "kathleen": _kathleen,
    "speechocean": _speechocean,
    "picovoice": _picovoice,
    "kerstin": _kerstin,
}


def trim_silences(samples: np.ndarray) -> np.ndarray:
    """[T] -> [T']: silence at the edges cut to 0.15 s and pauses above 0.7 s cut to 0.7 s, with 10 ms cross-fades."""
    active, frame = np.flatnonzero(active_frames(torch.from_numpy(samples))), ACTIVITY_SAMPLES
    if len(active) == 0:
        return samples[:0]
    edge = round(EDGE_SILENCE_S * SAMPLE_RATE_HZ)
    half_pause = round(MAX_PAUSE_S / 2 * SAMPLE_RATE_HZ)
    pieces = []
    start = max(0, active[0] * frame - edge)
    for before, after in itertools.pairwise(active):
        if (after - before - 1) * frame > 2 * half_pause:
            pieces.append(samples[start : (before + 1) * frame + half_pause])
            start = after * frame - half_pause
    pieces.append(samples[start : min(len(samples), (active[-1] + 1) * frame + edge)])
    return _join(pieces, round(_FADE_S * SAMPLE_RATE_HZ))


def _join(pieces: list[np.ndarray], fade: int) -> np.ndarray:
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    joined = pieces[0]
    for piece in pieces[1:]:
        overlap = joined[-fade:] * (1.0 - ramp) + piece[:fade] * ramp
        joined = np.concatenate([joined[:-fade], overlap, piece[fade:]])
    return joined


def level(samples: np.ndarray) -> np.ndarray:
    """[T] -> [T] with the active parts at -23 dB RMS, or less where a peak would pass 0.95; as it is where none are."""
    try:
        return samples * level_gain(torch.from_numpy(samples))
    except AudioSilentError:
        return samples


def read_prepared(path: Path) -> np.ndarray:
    """One file -> mono 16 kHz, without offset, levelled and trimmed: int16 [T] (empty when nothing is heard)."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1))
    if rate_hz != SAMPLE_RATE_HZ:
        mono = resample(mono, rate_hz, SAMPLE_RATE_HZ)
    centred = mono.numpy() - mono.numpy().mean() if len(mono) else mono.numpy()
    return to_pcm(level(trim_silences(centred)))


def _prepare(utterance: Utterance) -> tuple[Utterance, np.ndarray]:
    return utterance, read_prepared(utterance.path)


def prepare(raw: Path, out: Path, num_processes: int) -> CorpusWriter:
    """Writes the corpus folder `out` from the sources below `raw`; repeated and nearly empty recordings are dropped."""
    utterances = list_utterances(raw)
    seen: set[str] = set()
    torch.set_num_threads(1)  # inherited by the workers: one core each
    with CorpusWriter(out) as writer, multiprocessing.Pool(num_processes) as pool:
        for utterance, pcm in pool.imap(_prepare, utterances, chunksize=16):
            if len(pcm) < MIN_ITEM_S * SAMPLE_RATE_HZ or (digest := pcm_hash(pcm)) in seen:
                continue
            seen.add(digest)
            writer.add(
                pcm,
                id=utterance.id,
                group=utterance.group,
                split=utterance.split,
                source=utterance.source,
                licence=utterance.licence,
                fluent=utterance.fluent,
                transcript=utterance.transcript,
                sex=utterance.sex,
                sha256=digest,
            )
    return writer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", type=Path, required=True, help="folder with one folder a source")
    parser.add_argument("--out", type=Path, required=True, help="corpus folder to write")
    parser.add_argument("--processes", type=int, default=2)


def run(args: argparse.Namespace) -> None:
    writer = prepare(args.raw, args.out, args.processes)
    print(f"{args.out}: {summary(writer.items)}")
