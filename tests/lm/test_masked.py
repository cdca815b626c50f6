"""The fine stage in parallel: what is known stays, all is filled, rows are their own."""

import itertools

import pytest
import torch

from audiolm.config import MaskedConfig, SamplingConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm import MaskedModel, generate_steps
from audiolm.lm.masked import fill_windows, num_masked
from tests.lm.models import generators, stage_model

FINE = stage_model("fine", "depth", crop_s=0.6)
CONFIG = MaskedConfig(
    levels=FINE.config.levels,
    condition_levels=FINE.config.condition_levels,
    max_steps=FINE.config.max_steps,
    num_passes=4,
    transformer=FINE.config.transformer,
)


def masked_model():
    torch.manual_seed(0)
    model = MaskedModel(CONFIG)
    model.attach(FINE)
    return model.eval()


def codes(rows, frames, levels, seed=1):
    return torch.randint(16, (rows, frames, levels), generator=torch.Generator().manual_seed(seed))


def fill(model, condition, seeds, prompt=None, num_passes=None):
    options = {"sampling": SamplingConfig(), "generators": generators(*seeds), "num_passes": num_passes}
    return list(fill_windows(model, prompt=prompt, condition=condition, **options))


def test_every_pass_keeps_what_is_known_and_the_last_leaves_nothing_masked():
    prompt = codes(2, 7, 3)
    passes = fill(masked_model(), codes(2, 30, 2), (1, 2), prompt)
    for number, frames in enumerate(passes, 1):
        assert torch.equal(frames[:, :7], prompt)
        assert ((frames[..., 0] < 0).sum(dim=1) == num_masked(23, number, 4)).all()
    for earlier, later in itertools.pairwise(passes):
        assert torch.equal(later[earlier >= 0], earlier[earlier >= 0])
    assert bool(((passes[-1] >= 0) & (passes[-1] < 16)).all())


@pytest.mark.parametrize("prompt_frames", [0, 9])
def test_a_window_is_filled_the_same_alone_and_among_others(prompt_frames):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, condition, prompt = masked_model(), codes(5, 30, 2), codes(5, prompt_frames, 3, seed=2)
    together = fill(model, condition, range(5), prompt)[-1]
    for row in range(5):
        alone = fill(model, condition[row, None], (row,), prompt[row, None])[-1]
        assert torch.equal(together[row], alone[0])
    torch.set_num_threads(threads)


def test_it_stands_in_for_the_autoregressive_stage():
    model, condition, prompt = masked_model(), codes(1, 30, 2), codes(1, 5, 3)
    options = {"num_steps": 20, "sampling": SamplingConfig(), "generators": generators(4)}
    steps = list(generate_steps(model, prompt=prompt, condition=condition, **options))
    assert torch.equal(torch.stack(steps, dim=1), fill(model, condition, (4,), prompt)[-1][:, 5:25])


def test_the_first_pass_predicts_from_the_condition_and_what_is_known_alone():
    model, condition = masked_model(), codes(1, 30, 2)
    tables, masked = FINE.tables(), torch.arange(30)[None] >= 10
    frames = codes(1, 30, 3)
    other = torch.where(masked[..., None], (frames + 1) % 16, frames)
    assert torch.equal(model.states(tables, frames, condition, masked), model.states(tables, other, condition, masked))
    known_otherwise = torch.where(masked[..., None], frames, (frames + 1) % 16)
    assert not torch.equal(
        model.states(tables, frames, condition, masked), model.states(tables, known_otherwise, condition, masked)
    )


def test_a_masked_frame_sees_known_ones_on_both_sides():
    model, condition, tables = masked_model(), codes(1, 30, 2), FINE.tables()
    masked, frames = torch.arange(30)[None] == 15, codes(1, 30, 3)
    before, after = frames.clone(), frames.clone()
    before[0, 3] = (frames[0, 3] + 1) % 16
    after[0, 25] = (frames[0, 25] + 1) % 16
    state = model.states(tables, frames, condition, masked)[0, 15]
    for other in (before, after):
        assert not torch.allclose(model.states(tables, other, condition, masked)[0, 15], state)


def test_training_leaves_the_fine_stage_that_lends_its_head_alone():
    model = masked_model().train()
    fine = model.fine.requires_grad_(False)
    frames, masked = codes(2, 30, 3), torch.arange(30).expand(2, -1) >= 5
    loss, per_level = model.loss(fine.tables(), frames, codes(2, 30, 2), masked)
    loss.backward()
    assert len(per_level) == 3
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in fine.parameters())
    assert not any(name.startswith("fine") for name in model.state_dict())


def test_the_schedule_ends_with_nothing_and_never_grows():
    counts = [num_masked(150, done, 8) for done in range(9)]
    assert counts[0] == 150
    assert counts[-1] == 0
    assert counts == sorted(counts, reverse=True)


def test_windows_that_do_not_fit_are_refused():
    model = masked_model()
    with pytest.raises(RequestError, match="at most 30 frames"):
        fill(model, codes(1, 31, 2), (1,))
    with pytest.raises(RequestError, match="generator"):
        fill(model, codes(2, 10, 2), (1,))
    with pytest.raises(ConfigError, match="call attach"):
        fill(MaskedModel(CONFIG).eval(), codes(1, 30, 2), (1,))
    with pytest.raises(ConfigError, match="needs the tables"):
        model.attach(stage_model("fine", "flattened"))
