import argparse
import itertools
import json

import pytest
import torch

from audiolm.codec import Codec
from audiolm.config import STAGES
from audiolm.data.tokens import TokenCorpus
from audiolm.errors import CheckpointError, ConfigError, TrainingError
from audiolm.lm import StageModel
from audiolm.lm.layouts import UNKNOWN
from audiolm.training import runs, stage
from audiolm.training.__main__ import main
from audiolm.training.baselines import MIXTURES, bigram_nats, unigram_nats
from audiolm.training.token_crops import TokenCrops, segments
from tests.tiny import CODEC
from tests.training.conftest import arguments


def build(material, name, *extra):
    parser = argparse.ArgumentParser()
    stage.add_arguments(parser)
    args = parser.parse_args(arguments(material, name, *extra))
    args.device, args.precision = torch.device("cpu"), "fp32"
    return stage.build(args)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_trains_from_the_command_line_and_its_run_loads(material, tmp_path, name):
    budget = ["--out", str(tmp_path), "--steps", "3", "--device", "cpu", "--threads", "1"]
    assert main(["stage", *budget, *arguments(material, name)]) == 0
    component, model, made_for = runs.load_run(tmp_path)
    assert component == f"stage_{name}"
    assert isinstance(model, StageModel)
    assert set(made_for) == {"semantic": {"semantic"}, "coarse": {"codec", "semantic"}, "fine": {"codec"}}[name]
    figures = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    valid = [line for line in figures if line["kind"] == "valid"][-1]
    assert {"loss", "level_0", "unigram", "bigram_level_0"} <= set(valid)
    assert ("loss_condition_shuffled" in valid) == (name != "semantic")


def test_training_beats_the_unigram_and_shows_the_use_of_the_condition(material):
    task = build(material, "coarse", "--condition-noise", "0")
    optimizer = torch.optim.AdamW(task.modules.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        loss, _ = task.loss("main", task.batch(generator), step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    task.modules.eval()
    with torch.no_grad():
        figures = task.validate()
        again = task.validate()
    assert figures == again
    assert figures["loss"] < 0.6 * figures["unigram"]
    assert figures["loss_condition_shuffled"] > figures["loss"] + 0.5


def test_crops_join_neighbours_of_one_group_and_no_others(material):
    corpus = TokenCorpus(material / "tokens")
    parts = segments(corpus, corpus.select(split="train"))
    assert [part.num_frames for part in parts] == [140, 140]
    whole = parts[0].crop(0, 140)
    assert torch.equal(whole.codes, torch.cat([corpus.codes(item) for item in corpus.items[:2]]).long())
    assert torch.equal(whole.semantic, torch.cat([corpus.semantic(item) for item in corpus.items[:2]]).long())


def test_crops_start_on_even_frames_so_that_both_streams_are_aligned(material):
    corpus = TokenCorpus(material / "tokens")
    crops = TokenCrops(segments(corpus, corpus.items)).draw(50, 40, torch.Generator().manual_seed(0))
    for crop in crops:
        assert len(crop.codes) == 50
        assert torch.equal(crop.codes[:, 0], (crop.semantic.repeat_interleave(2) * 3) % 32)


def test_noise_touches_what_is_read_and_never_the_targets(material):
    clean = build(material, "fine", "--token-noise", "0", "--condition-noise", "0")
    noisy = build(material, "fine", "--token-noise", "0.5", "--condition-noise", "0.5")
    expected = clean.batch(torch.Generator().manual_seed(3))
    batch = noisy.batch(torch.Generator().manual_seed(3))
    assert torch.equal(batch.targets, expected.targets)
    assert 0.3 < (batch.inputs != batch.targets).float().mean() < 0.6
    assert 0.3 < (batch.condition != expected.condition).float().mean() < 0.6


def test_some_crops_hide_their_condition_as_a_whole(material):
    hidden = build(material, "coarse", "--condition-dropout", "0.5", "--condition-noise", "0")
    batches = [hidden.batch(torch.Generator().manual_seed(seed)) for seed in range(10)]
    rows = torch.cat([(batch.condition == UNKNOWN).float().mean(dim=(1, 2)) for batch in batches])
    assert set(rows.tolist()) == {0.0, 1.0}
    assert 0.2 < float(rows.mean()) < 0.8
    assert hidden.validate()["loss_condition_hidden"] > 0
    for wrong in (("coarse", "0.5", "--layout", "flattened"), ("semantic", "0.5"), ("coarse", "1"), ("coarse", "nan")):
        with pytest.raises(TrainingError, match="--condition-dropout"):
            build(material, wrong[0], "--condition-dropout", *wrong[1:])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch-size", "0", "--batch-size must be at least 1, found 0"),
        ("--token-noise", "1.5", "--token-noise must be 0 to 1, found 1.5"),
        ("--condition-noise", "nan", "--condition-noise must be 0 to 1, found nan"),
        ("--crop-s", "0", "max_steps must be positive, found 0"),
        ("--feed-forward", "0", "must be positive"),
        ("--depth-width", "0", "depth_width must be positive, found 0"),
    ],
)
def test_options_that_cannot_be_are_refused_and_not_taken_for_the_usual_ones(material, option, value, message):
    with pytest.raises((TrainingError, ConfigError), match=message):
        build(material, "coarse", option, value)


def test_padding_of_unequal_crops_does_not_count(material):
    task = build(material, "semantic")
    batch = task.batch(torch.Generator().manual_seed(0))
    assert batch.mask is not None
    changed = torch.where(batch.mask[..., None], batch.targets, 1)
    task.modules.eval()
    assert torch.equal(
        task.model.loss(changed, None, batch.mask)[0], task.model.loss(batch.targets, None, batch.mask)[0]
    )


def test_a_codec_that_is_not_the_caches_is_refused(material, tmp_path):
    torch.manual_seed(1)
    runs.write_run(tmp_path, "codec", Codec(CODEC), CODEC, {})
    with pytest.raises(TrainingError, match="the token caches are of codec"):
        build(material, "coarse", "--codec", str(tmp_path))


def test_only_weights_of_the_same_stage_and_size_can_be_started_from(material, tmp_path):
    budget = ["--out", str(tmp_path), "--steps", "1", "--device", "cpu", "--threads", "1"]
    assert main(["stage", *budget, *arguments(material, "fine")]) == 0
    assert build(material, "fine", "--init", str(tmp_path)).component == "stage_fine"
    with pytest.raises(TrainingError, match="run of 'stage_fine', not of 'stage_coarse'"):
        build(material, "coarse", "--init", str(tmp_path))
    with pytest.raises(TrainingError, match="does not fit this model"):
        build(material, "fine", "--init", str(tmp_path), "--width", "32")
    with pytest.raises(CheckpointError, match="missing"):
        build(material, "fine", "--init", str(tmp_path / "nothing"))


def test_a_stage_is_gone_on_with_as_the_network_that_it_is(material, tmp_path, capsys):
    budget = ["--out", str(tmp_path), "--device", "cpu", "--threads", "1", "--steps"]
    assert main(["stage", *budget, "1", *arguments(material, "coarse")]) == 0
    assert main(["stage", *budget, "2", "--resume", *arguments(material, "coarse", "--dropout", "0.2")]) == 0
    written = (tmp_path / "config.json").read_text()
    other = arguments(material, "coarse", "--heads", "1", "--crop-s", "2")
    assert main(["stage", *budget, "3", "--resume", *other]) == 2
    assert "has max_steps 50, not 100; transformer.num_heads 2, not 1" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == written


def test_bigrams_equal_those_of_a_full_table():
    generator = torch.Generator().manual_seed(0)
    train, valid = ([torch.randint(5, (40,), generator=generator) ** 2 % 7 for _ in range(3)] for _ in range(2))
    table, ids = torch.zeros(7, 7), torch.cat(train)
    for sequence in train:
        for pair in itertools.pairwise(sequence):
            table[pair] += 1
    unigram = (torch.bincount(ids, minlength=7) + 1) / (len(ids) + 7)
    totals = table.sum(1)
    nats = []
    for share in MIXTURES:
        values = [
            share * (table[a, b] / totals[a]) + (1 - share) * unigram[b] if totals[a] > 0 else unigram[b]
            for sequence in valid
            for a, b in itertools.pairwise(sequence)
        ]
        nats.append(float(-torch.stack(values).log().mean()))
    assert bigram_nats(train, valid, 7) == pytest.approx(min(nats), rel=1e-5)


def test_bigrams_of_a_vocabulary_too_large_for_a_table():
    cycle = torch.arange(4000) % 4 + 10**6
    assert bigram_nats([cycle], [cycle], 2**20) < 0.06


def test_baselines_of_a_cycle_are_its_entropy_and_almost_nothing():
    cycle = (torch.arange(4000) % 4).long()
    assert unigram_nats(cycle[:, None], cycle[:, None], (4,))[0] == pytest.approx(1.386, abs=1e-2)
    assert bigram_nats([cycle], [cycle], 4) < 0.06
