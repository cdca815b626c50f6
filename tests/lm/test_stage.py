import math

import pytest
import torch

from audiolm.errors import ConfigError
from audiolm.lm import StageModel, default_config
from audiolm.lm.layouts import UNKNOWN
from tests.lm.models import STAGE_LAYOUTS, TRANSFORMER, random_steps, stage_config, stage_model

each_stage_and_layout = pytest.mark.parametrize(("stage", "layout"), STAGE_LAYOUTS)


@each_stage_and_layout
def test_gradient_flows_to_every_parameter(stage, layout):
    model = stage_model(stage, layout).train()
    targets, condition = random_steps(model, 2, 8)
    model.loss(targets, condition)[0].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert without == []


@each_stage_and_layout
def test_the_loss_is_the_nll_of_the_reference_logits(stage, layout):
    model = stage_model(stage, layout)
    targets, condition = random_steps(model, 2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    loss, per_level = model.loss(targets, condition, mask)
    logits = model.logits(targets, condition)
    expected = [-level.log_softmax(-1).gather(-1, targets[..., i, None])[mask].mean() for i, level in enumerate(logits)]
    assert torch.allclose(per_level, torch.stack(expected), atol=1e-4)
    assert torch.allclose(loss, per_level.sum())


@each_stage_and_layout
def test_no_step_sees_itself_or_the_future(stage, layout):
    model = stage_model(stage, layout)
    targets, condition = random_steps(model, 1, 10)
    changed = targets.clone()
    changed[:, 5] = (changed[:, 5] + 1) % torch.tensor(model.config.levels)
    before, after = model.logits(targets, condition), model.logits(changed, condition)
    for level, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.allclose(one[:, :5], other[:, :5], atol=1e-4)
        if level == 0:
            assert torch.allclose(one[:, 5], other[:, 5], atol=1e-4)
        assert not torch.allclose(one[:, 6:], other[:, 6:], atol=1e-4)


@pytest.mark.parametrize("layout", ["depth", "flattened"])
def test_every_level_sees_the_lower_levels_of_its_step(layout):
    model = stage_model("fine", layout)
    targets, condition = random_steps(model, 1, 4)
    changed = targets.clone()
    changed[:, 2, 0] = (changed[:, 2, 0] + 1) % 16
    before, after = model.logits(targets, condition), model.logits(changed, condition)
    assert torch.allclose(before[0][:, 2], after[0][:, 2], atol=1e-5)
    assert not torch.allclose(before[1][:, 2], after[1][:, 2], atol=1e-5)


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_the_condition_reaches_the_step_that_it_belongs_to(stage):
    model = stage_model(stage, "depth")
    targets, condition = random_steps(model, 1, 40)
    changed = condition.clone()
    changed[:, 15] = (changed[:, 15] + 1) % 12
    moved = (model.logits(targets, condition)[0] - model.logits(targets, changed)[0]).abs().sum(-1)[0] > 1e-6
    first = (15 - 4) * model.config.condition_stride  # the mixer looks four condition steps ahead
    assert moved[:first].any().item() is False
    assert moved[first:].all().item() is True


@pytest.mark.parametrize("layout", ["depth", "flattened"])
def test_a_repeated_pattern_is_learnt(layout):
    torch.manual_seed(0)
    model = StageModel(stage_config("coarse", layout))
    model.set_codebooks(torch.randn(2, 16, 4))
    pattern = torch.randint(16, (1, 5, 2)).repeat(4, 4, 1)
    condition = torch.zeros(4, 10, 1, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss, _ = model.loss(pattern, condition)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2 * math.log(16), rel=0.1)
    assert losses[-1] < 0.2 * losses[0]


def test_noise_on_the_inputs_leaves_the_targets_alone():
    model = stage_model("semantic", "depth")
    targets, _ = random_steps(model, 2, 6)
    noisy, _ = random_steps(model, 2, 6, seed=9)
    assert torch.equal(model.loss(targets, None, inputs=targets)[0], model.loss(targets, None)[0])
    assert not torch.allclose(model.loss(targets, None, inputs=noisy)[0], model.loss(targets, None)[0])


def test_codebooks_are_asked_for_and_must_fit():
    model = StageModel(stage_config("fine", "depth"))
    targets, condition = random_steps(model, 1, 4)
    with pytest.raises(ConfigError, match="set_codebooks"):
        model.loss(targets, condition)
    with pytest.raises(ConfigError, match=r"condition codebooks of a fine stage must be \(2, 16, 4\), found None"):
        model.set_codebooks(torch.randn(3, 16, 4), None)


def test_codebooks_are_not_among_the_weights_and_their_scale_does_not_matter():
    model = stage_model("coarse", "depth")
    assert not any("features" in name for name in model.state_dict())
    targets, condition = random_steps(model, 1, 4)
    before = model.loss(targets, condition)[0]
    model.set_codebooks(model.target_features * torch.tensor([3.0, 0.1])[:, None, None])
    assert torch.allclose(before, model.loss(targets, condition)[0], atol=1e-4)


@pytest.mark.parametrize("layout", ["depth", "flattened"])
def test_an_unknown_condition_adds_nothing(layout):
    model = stage_model("coarse", layout)
    targets, condition = random_steps(model, 1, 24)
    unknown = condition.clone()
    unknown[:, 6:] = UNKNOWN
    logits = model.logits(targets, unknown)[0]
    if layout == "depth":  # what is known still counts, up to where the mixer sees a neighbour less
        assert torch.allclose(logits[:, :4], model.logits(targets, condition)[0][:, :4], atol=1e-5)
        nothing = model.body(model._depth_inputs(model.tables(), targets, None))[:, 12:14]
        alone = torch.full_like(condition, UNKNOWN)
        assert torch.allclose(model._states(model.tables(), targets, alone)[:, 12:14], nothing, atol=1e-5)
    else:
        assert torch.allclose(logits, model.logits(targets, condition[:, :6])[0], atol=1e-5)
    assert not torch.allclose(logits[:, 16:], model.logits(targets, condition)[0][:, 16:], atol=1e-2)


def test_a_condition_that_is_too_short_is_refused():
    model = stage_model("coarse", "depth")
    targets, condition = random_steps(model, 1, 8)
    with pytest.raises(ConfigError, match="8 steps need 4 condition steps"):
        model.loss(targets, condition[:, :3])


def test_the_semantic_stage_of_the_paper_has_one_level():
    assert stage_config("semantic", "flattened").levels == (12,)
    assert stage_config("semantic", "depth").levels == (12, 32)
    assert stage_config("coarse", "depth").condition_stride == 2


def test_a_fine_stage_without_fine_levels_is_refused():
    with pytest.raises(ConfigError, match="fine levels"):
        default_config(
            "fine",
            "depth",
            codebook_size=16,
            num_coarse_levels=4,
            num_fine_levels=0,
            num_clusters=12,
            feature_dimension=4,
            transformer=TRANSFORMER,
            depth_width=8,
        )
