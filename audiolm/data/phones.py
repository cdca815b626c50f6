"""Which phone is heard when: the transcripts of a corpus aligned with its recordings, kept beside it at 100 Hz.

They serve the training of the speech tokenizer alone (`--phones`); generation knows no text.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC
from audiolm.data.corpus import Corpus, Crop, Item
from audiolm.data.pronunciation import pronounced
from audiolm.data.recogniser import FRAME_S, Phone, Recogniser, normalised
from audiolm.errors import DataError

PHONES_FILE = "phones.uint8"
GERMAN_SOURCES = ("kerstin",)  # of `audiolm.data.speech`; the others are English
SAMPLES_PER_FRAME = round(FRAME_S * SAMPLE_RATE_HZ)
UNKNOWN, SILENCE = 0, 1
# Of the CMU dictionary.
# fmt: off
PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
LABELS = {"SIL": SILENCE} | {name: number for number, name in enumerate(PHONES, start=SILENCE + 1)}
NUM_LABELS = SILENCE + 1 + len(PHONES)
MIN_LABELLED = 0.5  # of an utterance: less, and the alignment is taken as failed


def frame_labels(phones: Sequence[Phone], num_frames: int) -> np.ndarray:
    """uint8 [num_frames]: the label heard in each 10 ms; UNKNOWN throughout where too little was aligned."""
    labels = np.full(num_frames, UNKNOWN, dtype=np.uint8)
    for phone in phones:
        labels[round(phone.start_s / FRAME_S) : round(phone.end_s / FRAME_S)] = LABELS.get(phone.name, UNKNOWN)
    return labels if (labels != UNKNOWN).mean() >= MIN_LABELLED else np.full_like(labels, UNKNOWN)


class PhoneLabels:
    """The labels of a corpus. Raises DataError where it was not aligned, or was made anew since."""

    def __init__(self, corpus: Corpus) -> None:
        path = corpus.folder / PHONES_FILE
        if not path.is_file():
            raise DataError(f"{corpus.folder}: no {PHONES_FILE}; make it with `python -m audiolm.data phones`")
        self._labels = np.fromfile(path, dtype=np.uint8)
        self._starts: dict[str, int] = {}
        total = 0
        for item in corpus.items:
            self._starts[item.id] = total
            total += _num_frames(item)
        if total != len(self._labels):
            raise DataError(f"{path} has {len(self._labels)} frames, the corpus {total}; align it anew")

    def at(self, crop: Crop, num_positions: int, speed: float = 1.0) -> Tensor:
        """int64 [num_positions]: what is heard in the middle of each position from the crop's start.

        A position lasts 40 ms of what is played, `speed` times that of the recording.
        """
        middles = crop.offset + (speed * SAMPLES_PER_SEMANTIC * (np.arange(num_positions) + 0.5)).astype(np.int64)
        inside = middles < crop.offset + crop.length
        frames = np.minimum(middles // SAMPLES_PER_FRAME, _num_frames(crop.item) - 1)
        found = np.where(inside, self._labels[self._starts[crop.item.id] + frames], UNKNOWN)
        return torch.from_numpy(found.astype(np.int64))


def align(folder: Path, num_processes: int) -> dict[str, float]:
    """Writes `phones.uint8` into the corpus folder: the English items of train and valid.

    Words that the dictionary lacks are pronounced by rule, where espeak-ng is installed; without it their utterances
    are left out. Of fluent recordings without a transcript the words are those that the recogniser hears, in both
    splits: without them validation would miss most of its readers.

    Raises EvaluationError without the recogniser (extra `eval`) and where espeak-ng fails, DataError for what is no
    corpus.
    """
    corpus, recogniser = Corpus(folder), Recogniser()
    words = {word for item in corpus.items if _is_open(item) for word in normalised(item.transcript or "")}
    unknown = {word for word in words if not recogniser.knows([word])}
    pronunciations = pronounced(unknown)
    recogniser.teach(pronunciations)  # a failure in a process of the pool would begin it again without end
    torch.set_num_threads(1)
    labels = []
    with multiprocessing.Pool(num_processes, _start, (folder, pronunciations)) as pool:
        found = pool.imap(_labels_of, range(len(corpus.items)), chunksize=16)
        labels = list(tqdm(found, total=len(corpus.items), unit=" items"))
    partial = folder / (PHONES_FILE + ".partial")
    np.concatenate(labels).tofile(partial)
    partial.replace(folder / PHONES_FILE)
    hours = {
        split: sum(
            (own != UNKNOWN).sum() for own, item in zip(labels, corpus.items, strict=True) if item.split == split
        )
        * FRAME_S
        / 3600.0
        for split in ("train", "valid")
    }
    words_of = {"words_by_rule": len(pronunciations), "words_left_out": len(unknown) - len(pronunciations)}
    return {f"hours_{split}": round(float(value), 3) for split, value in hours.items()} | words_of


_corpus: Corpus
_recogniser: Recogniser


def _start(folder: Path, pronunciations: Mapping[str, Sequence[str]]) -> None:
    global _corpus, _recogniser
    _corpus, _recogniser = Corpus(folder), Recogniser()
    _recogniser.teach(pronunciations)


def _labels_of(index: int) -> np.ndarray:
    item = _corpus.items[index]
    words = _words(item)
    if not words or not _recogniser.knows(words):
        return np.full(_num_frames(item), UNKNOWN, dtype=np.uint8)
    return frame_labels(_recogniser.phones(_corpus.waveform(item), words), _num_frames(item))


def _words(item: Item) -> list[str]:
    if not _is_open(item):
        return []
    if item.transcript is None and item.fluent:
        return _recogniser.words(_corpus.waveform(item))
    return normalised(item.transcript or "")


def _is_open(item: Item) -> bool:
    return item.split != "test" and item.source not in GERMAN_SOURCES


def _num_frames(item: Item) -> int:
    return -(-item.length // SAMPLES_PER_FRAME)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="corpus folder with transcripts")
    parser.add_argument("--processes", type=int, default=2)


def run(args: argparse.Namespace) -> None:
    print(f"{args.data / PHONES_FILE}: {align(args.data, args.processes)}")
