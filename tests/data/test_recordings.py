"""Recordings of any rate and level as a corpus that is all test."""

import numpy as np
import pytest
import soundfile

from audiolm.data.__main__ import main
from audiolm.data.corpus import Corpus


def write(path, rate_hz: int, level: float = 0.01) -> str:
    path.parent.mkdir(exist_ok=True)
    time = np.arange(2 * rate_hz) / rate_hz
    tone = level * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, np.stack([tone + 0.1, tone + 0.1], axis=1), rate_hz)
    return str(path)


def test_recordings_become_items_of_the_test_split(tmp_path):
    files = [write(tmp_path / "one.flac", 44_100), write(tmp_path / "two.wav", 16_000, level=0.3)]
    assert main(["recordings", *files, "--out", str(tmp_path / "real"), "--licence", "CC0"]) == 0
    corpus = Corpus(tmp_path / "real")
    assert [(item.id, item.group, item.split, item.licence) for item in corpus.items] == [
        ("one", "one", "test", "CC0"),
        ("two", "two", "test", "CC0"),
    ]
    for item in corpus.items:
        assert item.duration_s == pytest.approx(2.0)
        samples = corpus.waveform(item)
        assert float(samples.mean()) == pytest.approx(0.0, abs=1e-3)
        assert 10 * np.log10(float(samples.square().mean())) == pytest.approx(-23.0, abs=0.5)


def test_files_of_one_name_and_files_without_sound_are_refused(tmp_path, capsys):
    files = [write(tmp_path / "a" / "one.wav", 16_000), write(tmp_path / "b" / "one.wav", 16_000)]
    assert main(["recordings", *files, "--out", str(tmp_path / "real")]) == 2
    assert "found several one" in capsys.readouterr().err
    (tmp_path / "no.wav").write_text("no audio")
    assert main(["recordings", str(tmp_path / "no.wav"), "--out", str(tmp_path / "real")]) == 2
    assert not (tmp_path / "real").exists()
