import pytest
import torch
from torch import nn

from audiolm.errors import ConfigError
from audiolm.nn.conv import CausalConv1d, CausalConvTranspose1d


def _stream(layer: nn.Module, x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    state, pieces = layer.init_state(x.shape[0]), []
    for chunk in x.split(sizes, dim=-1):
        y, state = layer.step(chunk, state)
        pieces.append(y)
    return torch.cat(pieces, dim=-1)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (1, {}),
        (7, {}),
        (3, {"dilation": 9}),
        (4, {"stride": 2}),
        (2, {"stride": 2}),
        (3, {"groups": 2}),
        (3, {"bias": False}),
    ],
)
def test_streaming_convolution_equals_whole_convolution(kernel, options):
    torch.manual_seed(0)
    layer, x = CausalConv1d(2, 4, kernel, **options), torch.randn(3, 2, 24)
    torch.testing.assert_close(_stream(layer, x, [2, 0, 6, 16]), layer(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(10, 5), (2, 2), (3, 2), (8, 2), (1, 1), (5, 1)])
def test_streaming_transposed_convolution_equals_whole_convolution(kernel, stride):
    torch.manual_seed(0)
    layer, x = CausalConvTranspose1d(2, 4, kernel, stride), torch.randn(3, 2, 12)
    nn.init.constant_(layer.bias, 3.0)
    whole = layer(x)
    assert whole.shape == (3, 4, 12 * stride)
    torch.testing.assert_close(_stream(layer, x, [1, 0, 2, 1, 8]), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("length", "stride"), [(12, 4), (13, 4), (1, 4), (5, 1)])
def test_output_length_is_the_ceiling_of_length_over_stride(length, stride):
    assert CausalConv1d(1, 1, 2 * stride, stride=stride)(torch.zeros(1, 1, length)).shape[-1] == -(-length // stride)


def test_outputs_do_not_depend_on_the_future():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 12)
    changed = torch.cat([x[..., :8], torch.randn(1, 2, 4)], dim=-1)
    for layer, kept in ((CausalConv1d(2, 2, 4, stride=2), 4), (CausalConvTranspose1d(2, 2, 6, 3), 24)):
        assert torch.equal(layer(x)[..., :kept], layer(changed)[..., :kept])
        assert not torch.equal(layer(x)[..., kept:], layer(changed)[..., kept:])


def test_kernel_shorter_than_stride_is_refused():
    with pytest.raises(ConfigError, match="stride 4, found 3"):
        CausalConv1d(1, 1, 3, stride=4)
    with pytest.raises(ConfigError, match="stride 4, found 3"):
        CausalConvTranspose1d(1, 1, 3, 4)
