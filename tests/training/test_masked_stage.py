import json
from dataclasses import replace

import pytest
import torch

from audiolm.checkpoints.tensors import component_hash
from audiolm.config import MaskedConfig
from audiolm.data import tokens
from audiolm.data.tokens import TokenCorpus, TokenItem
from audiolm.lm.masked import MaskedModel
from audiolm.training import runs
from audiolm.training.__main__ import main
from audiolm.training.masked_stage import draw_mask, start_from_fine
from tests.lm.models import stage_model
from tests.training.conftest import arguments

BUDGET = ("--device", "cpu", "--threads", "1", "--lr", "1e-2", "--warmup-steps", "1", "--precision", "fp32")


@pytest.fixture(scope="module")
def fine(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine")
    assert main(["stage", "--out", str(folder), "--steps", "1", *BUDGET, *arguments(material, "fine")]) == 0
    return folder


def train(material, fine, out, steps, *extra):
    inputs = ["--tokens", str(material / "tokens"), "--codec", str(material / "codec"), "--fine", str(fine)]
    budget = ["--out", str(out), "--steps", str(steps), *BUDGET, "--batch-size", "3", "--dropout", "0"]
    return main(["masked-stage", *budget, *inputs, *extra])


def test_a_masked_stage_trains_from_the_command_line_and_its_run_loads(material, fine, tmp_path):
    losses = []
    for steps in (1, 25):
        assert train(material, fine, tmp_path / str(steps), steps) == 0
        lines = [json.loads(line) for line in (tmp_path / str(steps) / "log.jsonl").read_text().splitlines()]
        losses.append(next(line for line in reversed(lines) if line["kind"] == "valid"))
    assert losses[1]["loss"] < losses[0]["loss"] - 0.1
    assert losses[1]["loss"] == pytest.approx((losses[1]["loss_masked_1"] + losses[1]["loss_masked_0.5"]) / 2, abs=1e-5)
    component, model, made_for = runs.load_run(tmp_path / "25")
    _, stage, of_stage = runs.load_run(fine)
    assert component == "fine_masked"
    assert isinstance(model, MaskedModel)
    assert made_for == {**of_stage, "stage_fine": component_hash(stage.state_dict())}
    assert (model.config.max_steps, model.config.transformer.num_layers) == (50, 1)


def test_a_fine_stage_of_another_codec_or_another_stage_is_refused(material, fine, tmp_path, capsys):
    component, stage, made_for = runs.load_run(fine)
    runs.write_run(tmp_path / "other", component, stage, stage.config, {**made_for, "codec": "7" * 64})
    assert train(material, tmp_path / "other", tmp_path, 1) == 2
    assert "other was trained on another codec than that of" in capsys.readouterr().err
    assert train(material, material / "codec", tmp_path, 1) == 2
    assert "a run of 'codec', not of a fine stage" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--layers", "--feed-forward"])
def test_none_is_none_and_not_as_many_as_usual(material, fine, tmp_path, capsys, option):
    assert train(material, fine, tmp_path, 1, option, "0") == 2
    assert "must be positive" in capsys.readouterr().err


def test_a_body_can_be_of_other_sizes_than_the_fine_stages(material, fine, tmp_path):
    assert train(material, fine, tmp_path, 1, "--layers", "2", "--feed-forward", "12") == 0
    made = runs.load_run(tmp_path)[1].config.transformer
    assert (made.num_layers, made.feed_forward) == (2, 12)


@pytest.mark.parametrize(("split", "frames"), [("train", (40, 40, 60)), ("valid", (60, 60, 40))])
def test_a_split_without_a_whole_window_is_refused(material, fine, tmp_path, capsys, split, frames):
    starts, items = (0, frames[0], sum(frames[:2])), []
    for start, length, name in zip(starts, frames, ("train", "train", "valid"), strict=True):
        items.append(TokenItem(str(start), start, length, str(start), name, True))  # each of a reader of its own
    codes, ids = torch.zeros(sum(frames), 4, dtype=torch.int16), torch.zeros(sum(frames) // 2, dtype=torch.int16)
    tokens._write(tmp_path / "tokens", codes, ids, items, TokenCorpus(material / "tokens").meta)
    assert train(material, fine, tmp_path / "out", 1, "--tokens", str(tmp_path / "tokens")) == 2
    assert f"a window has 50 frames, the longest of the token caches' split {split} 40" in capsys.readouterr().err


def test_every_row_has_something_masked_and_some_keep_their_first_frames():
    masks = draw_mask(200, 12, torch.Generator().manual_seed(0))
    assert masks.any(dim=1).all()
    prefixes = (masks[:, 1:] >= masks[:, :-1]).all(dim=1) & ~masks[:, 0]
    assert 0.15 < float(prefixes.float().mean()) < 0.5


def test_a_smaller_body_starts_from_what_is_of_the_same_sizes():
    fine = stage_model("fine", "depth", crop_s=0.6)
    usual = fine.config.transformer
    smaller = replace(usual, num_layers=1, feed_forward=usual.feed_forward // 2)
    levels = {"levels": fine.config.levels, "condition_levels": fine.config.condition_levels}
    model = MaskedModel(MaskedConfig(**levels, max_steps=fine.config.max_steps, transformer=smaller))
    model.attach(fine)
    start_from_fine(model)
    own, theirs = model.body.state_dict(), fine.body.state_dict()
    alike = {name for name in own if own[name].shape == theirs[name].shape}
    assert all(torch.equal(own[name], theirs[name]) for name in alike)
    assert {name.split(".")[2] for name in own.keys() - alike} == {"feed_in", "feed_out"}
    assert torch.equal(model.mask, fine.start)
    assert all(torch.equal(value, fine.mixer.state_dict()[name]) for name, value in model.mixer.state_dict().items())
