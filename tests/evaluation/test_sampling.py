"""The choice of sampling, on a checkpoint of random weights and recordings of noise."""

import json

import numpy as np
import pytest
import torch

from audiolm.checkpoints.format import load_checkpoint
from audiolm.config import SamplingConfig
from audiolm.data.corpus import Corpus, CorpusWriter, to_pcm
from audiolm.errors import EvaluationError
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.prompts import continue_coarse, continue_fine, continue_semantic, read_prompts
from audiolm.evaluation.sampling import (
    Setting,
    Trials,
    choose,
    compare,
    label,
    main,
    parse_grid,
    settings_of,
    verdict,
)
from audiolm.evaluation.subject import from_checkpoint
from audiolm.intervals import Interval
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/ with three recordings of 2.48 s and a silent one to choose by, one of the split test, and a checkpoint."""
    root = tmp_path_factory.mktemp("sampling")
    generator = np.random.default_rng(0)
    with CorpusWriter(root / "data") as writer:
        for index in range(5):
            pulse = 1.0 + np.sin(2 * np.pi * 3 * np.arange(39_680) / 16_000)
            pcm = to_pcm(0.1 * (index != 3) * pulse * generator.normal(size=39_680))
            split = "valid" if index < 4 else "test"
            writer.add(pcm, id=f"piece/{index}", group=str(index), split=split, source="s", licence="x")
    make_tiny_checkpoint(root / "piano", "piano")
    return root


@pytest.fixture(scope="module")
def prompts(folder):
    """0.8 s, continued for 0.8 s, and what the recording has for another stretch of that length."""
    subject = from_checkpoint(str(folder / "piano"))
    return read_prompts(HoldOut(subject, Corpus(folder / "data")), subject.models, 4, 0.8, 1.6, 0.84, 5, "valid")


def test_prompts_are_read_with_what_followed_and_silent_ones_left_out(prompts):
    assert [prompt.id for prompt in prompts] == ["piece/0", "piece/1", "piece/2"]
    assert [prompt.seed for prompt in prompts] == [5, 6, 7]
    assert (prompts[0].semantic.shape, prompts[0].codes.shape) == ((19,), (38, 4))  # the last position is made anew
    assert (prompts[0].whole_semantic.shape, prompts[0].whole_codes.shape) == ((61,), (122, 4))


def test_prompts_continued_together_become_what_the_pipeline_makes_of_each(folder, prompts):
    models = load_checkpoint(folder / "piano")
    request = ContinuationRequest(0.8, 0.8, num_continuations=1)
    semantic = continue_semantic(models, prompts, 40, request.semantic)
    coarse = continue_coarse(models, prompts, semantic, request.coarse)
    codes = continue_fine(models, prompts, coarse, request.fine)
    corpus = Corpus(folder / "data")
    for item, prompt, ids, rows in zip(corpus.items, prompts, semantic, codes, strict=False):
        own = ContinuationRequest(0.8, 0.8, num_continuations=1, seed=prompt.seed)
        *_, result = Pipeline(models).continue_prompt(Waveform(corpus.waveform(item)), own)
        assert torch.equal(result.continuations[0].semantic.ids, ids)
        assert torch.equal(result.continuations[0].acoustic.codes, rows)


def test_a_grid_is_a_stage_and_its_settings():
    assert parse_grid("coarse=0.8,0.9:50,1:0:0.95") == (
        "coarse",
        (SamplingConfig(0.8), SamplingConfig(0.9, 50), SamplingConfig(1.0, 0, 0.95)),
    )
    assert label(SamplingConfig(1.0, 50, 0.95)) == "1 top-k 50 top-p 0.95"


@pytest.mark.parametrize("text", ["loud=1", "coarse", "coarse=", "coarse=1:x", "coarse=9", "coarse=1:0:1:1"])
def test_a_grid_that_is_none_is_refused(text):
    with pytest.raises(EvaluationError, match="found"):
        parse_grid(text)


def test_the_originals_would_win_against_any_setting(folder, prompts):
    trials = Trials(load_checkpoint(folder / "piano"), prompts, 0.8, "piano")
    request = ContinuationRequest()
    made = trials.generated({stage: getattr(request, stage) for stage in ("semantic", "coarse", "fine")})
    originals = trials.originals()
    found = compare([made, originals], originals)
    ours, theirs = settings_of([SamplingConfig(), SamplingConfig(0.5)], found, 3)
    assert theirs.score.value == pytest.approx(0.0, abs=1e-6)
    assert theirs.best_share == 1.0
    assert ours.score.value > 0.05
    assert ours.score.low < ours.score.value < ours.score.high
    assert len(trials.later()) == 3


def test_the_command_names_the_best_setting_of_each_stage(folder, tmp_path, capsys):
    options = ["piano", "--checkpoint", str(folder / "piano"), "--data", str(folder / "data"), "--items", "2"]
    options += ["--prompt-s", "0.8", "--continuation-s", "0.8", "--grid", "semantic=0.5,1", "fine=0.5:4"]
    options += ["--base", "coarse=0.7", "--work", str(tmp_path / "heard")]
    files = {name: tmp_path / name for name in ("all.json", "best.json")}
    assert main([*options, "--json", str(files["all.json"]), "--out", str(files["best.json"])]) == 0
    result, best = (json.loads(path.read_text()) for path in files.values())
    assert result["sampling"] == best
    assert best["coarse"]["temperature"] == 0.7
    assert [one["sampling"] for one in result["stages"]["fine"]["settings"]] == [
        result["base"]["fine"], {**result["base"]["fine"], "temperature": 0.5, "top_k": 4}
    ]  # fmt: skip
    tried = result["stages"]["semantic"]["settings"]
    first = min(tried, key=lambda one: one["score"]["value"])
    assert best["semantic"] == (first["sampling"] if first["best_share"] >= 0.5 else result["base"]["semantic"])
    assert sum(one["best_share"] for one in tried) == pytest.approx(1.0)
    assert result["reference"]["score"] >= 0.0
    assert (result["split"], result["items"]) == ("valid", ["piece/0", "piece/1"])
    assert {path.name for path in (tmp_path / "heard" / "original").iterdir()} == {"piece_0.wav", "piece_1.wav"}
    # the base and two settings, then another of the other stage, and the originals
    assert len(list((tmp_path / "heard").iterdir())) == 5
    assert capsys.readouterr().out.count("best: ") == 2


def settings(*scores_and_shares: tuple[float, float]) -> list[Setting]:
    """Of temperatures 0.5, 0.6, …"""
    return [
        Setting(SamplingConfig(0.5 + 0.1 * index), Interval(score, score, score, 2), share, {})
        for index, (score, share) in enumerate(scores_and_shares)
    ]


def test_a_best_setting_that_is_first_in_half_of_the_draws_takes_the_base_s_place():
    tried = settings((0.3, 0.1), (0.2, 0.5), (0.4, 0.4))
    assert choose(tried, SamplingConfig(0.5)) is tried[1]
    assert verdict(tried, tried[1]) == "best: 0.6"


def test_a_best_setting_that_is_not_told_apart_leaves_the_base():
    tried = settings((0.3, 0.2), (0.2, 0.45), (0.4, 0.35), (0.9, 0.0))
    assert choose(tried, SamplingConfig(0.5)) is tried[0]
    assert verdict(tried, tried[0]) == "best: 0.6, not told apart from 0.7, 0.5; kept: 0.5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "fine=0.5", "fine=0.6"], "found several of fine"),
        (["--base", "fine=0.5", "fine=0.6"], "found several of fine"),
        (["--json", "/nowhere/to/be/found.json"], "found.json: cannot be written"),
        (["--out", "/"], "cannot be written"),
    ],
)
def test_what_cannot_end_well_is_refused_before_the_work(options, message, capsys):
    assert main(["piano", "--checkpoint", "none", "--data", "none", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_split_can_be_another(folder, capsys):
    options = ["piano", "--checkpoint", str(folder / "piano"), "--data", str(folder / "data"), "--split", "test"]
    assert main([*options, "--prompt-s", "0.8", "--continuation-s", "0.8"]) == 2
    assert "found 1" in capsys.readouterr().err  # the only recording of the split test


def test_one_prompt_is_too_few(folder, capsys):
    options = ["piano", "--checkpoint", str(folder / "piano"), "--data", str(folder / "data"), "--items", "1"]
    assert main([*options, "--prompt-s", "0.8", "--continuation-s", "0.8"]) == 2
    assert "at least 2 prompts, found 1" in capsys.readouterr().err
