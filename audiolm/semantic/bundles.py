"""Published self-supervised encoders from torchaudio (HuBERT, arXiv 2106.07447; WavLM, 2110.13900) as extractors.

Same interface as `W2vBertEncoder`: waveforms [B, T] -> features [B, T // 640, D]. Their 50 Hz frames are averaged in
pairs to 25 Hz. `build_extractor` makes the architecture alone (weights then come from a checkpoint of ours);
`pretrained_extractor` fetches the published weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import SAMPLES_PER_SEMANTIC
from audiolm.errors import CheckpointError, ConfigError

# The convolutions see 400 samples every 320: 40 more at each end give exactly two frames for every 640 samples.
EDGE_SAMPLES = 40
FRAMES_PER_POSITION = 2


@dataclass(frozen=True)
class Bundle:
    """How to build a published encoder: its torchaudio factory, layers, and whether its input is standardised."""

    factory: Callable[[], nn.Module]
    num_layers: int
    standardise_input: bool


BUNDLES = {
    "HUBERT_BASE": Bundle(torchaudio.models.hubert_base, 12, False),
    "HUBERT_LARGE": Bundle(torchaudio.models.hubert_large, 24, True),
    "HUBERT_XLARGE": Bundle(torchaudio.models.hubert_xlarge, 48, True),
    "WAVLM_BASE": Bundle(torchaudio.models.wavlm_base, 12, False),
    "WAVLM_BASE_PLUS": Bundle(torchaudio.models.wavlm_base, 12, False),
    "WAVLM_LARGE": Bundle(torchaudio.models.wavlm_large, 24, True),
}


class BundleExtractor(nn.Module):
    """A torchaudio `Wav2Vec2Model` cut after `tap_layer` Transformer layers; `dimension` is its feature width."""

    def __init__(self, model: nn.Module, tap_layer: int, standardise_input: bool) -> None:
        """Raises ConfigError when the model has fewer than `tap_layer` layers."""
        super().__init__()
        layers = model.encoder.transformer.layers
        if not 1 <= tap_layer <= len(layers):
            raise ConfigError(f"tap_layer must be 1..{len(layers)} for this encoder, found {tap_layer}")
        model.encoder.transformer.layers = layers[:tap_layer]
        model.aux = None
        self.model, self.tap_layer, self.standardise_input = model, tap_layer, standardise_input
        self.dimension: int = model.encoder.feature_projection.projection.out_features

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, T] at 16 kHz -> [B, S, D], S = T // 640."""
        num_positions = waveforms.shape[-1] // SAMPLES_PER_SEMANTIC
        waveforms = waveforms[:, : num_positions * SAMPLES_PER_SEMANTIC]
        if self.standardise_input:
            waveforms = F.layer_norm(waveforms, waveforms.shape[-1:])
        padded = F.pad(waveforms, (EDGE_SAMPLES, EDGE_SAMPLES))
        layers, _ = self.model.extract_features(padded, num_layers=self.tap_layer)
        return layers[-1].unflatten(1, (num_positions, FRAMES_PER_POSITION)).mean(dim=2)


def build_extractor(name: str, tap_layer: int) -> BundleExtractor:
    """The architecture with random weights; touches no network. Raises ConfigError for an unknown name or layer."""
    bundle = _bundle(name, tap_layer)
    return BundleExtractor(bundle.factory(), tap_layer, bundle.standardise_input)


def pretrained_extractor(name: str, tap_layer: int) -> BundleExtractor:
    """The published weights, downloaded once into torch's cache.

    Raises: ConfigError for an unknown name or layer; CheckpointError when the weights cannot be had or do not fit.
    """
    bundle = _bundle(name, tap_layer)
    try:
        published = getattr(torchaudio.pipelines, name).get_model()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"the weights of {name} cannot be had: {error}") from error
    # torchaudio wraps the encoders that standardise their input; the extractor does that itself.
    model = published if hasattr(published, "encoder") else published.model
    return BundleExtractor(model, tap_layer, bundle.standardise_input).eval()


def _bundle(name: str, tap_layer: int) -> Bundle:
    if name not in BUNDLES:
        raise ConfigError(f"extractor must be w2vbert or one of {', '.join(BUNDLES)}, found {name!r}")
    bundle = BUNDLES[name]
    if not 1 <= tap_layer <= bundle.num_layers:
        raise ConfigError(f"tap_layer must be 1..{bundle.num_layers} for {name}, found {tap_layer}")
    return bundle
