"""Stages that go on with another semantic tokenizer's ids."""

import pytest
import torch

from audiolm.data import tokens
from audiolm.data.tokens import TokenCorpus, TokenItem
from audiolm.errors import TrainingError
from audiolm.training import runs
from audiolm.training.transfer import cooccurrence, transfer
from tests.tiny import SEMANTIC
from tests.training.test_stage import build

NUMBERS = torch.randperm(SEMANTIC.num_clusters, generator=torch.Generator().manual_seed(1))  # of each old id


def cache(folder, num_clusters, **semantic):
    """Ids by name of the item; names that begin with v are of the split valid."""
    items, start = [], 0
    for name, ids in semantic.items():
        items.append(TokenItem(name, start, 2 * len(ids), name, "valid" if name[0] == "v" else "train", True))
        start += 2 * len(ids)
    meta = {"codec": "4" * 64, "semantic": "5" * 64, "num_levels": 1, "codebook_size": 8, "num_clusters": num_clusters}
    ids = torch.tensor([one for own in semantic.values() for one in own], dtype=torch.int16)
    tokens._write(folder, torch.zeros(start, 1, dtype=torch.int16), ids, items, meta)
    return TokenCorpus(folder)


def test_ids_meet_in_the_training_recordings_that_both_have(tmp_path):
    old = [
        cache(tmp_path / "a", 3, one=[0, 0, 0, 1], longer=[2, 2], valid=[1, 1]),
        cache(tmp_path / "b", 3, two=[2, 1]),
    ]
    new = [
        cache(tmp_path / "c", 4, two=[3, 3], valid=[0, 0]),
        cache(tmp_path / "d", 4, one=[0, 0, 0, 0], longer=[1, 1, 1]),
    ]
    assert cooccurrence(old, new).tolist() == [[3, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]]
    with pytest.raises(TrainingError, match="have 1 of the 3 training recordings of the new ones, at least 50% are"):
        cooccurrence(old[1:], new)


def test_copies_at_other_speeds_are_no_missing_recordings(tmp_path):
    old = [cache(tmp_path / "a", 2, **{"one": [0, 1], "one@0.9": [0, 0]})]
    copies = {f"one@{speed}": [1, 1] for speed in ("0.9", "1.1", "1.25")}
    new = [cache(tmp_path / "b", 2, one=[1, 1], **copies)]
    assert cooccurrence(old, new).tolist() == [[0, 0], [1, 1]]
    named = cache(tmp_path / "c", 2, **{"me@home": [0, 0], "me@work": [0, 0], "one": [0, 0]})
    with pytest.raises(TrainingError, match="have 1 of the 3 training recordings"):
        cooccurrence(old, [named])


def test_new_caches_without_training_recordings_are_refused(tmp_path):
    old = [cache(tmp_path / "a", 2, one=[0, 1])]
    for name, ids in (("b", {"valid": [0, 1]}), ("c", {"one@0.9": [0, 1]})):
        with pytest.raises(TrainingError, match="the new token caches hold no recordings of the split train"):
            cooccurrence(old, [cache(tmp_path / name, 2, **ids)])


def test_new_ids_begin_as_the_mean_of_the_old_ones_that_they_meet(tmp_path):
    old, new = cache(tmp_path / "a", 2, one=[0, 0, 0, 1]), cache(tmp_path / "b", 2, one=[0, 0, 0, 0])
    rows, other = torch.tensor([[4.0, 0.0], [0.0, 8.0]]), torch.ones(2)
    found = transfer("coarse", [old], [new])({"condition.rows.0": rows, "start": other})
    assert found["condition.rows.0"].tolist() == [[3.0, 2.0], [2.0, 4.0]]  # the second never occurs
    assert found["start"] is other
    with pytest.raises(TrainingError, match=r"have 2 semantic ids, the stage's tables \{'condition.rows.0': 5\}"):
        transfer("coarse", [old], [new])({"condition.rows.0": torch.zeros(5, 2)})


@pytest.fixture
def renumbered(material, tmp_path):
    """The cache of the material as another tokenizer made it."""
    corpus = TokenCorpus(material / "tokens")
    codes, semantic = (torch.cat([read(item) for item in corpus.items]) for read in (corpus.codes, corpus.semantic))
    meta = {**corpus.meta, "semantic": "6" * 64}
    tokens._write(tmp_path / "tokens", codes, NUMBERS[semantic.long()].to(torch.int16), corpus.items, meta)
    return tmp_path / "tokens"


@pytest.fixture
def trained(material, tmp_path):
    """-> a task of that stage, and the arguments to start from its run."""

    def make(name):
        task = build(material, name)
        runs.write_run(tmp_path / name, f"stage_{name}", task.model, task.config, task.made_for)
        return task, ["--init", str(tmp_path / name), "--init-tokens", str(material / "tokens")]

    return make


def first_item(material):
    corpus = TokenCorpus(material / "tokens")
    item = corpus.items[0]
    return corpus.codes(item)[None].long(), corpus.semantic(item)[None].long()


@torch.no_grad()
def test_a_coarse_stage_says_the_same_of_renumbered_conditions(material, renumbered, trained):
    old, start = trained("coarse")
    new = build(material, "coarse", "--tokens", str(renumbered), *start)
    codes, ids = first_item(material)
    codes = codes[:, :, : len(old.config.levels)]
    expected = old.model.logits(codes, ids[:, :, None])
    for found, wanted in zip(new.model.logits(codes, NUMBERS[ids][:, :, None]), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    wrong = new.model.logits(codes, ids[:, :, None])
    assert not torch.allclose(wrong[0], expected[0], atol=1e-3)
    assert new.made_for["semantic"] == "6" * 64


@torch.no_grad()
def test_a_semantic_stage_says_the_same_of_renumbered_ids(material, renumbered, trained):
    old, start = trained("semantic")
    new = build(material, "semantic", "--tokens", str(renumbered), *start)
    ids = first_item(material)[1][:, ::5]
    lengths = torch.zeros_like(ids)
    corpus = TokenCorpus(material / "tokens")
    seen = torch.cat([corpus.semantic(item) for item in corpus.select(split="train")]).unique().long()
    expected = old.model.logits(torch.stack([ids, lengths], dim=-1), None)
    found = new.model.logits(torch.stack([NUMBERS[ids], lengths], dim=-1), None)
    torch.testing.assert_close(found[0][..., NUMBERS[seen]], expected[0][..., seen], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_what_cannot_be_transferred_is_refused(material, renumbered, trained, tmp_path):
    _, start = trained("coarse")
    with pytest.raises(TrainingError, match="--init-tokens says what --init was trained on"):
        build(material, "coarse", *start[2:])
    with pytest.raises(TrainingError, match="of semantic tokenizer 555555555555, --init-tokens are of 666666666666"):
        build(material, "coarse", *start[:3], str(renumbered))
    _, start = trained("fine")
    with pytest.raises(TrainingError, match="a fine stage knows no semantic ids"):
        build(material, "fine", *start)
