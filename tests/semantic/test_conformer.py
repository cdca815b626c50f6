import torch
from torch.nn import functional as F

from audiolm.nn.attention import rotary_angles, rotate
from audiolm.nn.conformer import ConformerLayer, SelfAttention


def test_rotary_products_depend_on_relative_position_only() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    cosines, sines = rotary_angles(torch.arange(12), 8)
    queries, keys = rotate(query.expand(12, 8), cosines, sines), rotate(key.expand(12, 8), cosines, sines)
    products = queries @ keys.T
    torch.testing.assert_close(products[3, 1], products[10, 8])
    assert not torch.isclose(products[3, 1], products[1, 3])


def test_plain_bf16_attention_agrees_with_the_fused_kernel() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16, 2, 0.0).eval()
    x = torch.randn(2, 9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        fast = attention(x)
    torch.testing.assert_close(fast.float(), attention(x), atol=3e-2, rtol=3e-2)


def test_every_position_of_a_conformer_layer_sees_the_whole_input() -> None:
    torch.manual_seed(0)
    layer = ConformerLayer(16, 2, 24, 5).eval()
    x = torch.randn(1, 30, 16)
    changed = x.clone()
    changed[0, 29] = torch.randn(16)
    assert (layer(x) - layer(changed)).abs().amax(dim=-1).min() > 1e-6


def test_a_layer_with_zero_branches_only_normalises() -> None:
    torch.manual_seed(0)
    layer = ConformerLayer(16, 2, 24, 5).eval()
    x = torch.randn(2, 9, 16)
    assert not torch.allclose(layer(x), layer.norm(x))
    layer.zero_residual_branches()
    assert torch.equal(layer(x), layer.norm(x))


def test_a_row_of_a_batch_gives_what_it_gives_alone() -> None:
    torch.manual_seed(0)
    layer = ConformerLayer(16, 2, 24, 5).train()
    x = torch.randn(3, 11, 16)
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]))
    assert F.mse_loss(layer(x), x) > 0
