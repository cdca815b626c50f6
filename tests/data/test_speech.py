"""Speech preparation: splits, silences, levels, repeats."""

import hashlib

import numpy as np
import pytest
import soundfile

from audiolm.audio.levelling import ACTIVE_LEVEL_DB
from audiolm.data import speech
from audiolm.data.corpus import Corpus
from audiolm.data.speech import is_valid_speaker, level, trim_silences
from audiolm.errors import DataError

RATE_HZ = 16_000


def _voice(seconds: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)
    return 0.05 * noise


def _silence(seconds: float) -> np.ndarray:
    return 1e-5 * _voice(seconds, seed=9)


def _write(path, samples, rate_hz=RATE_HZ):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz)


@pytest.fixture
def raw(tmp_path):
    """One or two recordings of every source, at their folders, rates and channel counts."""
    root = tmp_path / "raw"
    clean = root / "minilibri" / "LibriSpeech" / "train-clean-5"
    valid = next(str(reader) for reader in range(1000) if is_valid_speaker(str(reader)))
    _write(clean / "19" / "1" / "19-1-0000.flac", _voice(1.0, 1))
    (clean / "19" / "1" / "19-1.trans.txt").write_text("19-1-0000 A WORD\n")
    (clean.parent / "SPEAKERS.TXT").write_text(";ID  |SEX| NAME\n19   | F | Reader | of Books\n20   | M | Other\n")
    _write(clean / valid / "1" / f"{valid}-1-0000.flac", _voice(1.0, 2))
    samples = root / "deepspeaker" / "audio" / "LibriSpeechSamples" / "train-clean-100" / "19" / "1"
    _write(samples / "19-1-0000.flac", _voice(1.0, 1))  # repeats the first
    _write(root / "testclean" / "LibriSpeech" / "test-clean" / "61" / "1" / "61-1-0000.flac", _voice(1.0, 3))
    audio = root / "resemblyzer" / "audio_data"
    _write(audio / "librispeech_test-other" / "367" / "367-1-0000.flac", _voice(1.0, 4))
    _write(audio / "librispeech_train-clean-100" / "26-1-0000.flac", _voice(1.0, 5))
    _write(root / "lj" / "LJSpeech-1.1" / "wavs" / "LJ001-0001.wav", _voice(1.5, 6), 22_050)
    _write(root / "kathleen" / "data" / "a.wav", np.stack([_voice(3.0, 7)] * 2, axis=1), 48_000)
    _write(root / "kerstin" / "verified" / "b.flac", _voice(3.0, 8), 48_000)
    (root / "kerstin" / "verified" / "metadata.csv").write_text("b|Ein Wort\n")
    _write(root / "picovoice" / "data" / "speech" / "clean" / "c.wav", _voice(1.0, 10))
    _write(root / "speechocean" / "WAVE" / "SPEAKER0001" / "000010011.WAV", _voice(1.0, 11))
    for split in ("train", "test"):
        (root / "speechocean" / split).mkdir()
        (root / "speechocean" / split / "text").write_text("000010011\tWE\n")
        (root / "speechocean" / split / "spk2gender").write_text("0001\tm\n")
    return root


def test_valid_speakers_are_a_tenth_by_hash():
    assert is_valid_speaker("19") == (int(hashlib.sha1(b"19").hexdigest(), 16) % 10 == 0)
    share = np.mean([is_valid_speaker(str(reader)) for reader in range(5000)])
    assert 0.08 < share < 0.12


def test_splits_share_no_speaker_and_hold_out_is_test(raw, tmp_path):
    speech.prepare(raw, tmp_path / "out", num_processes=1)
    corpus = Corpus(tmp_path / "out")
    groups = {split: {item.group for item in corpus.select(split=split)} for split in ("train", "valid", "test")}
    assert groups["test"] == {"libri-61", "libri-367"}
    assert len(groups["valid"]) == 1
    assert {"libri-19", "lj", "kathleen", "kerstin", "picovoice"} <= groups["train"]
    assert not groups["train"] & groups["valid"]
    assert not (groups["train"] | groups["valid"]) & groups["test"]


def test_repeats_are_kept_once_and_only_fluent_sources_are_marked(raw, tmp_path):
    speech.prepare(raw, tmp_path / "out", num_processes=1)
    items = {item.id: item for item in Corpus(tmp_path / "out").items}
    assert items["libri-19-1-0000"].source == "mini-librispeech"
    assert items["libri-19-1-0000"].transcript == "A WORD"
    assert items["kerstin-b"].transcript == "Ein Wort"
    assert len({item.sha256 for item in items.values()}) == len(items)
    unfluent = {item.source for item in items.values() if not item.fluent}
    assert unfluent == {"kerstin", "picovoice", "speechocean762"}
    assert items["kathleen-a"].duration_s == pytest.approx(1.0, abs=0.5)


def test_sexes_are_those_that_the_sources_name(raw, tmp_path):
    speech.prepare(raw, tmp_path / "out", num_processes=1)
    sexes = {item.group: item.sex for item in Corpus(tmp_path / "out").items}
    assert (sexes["libri-19"], sexes["speechocean-0001"], sexes["libri-61"], sexes["lj"]) == ("F", "M", "", "")


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match="testclean"):
        speech.list_utterances(tmp_path)


def test_edges_are_trimmed_and_long_pauses_shortened_but_short_ones_kept():
    long_pause = np.concatenate([_silence(1.0), _voice(1.0), _silence(2.0), _voice(1.0), _silence(1.0)])
    assert len(trim_silences(long_pause)) / RATE_HZ == pytest.approx(2 * 0.15 + 1.0 + 0.7 + 1.0, abs=0.06)
    short_pause = np.concatenate([_voice(1.0), _silence(0.5), _voice(1.0)])
    assert len(trim_silences(short_pause)) / RATE_HZ == pytest.approx(2.5, abs=0.06)


def test_level_is_that_of_the_active_parts_and_never_clips():
    samples = np.concatenate([_voice(1.0), _silence(0.5), _voice(1.0)])
    levelled = level(samples)
    active_db = 20 * np.log10(np.sqrt(np.mean(levelled[:RATE_HZ] ** 2)))
    assert active_db == pytest.approx(ACTIVE_LEVEL_DB, abs=0.2)
    samples[100] = 0.9
    assert np.abs(level(samples)).max() <= 0.95 + 1e-6


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(RATE_HZ, np.float32), _silence(0.01)])
def test_what_holds_no_sound_is_levelled_to_itself_and_trimmed_to_nothing(samples):
    assert np.array_equal(level(samples), samples)
    assert len(trim_silences(samples)) == 0
