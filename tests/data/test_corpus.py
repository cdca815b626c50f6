"""Corpus folders: what is written is what is read; crops; damaged folders."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from audiolm.data.corpus import AUDIO_FILE, MANIFEST_FILE, Corpus, CorpusWriter, pcm_hash, to_pcm
from audiolm.errors import DataError


@pytest.fixture
def corpus(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        for index, (length, split) in enumerate([(4000, "train"), (300, "train"), (2000, "test")]):
            pcm = np.full(length, 1000 * (index + 1), dtype=np.int16)
            pcm[:] += np.arange(length, dtype=np.int16) % 100
            writer.add(pcm, id=f"i{index}", group=f"g{index}", split=split, source="s", licence="l", fluent=index != 1)
    return Corpus(tmp_path)


def test_waveforms_come_back_as_written(corpus):
    second = corpus.items[1]
    assert (second.start, second.length, second.duration_s) == (4000, 300, 300 / 16000)
    expected = (2000 + np.arange(300) % 100) / 32767.0
    assert torch.allclose(corpus.waveform(second), torch.tensor(expected, dtype=torch.float32))
    assert second.sha256 == pcm_hash(corpus.pcm[4000:4300])


def test_select_combines_split_fluency_and_group(corpus):
    assert [item.id for item in corpus.select(split="train")] == ["i0", "i1"]
    assert [item.id for item in corpus.select(split="train", fluent=True)] == ["i0"]
    assert [item.id for item in corpus.select(groups={"g2"})] == ["i2"]
    with pytest.raises(DataError, match="'dev'"):
        corpus.select(split="dev")


def test_crops_are_seeded_lie_in_one_item_and_pad_short_ones(corpus):
    items = corpus.select(split="train")
    crops = corpus.crops(items, 400, 64, torch.Generator().manual_seed(1))
    again = corpus.crops(items, 400, 64, torch.Generator().manual_seed(1))
    assert crops.shape == (64, 400)
    assert torch.equal(crops, again)
    short = crops[:, 0] * 32767 > 1500
    assert 0 < short.sum() < 20  # 300 of 4300 samples
    assert (crops[short, 300:] == 0).all()
    assert ((crops[~short] * 32767).round() < 1100).all()


def test_crops_of_nothing_are_refused(corpus):
    with pytest.raises(DataError, match="at least one item"):
        corpus.crops([], 100, 1, torch.Generator())


def test_pcm_clips_instead_of_wrapping():
    assert to_pcm(np.array([2.0, -2.0, 0.5])).tolist() == [32767, -32767, 16384]


def test_a_failed_writer_leaves_no_corpus(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), CorpusWriter(tmp_path):
        raise RuntimeError("stop")
    with pytest.raises(DataError, match="manifest"):
        Corpus(tmp_path)


def test_an_item_beyond_the_audio_is_refused(corpus):
    path = corpus.folder / AUDIO_FILE
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="i2 lies beyond"):
        Corpus(corpus.folder)


def test_a_malformed_manifest_line_is_named(corpus):
    path = corpus.folder / MANIFEST_FILE
    path.write_text(path.read_text() + json.dumps({"id": "x"}) + "\n")
    with pytest.raises(DataError, match="line 4"):
        Corpus(corpus.folder)


def test_reading_corpora_needs_neither_soundfile_nor_mido():
    code = (
        "import sys; sys.modules['soundfile'] = sys.modules['mido'] = None\n"
        "import audiolm.data.corpus, audiolm.data.tokens, audiolm.data.render"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
