from collections.abc import Callable

import pytest
import torch

from audiolm.config import SemanticConfig
from audiolm.errors import ConfigError
from audiolm.semantic.w2vbert import LogMel, Views, W2vBert, normalise_level, span_mask, warp_bands

Sounds = Callable[[int, int], torch.Tensor]


@pytest.mark.parametrize("length", [640, 1279, 1280, 16_000])
def test_log_mel_has_four_frames_for_every_640_samples(length: int) -> None:
    assert LogMel(20, 512)(torch.randn(2, length)).shape == (2, 20, 4 * (length // 640))


def test_fitted_log_mels_are_standardised(sounds: Sounds) -> None:
    log_mel = LogMel(20, 512)
    waveforms = normalise_level(sounds(4, 32_000))
    log_mel.fit(waveforms)
    frames = log_mel(waveforms).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(20), atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.std(dim=0), torch.ones(20), atol=1e-2, rtol=0)


def test_level_normalisation_ignores_gain_and_padding(sounds: Sounds) -> None:
    sound = sounds(1, 8_000)
    padded = torch.cat([0.2 * sound, torch.zeros(1, 8_000)], dim=1)
    torch.testing.assert_close(normalise_level(padded)[:, :8_000], normalise_level(sound))
    assert torch.equal(normalise_level(torch.zeros(1, 640)), torch.zeros(1, 640))


def test_warping_by_one_changes_nothing_and_moves_peaks_otherwise() -> None:
    log_mels = torch.zeros(2, 40, 3)
    log_mels[:, 20] = 1.0
    warped = warp_bands(log_mels, torch.tensor([1.0, 1.1]))
    torch.testing.assert_close(warped[0], log_mels[0], atol=1e-4, rtol=0)
    assert int(warped[1, :, 0].argmax()) > 20


def test_masks_are_spans_and_no_row_is_without_one() -> None:
    mask = span_mask(64, 50, torch.Generator().manual_seed(0), share=0.01, span=5)
    assert mask.any(dim=1).all()
    assert 0.35 < span_mask(64, 200, torch.Generator().manual_seed(0)).float().mean() < 0.55
    assert torch.equal(mask, span_mask(64, 50, torch.Generator().manual_seed(0), share=0.01, span=5))


def test_the_context_does_not_see_what_is_masked(config: SemanticConfig, sounds: Sounds) -> None:
    torch.manual_seed(0)
    model = W2vBert(config).eval()
    clean = normalise_level(sounds(2, 32_000))
    valid = torch.ones(2, 50, dtype=torch.bool)
    everything = torch.ones(2, 50, dtype=torch.bool)
    first = model(Views(clean, clean), everything, valid)
    second = model(Views(clean, torch.randn_like(clean)), everything, valid)
    torch.testing.assert_close(first.masked_loss, second.masked_loss)
    torch.testing.assert_close(first.contrastive_loss, second.contrastive_loss)


def test_targets_come_from_the_clean_view(config: SemanticConfig, sounds: Sounds) -> None:
    torch.manual_seed(0)
    model = W2vBert(config).eval()
    clean = normalise_level(sounds(2, 32_000))
    valid = torch.ones(2, 50, dtype=torch.bool)
    mask = span_mask(2, 50, torch.Generator().manual_seed(0))
    first = model(Views(clean, clean), mask, valid)
    second = model(Views(clean, torch.randn_like(clean), torch.tensor([0.9, 1.1])), mask, valid)
    assert torch.equal(first.codes, second.codes)


def test_the_data_driven_start_spreads_the_codes(config: SemanticConfig, sounds: Sounds) -> None:
    torch.manual_seed(0)
    model = W2vBert(config).eval()
    clean = normalise_level(sounds(6, 32_000))
    valid = torch.ones(6, 50, dtype=torch.bool)
    model.fit(clean, valid, 8, torch.Generator().manual_seed(0))
    output = model(Views(clean, clean), span_mask(6, 50, torch.Generator().manual_seed(0)), valid)
    assert output.code_perplexity > 0.6 * config.codebook_entries


def test_codes_of_padding_do_not_count(config: SemanticConfig, sounds: Sounds) -> None:
    torch.manual_seed(0)
    model = W2vBert(config).eval()
    clean = normalise_level(sounds(2, 32_000))
    mask = torch.ones(2, 50, dtype=torch.bool)
    valid = mask.clone()
    valid[:, 25:] = False
    output = model(Views(clean, clean), mask, valid)
    assert torch.isfinite(output.contrastive_loss)
    assert float(output.code_perplexity) <= config.codebook_entries


def test_an_odd_head_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="even"):
        SemanticConfig(width=12, num_heads=4)
