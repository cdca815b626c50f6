"""Fast paths of the language models against their slow twins."""

import pytest
import torch
from torch.nn import functional as F

from audiolm.config import TransformerConfig
from audiolm.nn.attention import BLOCK, blockwise_causal_attention
from audiolm.nn.steps import BodySteps
from audiolm.nn.transformer import Transformer
from tests.lm.models import STAGE_LAYOUTS, TRANSFORMER, generators, random_steps, stage_model
from tests.lm.test_decode import decode

each_stage_and_layout = pytest.mark.parametrize(("stage", "layout"), STAGE_LAYOUTS)


@each_stage_and_layout
@pytest.mark.parametrize("prompt_steps", [0, 1, 7])
def test_cached_decoding_equals_uncached(stage, layout, prompt_steps):
    model = stage_model(stage, layout)
    prompt, condition = random_steps(model, 1, prompt_steps + 12)
    prompt = prompt[:, :prompt_steps]
    steps = decode(model, prompt, condition, 12, temperature=0.0)
    whole = torch.cat([prompt, steps], dim=1)
    greedy = torch.stack([level[:, prompt_steps:].argmax(-1) for level in model.logits(whole, condition)], dim=-1)
    assert torch.equal(steps, greedy)


@each_stage_and_layout
def test_a_batched_row_is_sampled_exactly_as_alone(stage, layout):
    model = stage_model(stage, layout)
    prompt, condition = random_steps(model, 1, 20)
    batched = decode(model, prompt[:, :5], condition, 15, seeds=(4, 5, 6))
    for row, seed in enumerate((4, 5, 6)):
        assert torch.equal(batched[row], decode(model, prompt[:, :5], condition, 15, seeds=(seed,))[0])


def test_rows_of_their_own_conditions_are_decoded_as_alone():
    model = stage_model("coarse", "depth")
    prompt, condition = random_steps(model, 3, 20)
    batched = decode(model, prompt[:1, :5], condition, 15, seeds=(4, 5, 6))
    for row, seed in enumerate((4, 5, 6)):
        assert torch.equal(batched[row], decode(model, prompt[:1, :5], condition[row, None], 15, seeds=(seed,))[0])


def test_decoding_past_the_longest_crop_equals_attention_over_a_sliding_window():
    model = stage_model("fine", "depth", crop_s=0.2)
    assert model.config.max_steps == 10
    prompt, condition = random_steps(model, 1, 40)
    for prompt_steps in (3, 15):
        steps = decode(model, prompt[:, :prompt_steps], condition, 25, temperature=0.0)
        whole = torch.cat([prompt[:, :prompt_steps], steps], dim=1)
        greedy = torch.stack([level[:, prompt_steps:].argmax(-1) for level in model.logits(whole, condition)], dim=-1)
        assert torch.equal(steps, greedy)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("prefilled", [1, 5, 9])
def test_prefill_and_steps_equal_the_whole(window, prefilled):
    torch.manual_seed(0)
    body = Transformer(TRANSFORMER, window).eval()
    x = torch.randn(1, 90, TRANSFORMER.width)
    with torch.no_grad():
        whole = body(x)
        steps = BodySteps(body, packed=False)
        cache, rotary = steps.init_cache(3, 90), steps.rotary(90)
        states, known = body.prefill(x[:, :prefilled])
        for row in range(3):
            cache.fill(row, [each[:, 0] for each in known])
        states = [states]
        for n in range(prefilled, 90):
            place = steps.place(cache, rotary, torch.tensor([n] * 3), n + 1)
            states.append(steps.step(x[0, n].expand(3, -1), cache, place)[2][None, None])
    assert torch.allclose(torch.cat(states, dim=1), whole, atol=1e-5)


def test_blockwise_attention_equals_the_fused_kernel():
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 2, 2 * BLOCK + 37, 8) for _ in range(3))
    fused = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    assert torch.allclose(blockwise_causal_attention(queries, keys, values), fused, atol=1e-5)


def test_training_and_evaluation_give_the_same_loss_without_dropout():
    torch.manual_seed(0)
    config = TransformerConfig(width=16, num_layers=1, num_heads=2, feed_forward=32, dropout=0.0)
    body = Transformer(config)
    x = torch.randn(1, BLOCK + 9, 16)
    with torch.no_grad():
        fused = body(x)
    assert torch.allclose(body(x), fused, atol=1e-5)


def test_generators_advance_by_whole_blocks_only():
    model = stage_model("semantic", "depth")
    first, second = generators(1, 1)
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))
    assert torch.equal(decode(model, None, None, 5, seeds=(1,)), decode(model, None, None, 9, seeds=(1,))[:, :5])
