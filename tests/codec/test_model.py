import pytest
import torch

from audiolm.codec import Codec
from audiolm.codec.losses import MagnitudeLosses, SpectralLosses
from audiolm.config import CodecConfig, FrameBackboneConfig, QuantizerConfig, SeanetConfig


def tiny_codec(backbone: str, phase: str = "predicted") -> Codec:
    torch.manual_seed(0)
    config = CodecConfig(
        backbone=backbone,
        frame=FrameBackboneConfig(width=16, encoder_blocks=(1, 1), decoder_blocks=(2, 1), phase=phase),
        seanet=SeanetConfig(base_channels=2),
        quantizer=QuantizerConfig(num_levels=3, codebook_size=16, dimension=8),
        num_coarse_levels=2,
    )
    return Codec(config).eval()


@pytest.fixture(params=[("frame", "predicted"), ("frame", "reconstructed"), ("seanet", "predicted")], ids="-".join)
def codec(request) -> Codec:
    return tiny_codec(*request.param)


@pytest.mark.parametrize(("num_samples", "num_frames"), [(1, 1), (320, 1), (321, 2), (16_000, 50)])
def test_number_of_frames_is_the_stated_formula(codec, num_samples, num_frames):
    codes = codec.encode(torch.randn(2, num_samples) * 0.1)
    assert codes.shape == (2, num_frames, 3)
    assert codec.decode(codes).shape == (2, num_frames * 320)


def test_decoding_uses_any_number_of_levels(codec):
    codes = codec.encode(torch.randn(1, 3200) * 0.1)
    decoded = [codec.decode(codes[..., :q]) for q in (1, 2, 3)]
    assert not torch.equal(decoded[0], decoded[2])
    with pytest.raises(ValueError, match=r"1\.\.3"):
        codec.decode(codes[..., :0])


def test_encoding_a_batch_equals_encoding_each_alone(codec):
    waveforms = torch.randn(3, 6400) * 0.1
    together = codec.encode(waveforms)
    alone = torch.cat([codec.encode(row[None]) for row in waveforms])
    assert (together == alone).float().mean() > 0.99


@pytest.mark.parametrize("chunks", [(1,) * 12, (5, 7), (12,), (2, 9, 1), (30, 1, 40)])  # the last: blocks of phases
def test_streaming_decode_equals_whole_decode(codec, chunks):
    codes = torch.randint(0, 16, (2, sum(chunks), 3))
    state, pieces, start = codec.init_decode_state(2), [], 0
    for chunk in chunks:
        piece, state = codec.decode_step(codes[:, start : start + chunk], state)
        pieces.append(piece)
        start += chunk
    streamed = torch.cat([*pieces, codec.decode_flush(state)], dim=-1)
    assert torch.allclose(streamed, codec.decode(codes), atol=1e-6)


def test_two_streams_of_one_codec_do_not_disturb_each_other(codec):
    first, second = torch.randint(0, 16, (2, 1, 12, 3))
    state_a, state_b = codec.init_decode_state(1), codec.init_decode_state(1)
    pieces = []
    for start in range(0, 12, 3):
        piece, state_a = codec.decode_step(first[:, start : start + 3], state_a)
        _, state_b = codec.decode_step(second[:, start : start + 3], state_b)
        pieces.append(piece)
    streamed = torch.cat([*pieces, codec.decode_flush(state_a)], dim=-1)
    assert torch.allclose(streamed, codec.decode(first), atol=1e-6)


def test_training_pass_reaches_every_trainable_parameter(codec):
    codec.train()
    waveforms = torch.randn(2, 3200) * 0.1
    output = codec(waveforms, levels=torch.tensor([3, 1]))
    if codec.is_phase_free:
        losses = MagnitudeLosses(640)(output.reconstruction, codec.encoder.spectra(waveforms))
    else:
        losses = SpectralLosses()(output.reconstruction, waveforms)
    (sum(losses.values()) + output.commitment_loss).backward()
    missing = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


def test_spectral_losses_vanish_only_for_equal_waveforms():
    waveforms = torch.randn(1, 8000) * 0.1
    losses = SpectralLosses()
    assert all(float(value) == 0.0 for value in losses(waveforms, waveforms).values())
    assert all(float(value) > 0.0 for value in losses(waveforms * 0.5, waveforms).values())
