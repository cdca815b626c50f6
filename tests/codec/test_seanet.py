import pytest
import torch

from audiolm.config import SeanetConfig
from audiolm.nn.seanet import SeanetDecoder, SeanetEncoder

TINY = SeanetConfig(base_channels=2)
HOP, DIMENSION = 320, 6


@pytest.fixture
def encoder() -> SeanetEncoder:
    torch.manual_seed(0)
    return SeanetEncoder(TINY, DIMENSION).eval()


@pytest.fixture
def decoder() -> SeanetDecoder:
    torch.manual_seed(0)
    return SeanetDecoder(TINY, DIMENSION).eval()


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (320, 1), (321, 2), (1600, 5)])
def test_encoder_gives_a_frame_for_every_started_320_samples(encoder, samples, frames):
    assert encoder(torch.randn(2, samples)).shape == (2, DIMENSION, frames)


def test_encoder_pads_the_end_with_silence(encoder):
    waveforms = torch.randn(1, 1000)
    padded = torch.cat([waveforms, torch.zeros(1, 280)], dim=-1)
    torch.testing.assert_close(encoder(waveforms), encoder(padded))


def test_decoder_gives_320_samples_a_frame(decoder):
    assert decoder(torch.randn(2, DIMENSION, 5)).shape == (2, 5 * HOP)


def test_channels_double_at_every_stride():
    encoder, decoder = SeanetEncoder(TINY, DIMENSION), SeanetDecoder(TINY, DIMENSION)
    assert encoder.layers[-1].in_channels == decoder.layers[0].out_channels == 2 * 2**4


@pytest.mark.parametrize("sizes", [[1] * 9, [4, 5], [2, 0, 3, 1, 3]])
def test_streaming_decode_equals_whole_decode(decoder, sizes):
    latents = 3.0 * torch.randn(2, DIMENSION, 9)
    state, pieces = decoder.init_state(2), []
    with torch.no_grad():
        for chunk in latents.split(sizes, dim=-1):
            waveforms, state = decoder.step(chunk, state)
            assert waveforms.shape == (2, chunk.shape[-1] * HOP)
            pieces.append(waveforms)
        tail = decoder.flush(state)
        torch.testing.assert_close(torch.cat([*pieces, tail], dim=-1), decoder(latents), atol=1e-5, rtol=0)
    assert tail.shape == (2, 0)


def test_step_leaves_its_state_argument_unchanged(decoder):
    state = decoder.init_state(1)
    decoder.step(torch.randn(1, DIMENSION, 2), state)
    assert all(not tensor.any() for tensor in state)


def test_future_latents_do_not_change_past_samples(decoder):
    latents = torch.randn(1, DIMENSION, 6)
    changed = torch.cat([latents[..., :4], torch.randn(1, DIMENSION, 2)], dim=-1)
    before, after = decoder(latents), decoder(changed)
    assert torch.equal(before[:, : 4 * HOP], after[:, : 4 * HOP])
    assert not torch.equal(before[:, 4 * HOP :], after[:, 4 * HOP :])


def test_future_samples_do_not_change_past_latents(encoder):
    waveforms = torch.randn(1, 6 * HOP)
    changed = torch.cat([waveforms[:, : 4 * HOP], torch.randn(1, 2 * HOP)], dim=-1)
    before, after = encoder(waveforms), encoder(changed)
    assert torch.equal(before[..., :4], after[..., :4])
    assert not torch.equal(before[..., 4:], after[..., 4:])


def test_gradients_reach_every_parameter(encoder, decoder):
    decoder(encoder(torch.randn(1, 10 * HOP))).square().mean().backward()
    for module in (encoder, decoder):
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())
