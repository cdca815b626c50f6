"""Phones beside a corpus: what an alignment says at every instant of a crop."""

import numpy as np
import pytest

from audiolm.data import phones
from audiolm.data.corpus import Corpus, CorpusWriter, Crop
from audiolm.data.phones import LABELS, NUM_LABELS, PHONES_FILE, SILENCE, UNKNOWN, PhoneLabels, frame_labels
from audiolm.data.recogniser import Phone
from audiolm.errors import DataError


@pytest.fixture
def corpus(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        for index, length in enumerate([3_250, 6_400]):
            writer.add(np.ones(length, np.int16), id=f"i{index}", group="g", split="train", source="s", licence="CC0")
    return Corpus(tmp_path)


def test_labels_are_the_thirty_nine_phones_silence_and_unknown():
    assert len(set(LABELS.values())) == 40
    assert set(LABELS.values()) | {UNKNOWN} == set(range(NUM_LABELS))


def test_an_alignment_becomes_a_label_every_ten_milliseconds():
    phones = [Phone("SIL", 0.0, 0.02), Phone("AH", 0.02, 0.05), Phone("+NSN+", 0.05, 0.06), Phone("ZH", 0.06, 0.08)]
    expected = [SILENCE] * 2 + [LABELS["AH"]] * 3 + [UNKNOWN] + [LABELS["ZH"]] * 2
    assert frame_labels(phones, 8).tolist() == expected
    assert (frame_labels(phones, 20) == UNKNOWN).all()  # most of the utterance was not aligned
    assert (frame_labels([], 5) == UNKNOWN).all()


class Aligner:
    """Knows "a" and "word", learns others, and hears "a" in every recording. One phone is all that it aligns: the
    first of the last word."""

    def __init__(self):
        self.known = {"a": ["AH"], "word": ["W", "ER", "D"]}

    def knows(self, words):
        return self.known.keys() >= set(words)

    def teach(self, pronunciations):
        self.known |= pronunciations

    def words(self, waveform):
        return ["a"]

    def phones(self, waveform, words):
        return [Phone(self.known[words[-1]][0], 0.0, len(waveform) / 16_000)]


def test_english_of_the_training_and_validation_splits_is_aligned(tmp_path, monkeypatch):
    kinds = [
        ("train", "ljspeech", "a word", False), ("valid", "mini-librispeech", "A WORD", True),
        ("train", "ljspeech", "eh", True), ("train", "ljspeech", None, True),  # one by rule, one as it is heard
        ("test", "ljspeech", "a word", True), ("train", "kerstin", "a", True), ("train", "kerstin", None, True),
        ("train", "picovoice", None, False), ("train", "ljspeech", "hm", True), ("test", "ljspeech", None, True),
    ]  # fmt: skip
    with CorpusWriter(tmp_path) as writer:
        for index, (split, source, text, fluent) in enumerate(kinds):
            labels = {"split": split, "source": source, "transcript": text, "fluent": fluent}
            writer.add(np.ones(1_600, np.int16), id=str(index), group="g", licence="CC0", **labels)
    asked = []
    monkeypatch.setattr(phones, "Recogniser", Aligner)
    monkeypatch.setattr(phones, "pronounced", lambda words: asked.append(words) or {"eh": ["EY"]})
    found = phones.align(tmp_path, num_processes=1)
    assert asked == [{"eh", "hm"}]
    labels = np.fromfile(tmp_path / PHONES_FILE, np.uint8).reshape(len(kinds), 10)
    assert labels.tolist() == [[LABELS[phone]] * 10 for phone in ("W", "W", "EY", "AH")] + [[UNKNOWN] * 10] * 6
    hours = {"hours_train": 0.0, "hours_valid": 0.0}  # a tenth of a second each
    assert found == hours | {"words_by_rule": 1, "words_left_out": 1}


def test_a_crop_reads_the_middle_of_its_positions_and_nothing_beyond_its_end(corpus):
    labels = np.arange(21 + 40, dtype=np.uint8) % NUM_LABELS
    labels.tofile(corpus.folder / PHONES_FILE)
    track = PhoneLabels(corpus)
    # 400 + 320 samples are frame 4 of the second item, which begins at frame 21 of the file.
    assert track.at(Crop(corpus.items[1], 400, 3_000), 6).tolist() == [25, 29, 33, 37, 0, 0]
    assert track.at(Crop(corpus.items[0], 0, 3_250), 5).tolist() == [2, 6, 10, 14, 18]
    assert track.at(Crop(corpus.items[0], 0, 3_250), 3, speed=1.5).tolist() == [3, 9, 15]


def test_a_corpus_that_changed_since_is_refused(corpus):
    with pytest.raises(DataError, match=r"python -m audiolm\.data phones"):
        PhoneLabels(corpus)
    np.zeros(60, np.uint8).tofile(corpus.folder / PHONES_FILE)
    with pytest.raises(DataError, match="60 frames, the corpus 61"):
        PhoneLabels(corpus)
