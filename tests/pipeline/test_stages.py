from __future__ import annotations

import dataclasses

import pytest
import torch

from audiolm.config import SamplingConfig
from audiolm.errors import RequestError
from audiolm.lm import generate_steps
from audiolm.lm.sequences import expand_runs, merge_repeats
from audiolm.receipt import derive_seed
from audiolm.stages import StageRun, finished, run_coarse, run_fine, run_semantic
from tests.pipeline.material import random
from tests.tiny import tiny_modules

MODULES = tiny_modules(with_detector=False)
CODEBOOKS = MODULES["codec"].codebooks()
MODULES["stage_coarse"].set_codebooks(CODEBOOKS[:2], None)
MODULES["stage_fine"].set_codebooks(CODEBOOKS[2:], CODEBOOKS[:2])
with torch.random.fork_rng(devices=[]), torch.no_grad():
    torch.manual_seed(0)
    for module in MODULES.values():
        module.eval()
        for parameter in module.parameters():  # far from the nearly uniform start: what is read shows in what is chosen
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)


def stage_run(stage: str, rows: int = 2, max_steps: int | None = None, **sampling: float) -> StageRun:
    model = MODULES[f"stage_{stage}"]
    if max_steps is not None:
        model = type(model)(dataclasses.replace(model.config, max_steps=max_steps)).eval()
        model.load_state_dict(MODULES[f"stage_{stage}"].state_dict())
        if stage == "coarse":
            model.set_codebooks(CODEBOOKS[:2], None)
        if stage == "fine":
            model.set_codebooks(CODEBOOKS[2:], CODEBOOKS[:2])
    return StageRun(model, SamplingConfig(**sampling), [derive_seed(1, stage, row) for row in range(rows)])


PROMPT_IDS = expand_runs(random(12, high=24), torch.tensor([1, 3, 2, 1, 1, 4, 2, 2, 1, 3, 1, 2]))


@pytest.mark.parametrize("max_steps", [None, 8])
def test_semantic_runs_keep_the_prompt_and_reach_the_length(max_steps):
    ids = finished(run_semantic(stage_run("semantic", 3, max_steps), PROMPT_IDS, 300, seeds=[5]))
    assert ids.shape == (3, 300)
    assert torch.equal(ids[:, : len(PROMPT_IDS)], PROMPT_IDS.expand(3, -1))
    assert ids.min() >= 0
    assert ids.max() < 24


@pytest.mark.parametrize("max_steps", [None, 8])
def test_semantic_rows_do_not_depend_on_their_neighbours(max_steps):
    batch = finished(run_semantic(stage_run("semantic", 3, max_steps), PROMPT_IDS, 200, seeds=[5]))
    alone = finished(run_semantic(stage_run("semantic", 1, max_steps), PROMPT_IDS, 200, seeds=[5]))
    assert torch.equal(batch[0], alone[0])


def test_every_row_continues_a_prompt_of_its_own():
    prompts = torch.stack([PROMPT_IDS, (PROMPT_IDS + 7) % 24])
    batch = finished(run_semantic(stage_run("semantic", 2), prompts, 100, seeds=[5, 6]))
    for row, seed in enumerate((5, 6)):
        run = stage_run("semantic", 2)
        run.seeds = run.seeds[row : row + 1]
        alone = finished(run_semantic(run, prompts[row], 100, seeds=[seed]))
        assert torch.equal(batch[row : row + 1], alone)
    assert not torch.equal(batch[0, len(PROMPT_IDS) :], batch[1, len(PROMPT_IDS) :])


def test_prompts_of_unequal_numbers_of_steps_are_refused():
    prompts = torch.tensor([[1, 1, 2, 2], [1, 2, 3, 3]])
    with pytest.raises(RequestError, match="equally many semantic steps"):
        finished(run_semantic(stage_run("semantic", 2), prompts, 20, seeds=[5, 6]))


@pytest.mark.parametrize(("prompt", "limit"), [(PROMPT_IDS, 20), (PROMPT_IDS[:0], 14), (torch.full((30,), 7), 14)])
def test_a_semantic_window_counts_the_trained_positions_not_steps(prompt, limit):
    """40 positions were trained on; the first prompt has 23 positions in 12 steps."""
    read = []

    def generate(model, *, prompt, num_steps, **options):
        read.append(num_steps + (0 if prompt is None else prompt.shape[1]))
        return generate_steps(model, prompt=prompt, num_steps=num_steps, **options)

    run = stage_run("semantic", 2, max_steps=40)
    run.generate = generate
    finished(run_semantic(run, prompt, 300, seeds=[5]))
    assert max(read) == limit


def test_semantic_runs_start_from_nothing():
    assert finished(run_semantic(stage_run("semantic"), PROMPT_IDS[:0], 40, seeds=[5])).shape == (2, 40)


def test_the_last_run_of_the_prompt_is_drawn_again_and_never_shorter():
    lengths = set()
    for seed in range(40):
        ids = finished(run_semantic(stage_run("semantic", 2), PROMPT_IDS[:9], 60, [seed]))
        merged, runs = merge_repeats(ids[0])
        last = len(merge_repeats(PROMPT_IDS[:9])[0]) - 1
        assert merged[last] == PROMPT_IDS[8]
        assert runs[last] >= merge_repeats(PROMPT_IDS[:9])[1][-1]
        lengths.add(int(runs[last]))
    assert len(lengths) > 3


def test_a_prompt_of_one_long_run_is_split_and_kept():
    ids = finished(run_semantic(stage_run("semantic"), torch.full((70,), 7), 100, seeds=[1]))
    assert (ids[:, :70] == 7).all()


def test_greedy_decoding_ignores_seeds():
    runs = [
        finished(run_semantic(stage_run("semantic", 1, temperature=0.0), PROMPT_IDS, 60, [seed])) for seed in (1, 2)
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize(("num_frames", "max_steps"), [(60, None), (61, None), (90, 20), (91, 21)])
def test_coarse_runs_keep_the_prompt_and_reach_the_length(num_frames, max_steps):
    prompt = random(20, 2, high=32)
    semantic = random(2, -(-num_frames // 2), high=24)
    codes = finished(run_coarse(stage_run("coarse", 2, max_steps), semantic, prompt, num_frames))
    assert codes.shape == (2, num_frames, 2)
    assert torch.equal(codes[:, :20], prompt.expand(2, -1, -1))


def test_sliding_changes_nothing_up_to_the_trained_length():
    prompt, semantic = random(20, 2, high=32), random(2, 40, high=24)
    short = finished(run_coarse(stage_run("coarse", 2, 80), semantic, prompt, 80))
    whole = finished(run_coarse(stage_run("coarse", 2, 200), semantic, prompt, 80))
    assert torch.equal(short, whole)


def test_later_coarse_windows_follow_their_own_part_of_the_condition():
    prompt, semantic = random(4, 2, high=32), random(1, 40, high=24)
    other = semantic.clone()
    other[:, 36:] = (other[:, 36:] + 1) % 24
    run = [finished(run_coarse(stage_run("coarse", 1, 20), ids, prompt, 80)) for ids in (semantic, other)]
    assert torch.equal(run[0][:, :56], run[1][:, :56])
    assert not torch.equal(run[0][:, 64:], run[1][:, 64:])


@pytest.mark.parametrize("prompt_frames", [0, 7, 10, 13, 20])
@pytest.mark.parametrize("num_frames", [21, 30, 38])
def test_fine_runs_keep_the_prompt_and_reach_the_length(prompt_frames, num_frames):
    prompt, coarse = random(prompt_frames, 2, high=32), random(2, num_frames, 2, high=32)
    codes = finished(run_fine(stage_run("fine", 2, max_steps=10), coarse, prompt))
    assert codes.shape == (2, num_frames, 2)
    assert torch.equal(codes[:, :prompt_frames], prompt.expand(2, -1, -1))


def test_fine_windows_depend_on_their_own_coarse_codes_only():
    coarse = random(1, 30, 2, high=32)
    other = coarse.clone()
    other[:, 10:20] = (other[:, 10:20] + 1) % 32
    first, second = (finished(run_fine(stage_run("fine", 1, 10), codes, coarse[0, :0])) for codes in (coarse, other))
    assert torch.equal(first[:, :10], second[:, :10])
    assert torch.equal(first[:, 20:], second[:, 20:])
    assert not torch.equal(first[:, 10:20], second[:, 10:20])


def test_fine_rows_do_not_depend_on_their_neighbours_nor_on_the_size_of_a_batch(monkeypatch):
    prompt, coarse = random(13, 2, high=32), random(3, 45, 2, high=32)
    batch = finished(run_fine(stage_run("fine", 3, 10), coarse, prompt))
    alone = finished(run_fine(stage_run("fine", 1, 10), coarse[:1], prompt))
    monkeypatch.setattr("audiolm.stages.MAX_FINE_ROWS", 4)
    parts = finished(run_fine(stage_run("fine", 3, 10), coarse, prompt))
    assert torch.equal(batch[:1], alone)
    assert torch.equal(batch, parts)
