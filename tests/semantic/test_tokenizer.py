from collections.abc import Callable

import pytest
import torch

from audiolm.config import SemanticConfig
from audiolm.semantic import SemanticTokenizer
from audiolm.semantic.tokenizer import CONTEXT_POSITIONS, WINDOW_POSITIONS, tokenizer_from_encoder, windows
from audiolm.semantic.w2vbert import W2vBert

Sounds = Callable[[int, int], torch.Tensor]


@pytest.mark.parametrize("length", [0, 639, 640, 48_000, 48_639])
def test_one_position_for_every_640_samples(tokenizer: SemanticTokenizer, sounds: Sounds, length: int) -> None:
    ids = tokenizer.encode(sounds(2, length))
    assert ids.shape == (2, length // 640)
    assert ids.dtype == torch.long
    assert tokenizer.features(sounds(2, length)).shape == (2, length // 640, 16)


def test_a_row_gets_the_same_tokens_in_a_batch_and_alone(tokenizer: SemanticTokenizer, sounds: Sounds) -> None:
    waveforms = sounds(4, 32_000)
    together = tokenizer.encode(waveforms)
    alone = torch.cat([tokenizer.encode(row[None]) for row in waveforms])
    assert torch.equal(together, alone)
    assert torch.equal(together, tokenizer.encode(waveforms))
    assert len(together.unique()) > 2


def test_the_rest_of_an_incomplete_position_changes_nothing(tokenizer: SemanticTokenizer, sounds: Sounds) -> None:
    waveform = sounds(1, 32_500)
    assert torch.equal(tokenizer.encode(waveform), tokenizer.encode(waveform[:, :32_000]))


def test_tokens_do_not_follow_the_recording_level(tokenizer: SemanticTokenizer, sounds: Sounds) -> None:
    waveform = sounds(1, 32_000)
    assert torch.equal(tokenizer.encode(waveform), tokenizer.encode(0.25 * waveform))


@pytest.mark.parametrize("num_positions", [251, 300, 349, 350, 351, 500, 1000, 15_000])
def test_windows_partition_long_inputs_with_context_on_both_sides(num_positions: int) -> None:
    expected = 0
    for start, first, last in windows(num_positions):
        assert first == expected < last
        assert start >= 0
        assert start + WINDOW_POSITIONS <= num_positions
        assert start == 0 or first - start >= CONTEXT_POSITIONS
        assert last == num_positions or start + WINDOW_POSITIONS - last == CONTEXT_POSITIONS
        expected = last
    assert expected == num_positions


def test_long_inputs_agree_with_their_windows(tokenizer: SemanticTokenizer, sounds: Sounds) -> None:
    waveform = sounds(1, 400 * 640)
    ids = tokenizer.encode(waveform)
    assert ids.shape == (1, 400)
    start, first, last = windows(400)[1]
    levelled = waveform * (0.05 / waveform.square().mean().sqrt())
    chunk = levelled[:, start * 640 : (start + WINDOW_POSITIONS) * 640]
    features = tokenizer.extractor(chunk)[:, first - start : last - start]
    torch.testing.assert_close(tokenizer.features(waveform)[:, first:last], features, atol=1e-4, rtol=1e-4)


def test_the_tokenizer_holds_nothing_beyond_the_tapped_layer(config: SemanticConfig) -> None:
    torch.manual_seed(0)
    model = W2vBert(config)
    tokenizer = tokenizer_from_encoder(config, model.encoder.state_dict())
    names = tokenizer.state_dict().keys()
    assert {"mean", "std", "centroids"} < names
    assert not any("layers.2" in name or "head" in name or "quantizer" in name for name in names)
    tapped = model.encoder.layers[1].norm.weight
    assert torch.equal(tokenizer.extractor.layers[1].norm.weight, tapped)


def test_a_state_dict_makes_an_identical_tokenizer(tokenizer: SemanticTokenizer, sounds: Sounds) -> None:
    other = SemanticTokenizer(SemanticConfig.from_dict(tokenizer.config.to_dict())).eval()
    other.load_state_dict(tokenizer.state_dict())
    assert torch.equal(other.encode(sounds(1, 32_000)), tokenizer.encode(sounds(1, 32_000)))


def test_rates_and_sizes_are_told(tokenizer: SemanticTokenizer) -> None:
    assert tokenizer.frame_rate_hz == 25
    assert tokenizer.codebook_size == tokenizer.config.num_clusters == 12
