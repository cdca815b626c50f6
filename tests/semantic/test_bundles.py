import urllib.error

import pytest
import torch
import torchaudio

from audiolm.config import SemanticConfig
from audiolm.errors import CheckpointError, ConfigError
from audiolm.semantic import SemanticTokenizer, bundles
from audiolm.semantic.bundles import Bundle, BundleExtractor, build_extractor, pretrained_extractor


def tiny_model() -> torch.nn.Module:
    torch.manual_seed(0)
    kernels = [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2]
    return torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm", extractor_conv_layer_config=kernels, extractor_conv_bias=False,
        encoder_embed_dim=16, encoder_projection_dropout=0.0, encoder_pos_conv_kernel=8, encoder_pos_conv_groups=2,
        encoder_num_layers=3, encoder_num_heads=2, encoder_attention_dropout=0.0, encoder_ff_interm_features=24,
        encoder_ff_interm_dropout=0.0, encoder_dropout=0.0, encoder_layer_norm_first=False, encoder_layer_drop=0.0,
        aux_num_out=5,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("length", [640, 1280, 16_000, 16_639])
def test_a_bundle_gives_one_position_for_every_640_samples(length: int) -> None:
    extractor = BundleExtractor(tiny_model(), 2, standardise_input=False)
    assert extractor(torch.randn(2, length)).shape == (2, length // 640, 16)


def test_features_are_the_tapped_layer_averaged_in_pairs() -> None:
    model = tiny_model()
    waveforms = torch.randn(1, 6_400)
    layers, _ = model.extract_features(torch.nn.functional.pad(waveforms, (40, 40)))
    expected = layers[1].view(1, 10, 2, 16).mean(dim=2)
    extractor = BundleExtractor(model, 2, standardise_input=False)
    torch.testing.assert_close(extractor(waveforms), expected)
    assert len(model.encoder.transformer.layers) == 2
    assert not any(name.startswith("model.aux") for name in extractor.state_dict())


def test_standardised_input_takes_any_level() -> None:
    extractor = BundleExtractor(tiny_model(), 2, standardise_input=True)
    waveforms = torch.randn(1, 6_400)
    torch.testing.assert_close(extractor(waveforms), extractor(5.0 * waveforms), atol=1e-4, rtol=1e-3)


def test_a_tokenizer_works_with_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bundles.BUNDLES, "HUBERT_BASE", Bundle(tiny_model, 3, False))
    tokenizer = SemanticTokenizer(SemanticConfig(extractor="HUBERT_BASE", tap_layer=3, num_clusters=7)).eval()
    tokenizer.centroids.copy_(torch.randn_like(tokenizer.centroids))
    ids = tokenizer.encode(torch.randn(2, 16_000))
    assert ids.shape == (2, 25)
    assert int(ids.max()) < 7


def test_published_weights_are_cut_at_the_tapped_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    published = type("Published", (), {"get_model": staticmethod(tiny_model)})
    monkeypatch.setattr(torchaudio.pipelines, "WAVLM_BASE", published)
    extractor = pretrained_extractor("WAVLM_BASE", 2)
    assert len(extractor.model.encoder.transformer.layers) == 2


def test_a_bundle_that_cannot_be_had_is_a_checkpoint_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchaudio.pipelines, "HUBERT_BASE", type("Offline", (), {"get_model": staticmethod(offline)}))
    with pytest.raises(CheckpointError, match="HUBERT_BASE cannot be had"):
        pretrained_extractor("HUBERT_BASE", 7)


@pytest.mark.parametrize(("name", "layer"), [("HUBERT_TINY", 1), ("HUBERT_BASE", 13)])
def test_unknown_bundles_and_layers_are_refused(name: str, layer: int) -> None:
    with pytest.raises(ConfigError):
        build_extractor(name, layer)
