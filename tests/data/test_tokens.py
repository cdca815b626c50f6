"""Token caches: round trip, windows of long items, copies at other speeds."""

import json

import numpy as np
import pytest
import torch

from audiolm.config import SAMPLES_PER_FRAME, SAMPLES_PER_SEMANTIC
from audiolm.data.corpus import Corpus, CorpusWriter
from audiolm.data.tokens import META_FILE, Recording, TokenCorpus, batches, build, cut, list_recordings
from audiolm.errors import DataError

META = {"codec": "c" * 64, "semantic": "s" * 64, "num_levels": 2, "codebook_size": 32768, "num_clusters": 32768}


def _codes(waveforms):
    """Stands for a codec: the first sample of each frame, and its negative."""
    first = (waveforms[:, ::SAMPLES_PER_FRAME] * 32767).round().long()
    return torch.stack([first, -first], dim=-1)


def _semantic(waveforms):
    return (waveforms[:, ::SAMPLES_PER_SEMANTIC] * 32767).round().long()


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    with CorpusWriter(tmp_path / "corpus") as writer:
        for index, (length, split) in enumerate(
            [(64_000, "train"), (1_000_000, "valid"), (10_000, "train"), (600, "test")]
        ):
            pcm = rng.integers(-30_000, 30_000, length).astype(np.int16)
            writer.add(pcm, id=f"i{index}", group="g", split=split, source="s", licence="l", fluent=index != 2)
    return Corpus(tmp_path / "corpus")


def _build(corpus, out, speeds=(), batch_s=60.0):
    build(list_recordings([corpus], speeds), _codes, _semantic, out=out, meta=META, batch_s=batch_s)
    return TokenCorpus(out)


def test_tokens_of_long_and_short_items_equal_those_of_the_whole(corpus, tmp_path):
    tokens = _build(corpus, tmp_path / "tokens")
    assert [item.id for item in tokens.items] == ["i0", "i1", "i2"]  # the last is shorter than one semantic token
    for item, source in zip(tokens.items, corpus.items, strict=False):
        whole = corpus.waveform(source)[None]
        whole = whole[:, : whole.shape[1] // SAMPLES_PER_SEMANTIC * SAMPLES_PER_SEMANTIC]
        assert item.num_frames == 2 * item.num_semantic == whole.shape[1] // SAMPLES_PER_FRAME
        assert torch.equal(tokens.codes(item).long(), _codes(whole)[0])
        assert torch.equal(tokens.semantic(item).long(), _semantic(whole)[0])
        assert tokens.codes(item).dtype == tokens.semantic(item).dtype == torch.int16


def test_tokens_do_not_depend_on_the_batch_size(corpus, tmp_path):
    one, many = _build(corpus, tmp_path / "one", batch_s=0.1), _build(corpus, tmp_path / "many", batch_s=1000.0)
    for item in one.items:
        assert torch.equal(one.codes(item), many.codes(item))


def test_speed_copies_are_of_training_items_alone_and_follow_the_originals(corpus, tmp_path):
    tokens = _build(corpus, tmp_path / "tokens", speeds=(0.8, 1.25))
    assert [item.id for item in tokens.items] == ["i0", "i1", "i2", "i0@0.8", "i2@0.8", "i0@1.25", "i2@1.25"]
    assert [item.is_copy for item in tokens.items] == [False] * 3 + [True] * 4
    plain, slow, fast = (next(i for i in tokens.items if i.id == name) for name in ("i0", "i0@0.8", "i0@1.25"))
    assert (plain.num_frames, slow.num_frames, fast.num_frames) == (200, 250, 160)
    assert [item.id for item in tokens.select(split="train", fluent=False)] == ["i2", "i2@0.8", "i2@1.25"]


def test_recordings_have_the_length_they_promise(corpus):
    for speed in (0.95, 1.0, 1.05):
        recording = Recording(corpus, corpus.items[0], speed)
        assert recording.waveform().shape == (recording.num_semantic * SAMPLES_PER_SEMANTIC,)


@pytest.mark.parametrize("num_positions", [1, 9, 14, 15, 16, 24, 25, 100, 101])
def test_windows_keep_every_position_once_with_context_inside(num_positions):
    windows = list(cut(0, num_positions, 10, 2))
    kept = [window.start + position for window in windows for position in range(window.keep_start, window.keep_end)]
    assert kept == list(range(num_positions))
    for window in windows:
        assert window.start >= 0
        assert window.start + window.length <= num_positions
        assert window.keep_start >= 2 or window.start == 0
        assert window.keep_end <= window.length - 2 or window.start + window.length == num_positions


def test_batches_hold_windows_of_one_length_within_the_budget():
    windows = [window for index, n in enumerate([30, 5, 5, 5, 14]) for window in cut(index, n, 10, 2)]
    grouped = list(batches(windows, 28))
    assert sorted(len(batch) for batch in grouped) == [2, 2, 3]
    assert all(len({window.length for window in batch}) == 1 for batch in grouped)


def test_an_encoder_of_the_wrong_rate_is_refused(corpus, tmp_path):
    with pytest.raises(DataError, match="expected codes"):
        build(list_recordings([corpus], ()), lambda w: _codes(w)[:, 1:], _semantic, out=tmp_path / "t", meta=META)


def test_an_incomplete_cache_is_refused(corpus, tmp_path):
    _build(corpus, tmp_path / "tokens")
    meta = json.loads((tmp_path / "tokens" / META_FILE).read_text())
    del meta["codec"]
    (tmp_path / "tokens" / META_FILE).write_text(json.dumps(meta))
    with pytest.raises(DataError, match="lacks codec"):
        TokenCorpus(tmp_path / "tokens")
    (tmp_path / "tokens" / META_FILE).unlink()
    with pytest.raises(DataError, match="not a token cache"):
        TokenCorpus(tmp_path / "tokens")
