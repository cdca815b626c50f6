"""The semantic tokenizer: features of a self-supervised encoder at 25 Hz, normalised, then the nearest centroid.

AudioLM (arXiv 2209.03143): features of one middle layer, zero mean and unit variance per dimension, k-means (whose
centroids training may have moved: `audiolm.training.phone_clusters`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiolm.config import SAMPLES_PER_SEMANTIC, SEMANTIC_RATE_HZ, SemanticConfig
from audiolm.semantic.bundles import BundleExtractor, build_extractor
from audiolm.semantic.kmeans import assign
from audiolm.semantic.w2vbert import W2vBertEncoder, normalise_level

WINDOW_POSITIONS = 250  # 10 s: about the crops of pre-training; attention over longer inputs was never trained
CONTEXT_POSITIONS = 50  # 2 s on each side of what a window contributes


class SemanticTokenizer(nn.Module):
    """Waveform -> semantic token ids at 25 Hz; one position for every 640 samples at 16 kHz, a rest is dropped.

    Holds the extractor up to `config.tap_layer` and the buffers mean [D], std [D], centroids [K, D].
    Inputs beyond 10 s are encoded in overlapping windows, so memory grows linearly with the duration.
    """

    frame_rate_hz = SEMANTIC_RATE_HZ

    def __init__(self, config: SemanticConfig) -> None:
        """Raises ConfigError for an extractor that is neither w2vbert nor a known bundle."""
        super().__init__()
        self.config = config
        self.extractor: W2vBertEncoder | BundleExtractor
        if config.extractor == "w2vbert":
            self.extractor = W2vBertEncoder(config, config.tap_layer)
        else:
            self.extractor = build_extractor(config.extractor, config.tap_layer)
        dimension = self.extractor.dimension
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))
        self.register_buffer("centroids", torch.zeros(config.num_clusters, dimension))

    @property
    def codebook_size(self) -> int:
        return self.config.num_clusters

    @torch.no_grad()
    def features(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] at 16 kHz -> [B, S, D], S = T // 640, zero mean and unit variance over the training data."""
        num_positions = waveforms.shape[-1] // SAMPLES_PER_SEMANTIC
        if num_positions == 0:
            return self.mean.new_zeros(waveforms.shape[0], 0, self.mean.shape[0])
        levelled = normalise_level(waveforms[:, : num_positions * SAMPLES_PER_SEMANTIC].to(self.mean.dtype))
        return (self._extract(levelled, num_positions) - self.mean) / self.std

    @torch.no_grad()
    def encode(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] at 16 kHz -> ids [B, S] long in 0..K-1, S = T // 640. All rows have the same length."""
        return assign(self.features(waveforms), self.centroids)[0]

    def _extract(self, waveforms: Tensor, num_positions: int) -> Tensor:
        if num_positions <= WINDOW_POSITIONS:
            return self.extractor(waveforms)
        parts = []
        for start, first, last in windows(num_positions):
            chunk = waveforms[:, start * SAMPLES_PER_SEMANTIC : (start + WINDOW_POSITIONS) * SAMPLES_PER_SEMANTIC]
            parts.append(self.extractor(chunk)[:, first - start : last - start])
        return torch.cat(parts, dim=1)


def windows(num_positions: int) -> list[tuple[int, int, int]]:
    """(window start, first and last + 1 position it contributes): a partition of `num_positions` > 250 positions.

    Each contribution has 2 s of context on both sides, except at the ends of the recording.
    """
    chosen, first = [], 0
    while first < num_positions:
        start = min(max(0, first - CONTEXT_POSITIONS), num_positions - WINDOW_POSITIONS)
        reaches_end = start + WINDOW_POSITIONS == num_positions
        last = num_positions if reaches_end else start + WINDOW_POSITIONS - CONTEXT_POSITIONS
        chosen.append((start, first, last))
        first = last
    return chosen


def tokenizer_from_encoder(config: SemanticConfig, encoder_state: dict[str, Tensor]) -> SemanticTokenizer:
    """A tokenizer with the extractor's weights up to `config.tap_layer`; its clusters are still to be fitted.

    `encoder_state` is the state dict of an extractor of the same kind with at least that many layers.
    """
    tokenizer = SemanticTokenizer(config)
    wanted = tokenizer.extractor.state_dict()
    tokenizer.extractor.load_state_dict({name: encoder_state[name] for name in wanted})
    return tokenizer.eval()
