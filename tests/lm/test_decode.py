import pytest
import torch

from audiolm.config import SamplingConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm import generate_steps
from tests.lm.models import STAGE_LAYOUTS, generators, random_steps, stage_model

each_stage_and_layout = pytest.mark.parametrize(("stage", "layout"), STAGE_LAYOUTS)


def decode(model, prompt, condition, num_steps, seeds=(0,), stop=None, **sampling):
    steps = generate_steps(
        model,
        prompt=prompt,
        condition=condition,
        num_steps=num_steps,
        sampling=SamplingConfig(**sampling),
        generators=generators(*seeds),
        stop=stop,
    )
    return torch.stack(list(steps), dim=1)


@each_stage_and_layout
def test_only_legal_tokens_are_generated(stage, layout):
    model = stage_model(stage, layout)
    _, condition = random_steps(model, 1, 30)
    steps = decode(model, None, condition, 30, seeds=(1, 2), temperature=5.0)
    assert steps.shape == (2, 30, len(model.config.levels))
    assert bool(((steps >= 0) & (steps < torch.tensor(model.config.levels))).all())


@each_stage_and_layout
def test_rows_with_different_generators_differ_and_equal_ones_agree(stage, layout):
    model = stage_model(stage, layout)
    prompt, condition = random_steps(model, 1, 24)
    steps = decode(model, prompt[:, :4], condition, 20, seeds=(1, 2, 1), temperature=2.0)
    assert torch.equal(steps[0], steps[2])
    assert not torch.equal(steps[0], steps[1])


def test_stop_ends_the_decoding_and_sees_the_steps_so_far():
    model = stage_model("semantic", "depth")
    steps = decode(model, None, None, 50, seeds=(0, 1), stop=lambda history: history.shape[1] == 7)
    assert steps.shape == (2, 7, 2)


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    model = stage_model("coarse", "depth")
    _, condition = random_steps(model, 1, 100)
    assert torch.equal(decode(model, None, condition, 10), decode(model, None, condition, 100)[:, :10])


def test_the_caller_may_stop_iterating_and_the_model_remembers_nothing():
    model = stage_model("coarse", "depth")
    _, condition = random_steps(model, 1, 10)
    whole = decode(model, None, condition, 10)
    abandoned = generate_steps(
        model,
        prompt=None,
        condition=condition,
        num_steps=10,
        sampling=SamplingConfig(),
        generators=generators(3),
    )
    next(abandoned)
    abandoned.close()
    assert torch.equal(decode(model, None, condition, 10), whole)


def test_no_steps_are_generated_where_none_are_asked_for():
    model = stage_model("semantic", "depth")
    assert (
        list(
            generate_steps(
                model,
                prompt=None,
                condition=None,
                num_steps=0,
                sampling=SamplingConfig(),
                generators=generators(0),
            )
        )
        == []
    )


def test_rows_that_do_not_fit_are_refused_before_anything_runs():
    model = stage_model("coarse", "depth")
    prompt, condition = random_steps(model, 3, 8)
    with pytest.raises(RequestError, match="prompt must be"):
        decode(model, prompt, condition, 4, seeds=(0, 1))
    with pytest.raises(RequestError, match="condition levels"):
        decode(model, None, None, 4)
    with pytest.raises(RequestError, match="generator"):
        decode(model, None, condition, 4, seeds=())
    with pytest.raises(ConfigError, match="condition steps"):
        decode(model, None, condition[:1, :1], 8)
