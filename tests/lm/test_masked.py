"""The fine stage in parallel: what is known stays, all is filled, rows are their own."""

import itertools
import math

import pytest
import torch

from audiolm.config import MaskedConfig, SamplingConfig, TransformerConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm import MaskedModel, generate_steps
from audiolm.lm.masked import fill_windows, num_masked
from tests.lm.models import generators

CONFIG = MaskedConfig(
    levels=(16,) * 3,
    condition_levels=(16,) * 2,
    max_steps=30,
    feature_dimension=4,
    learnt_dimension=4,
    depth_width=16,
    num_passes=4,
    transformer=TransformerConfig(width=32, num_layers=1, num_heads=2, feed_forward=32),
)


def masked_model():
    torch.manual_seed(0)
    model = MaskedModel(CONFIG)
    model.set_codebooks(torch.randn(3, 16, 4), torch.randn(2, 16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
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
    tables, masked = model.tables(), torch.arange(30)[None] >= 10
    frames = codes(1, 30, 3)
    other = torch.where(masked[..., None], (frames + 1) % 16, frames)
    assert torch.equal(model.states(tables, frames, condition, masked), model.states(tables, other, condition, masked))
    known_otherwise = torch.where(masked[..., None], frames, (frames + 1) % 16)
    assert not torch.equal(
        model.states(tables, frames, condition, masked), model.states(tables, known_otherwise, condition, masked)
    )


def test_a_rule_that_needs_the_other_frames_is_learnt():
    """Every frame repeats one constant of the window, which its condition does not tell."""
    torch.manual_seed(0)
    model = MaskedModel(CONFIG)
    model.set_codebooks(torch.randn(3, 16, 4), torch.randn(2, 16, 4))
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=1e-2), torch.Generator().manual_seed(0)
    for _ in range(140):
        targets = torch.randint(16, (16, 1, 3), generator=generator).expand(-1, 12, -1)
        condition = torch.zeros(16, 12, 2, dtype=torch.long)
        masked = torch.rand(16, 12, generator=generator) < 0.5
        loss, _ = model.loss(targets, condition, masked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.85 * 3 * math.log(16)


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
    with pytest.raises(ConfigError, match="set_codebooks"):
        MaskedModel(CONFIG).tables()
    with pytest.raises(ConfigError, match="codebooks must be"):
        model.set_codebooks(torch.randn(3, 16, 5), torch.randn(2, 16, 4))
