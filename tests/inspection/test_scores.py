from __future__ import annotations

import math

import pytest
import torch

from audiolm.errors import ConfigError, RequestError
from audiolm.evaluation.likelihood import stage_nats
from audiolm.inspection import scores
from audiolm.inspection.scores import TokenScores, overlapping_spans, score_coarse, score_fine, score_semantic
from audiolm.lm import StageModel
from audiolm.lm.sequences import expand_runs, merge_repeats
from audiolm.pipeline import Pipeline
from audiolm.stages import finished, semantic_prompt
from tests.pipeline.material import random

IDS = expand_runs(random(40, high=24), random(40, high=4, seed=1) + 1)
CODES = random(2 * len(IDS), 4, high=32, seed=2)
SIZES = {"semantic": 24, "coarse": 32, "fine": 32}


@pytest.fixture(params=["depth", "flattened"])
def chosen(request, pipeline, flattened) -> Pipeline:
    return pipeline if request.param == "depth" else flattened


def scored(pipeline: Pipeline, stage: str, codes: torch.Tensor = CODES) -> TokenScores:
    return finished(
        {
            "semantic": lambda: score_semantic(pipeline, IDS),
            "coarse": lambda: score_coarse(pipeline, IDS, codes),
            "fine": lambda: score_fine(pipeline, codes),
        }[stage]()
    )


def first_of_runs(values: torch.Tensor) -> torch.Tensor:
    """Values [S] at all positions of `IDS` -> those at the start of its runs, but the last."""
    runs = merge_repeats(IDS)[1]
    return values[runs.cumsum(0) - runs][:-1]


def test_semantic_surprisal_adds_up_to_the_loss(chosen):
    model = chosen.models.stages["semantic"]
    found = scored(chosen, "semantic")
    steps = semantic_prompt(model.config, IDS)
    per_level = stage_nats(model, steps[:-1], None)  # the last run's length is not known
    assert first_of_runs(found.nats[:, 0]).sum() == pytest.approx(per_level[0], rel=1e-4)
    if model.config.layout == "depth":
        assert first_of_runs(found.run_nats).sum() == pytest.approx(per_level[1], rel=1e-4)
        assert torch.equal(found.run_nats.isnan(), torch.arange(len(IDS)) >= len(IDS) - merge_repeats(IDS)[1][-1])
    else:
        assert found.run_nats is None


def test_coarse_surprisal_adds_up_to_the_loss(chosen):
    found = scored(chosen, "coarse")
    assert found.nats.sum(0).tolist() == pytest.approx(
        stage_nats(chosen.models.stages["coarse"], CODES[:, :2], IDS[:, None]).tolist(), rel=1e-4
    )


def test_fine_surprisal_adds_up_to_the_loss_of_the_windows(chosen):
    found = scored(chosen, "fine")
    model, first, rest = chosen.models.stages["fine"], CODES[:150], CODES[150:]
    assert 0 < len(rest) < 150
    expected = sum(stage_nats(model, codes[:, 2:], codes[:, :2]) for codes in (first, rest))
    assert found.nats.sum(0).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_scores_are_what_they_are_called(chosen, stage):
    found = scored(chosen, stage)
    rows = len(IDS) if stage == "semantic" else len(CODES)
    ids = IDS[:, None] if stage == "semantic" else CODES[:, :2] if stage == "coarse" else CODES[:, 2:]
    assert found.nats.shape == found.entropy.shape == found.rank.shape == ids.shape == (rows, ids.shape[1])
    assert found.top_ids.shape == found.top_probabilities.shape == (*ids.shape, 5)
    assert found.nats.dtype == found.top_probabilities.dtype == torch.float32
    assert found.rank.dtype == found.top_ids.dtype == torch.int32
    assert (found.nats > 0).all()
    assert (found.entropy >= 0).all()
    assert (found.entropy <= math.log(SIZES[stage]) + 1e-5).all()
    assert (found.top_probabilities.diff(dim=-1) <= 0).all()
    assert (found.top_probabilities.sum(-1) <= 1 + 1e-5).all()
    ranked = found.rank < 5
    assert ranked.any()
    place = found.rank.clamp_max(4).long()[..., None]
    assert torch.equal(found.top_ids.gather(-1, place)[..., 0][ranked].long(), ids[ranked])
    assert torch.allclose(found.top_probabilities.gather(-1, place)[..., 0][ranked], (-found.nats).exp()[ranked])


def test_the_likeliest_token_has_rank_zero(pipeline):
    codes = CODES.clone()
    for level in range(2):  # the second level is scored given the first
        codes[:3, level] = scored(pipeline, "coarse", codes).top_ids[:3, level, 0].long()
    assert scored(pipeline, "coarse", codes).rank[0].tolist() == [0, 0]


def test_a_small_vocabulary_leaves_alternatives_empty(pipeline, monkeypatch):
    monkeypatch.setattr(scores, "NUM_ALTERNATIVES", 40)
    found = scored(pipeline, "coarse")
    assert (found.top_ids[..., :32] >= 0).all()
    assert (found.top_ids[..., 32:] == -1).all()
    assert found.top_probabilities[..., 32:].isnan().all()


def test_long_clips_are_read_in_windows_no_longer_than_the_trained_ones(chosen, monkeypatch):
    lengths, logits = [], StageModel.logits

    def read(model, targets, condition):
        lengths.append((model.config.stage, targets.shape[1]))
        return logits(model, targets, condition)

    monkeypatch.setattr(StageModel, "logits", read)
    ids, codes = random(1500, high=24), random(3000, 4, high=32)  # 60 s
    for found in (
        finished(score_semantic(chosen, ids)),
        finished(score_coarse(chosen, ids, codes)),
        finished(score_fine(chosen, codes)),
    ):
        assert not found.nats.isnan().any()
    for stage, limit in {"semantic": 750, "coarse": 500, "fine": 150}.items():
        assert max(length for name, length in lengths if name == stage) <= limit


def test_windows_meet_and_read_half_of_their_length_again(pipeline):
    spans = overlapping_spans(pipeline.models.stages["coarse"].config, 1201, 500)
    assert spans == [(0, 0, 500), (250, 500, 750), (500, 750, 1000), (750, 1000, 1201)]


def test_ids_that_are_no_tokens_are_not_scored(pipeline):
    ids = IDS.clone()
    ids[20:] = -1
    found, alone = finished(score_semantic(pipeline, ids)), finished(score_semantic(pipeline, IDS[:20]))
    assert torch.equal(found.nats[:20], alone.nats)
    assert found.nats[20:].isnan().all()
    assert (found.rank[20:] == -1).all()
    assert finished(score_semantic(pipeline, ids[20:])).nats.isnan().all()


def test_levels_or_conditions_that_are_not_there_are_refused(pipeline):
    with pytest.raises(RequestError, match="the fine stage need 4 levels, found 3"):
        finished(score_fine(pipeline, CODES[:, :3]))
    with pytest.raises(ConfigError, match="condition"):
        finished(score_coarse(pipeline, IDS[:-1], CODES))


def test_progress_counts_steps_and_a_closed_generator_stops(pipeline, monkeypatch):
    ids, codes = random(600, high=24), random(1200, 4, high=32)
    seen = list(score_coarse(pipeline, ids, codes))
    assert [(event.stage, event.done, event.total) for event in seen] == [
        ("score", done, 1200) for done in (0, 500, 750, 1000, 1200)
    ]
    events = score_coarse(pipeline, ids, codes)
    next(events)
    monkeypatch.setattr(StageModel, "logits", lambda *_: pytest.fail("went on"))
    events.close()
    assert list(events) == []
