from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from audiolm.config import SemanticConfig
from audiolm.data.corpus import CorpusWriter, to_pcm
from audiolm.semantic import SemanticTokenizer
from audiolm.semantic.w2vbert import normalise_level

SIZES = {
    "num_mels": 20, "width": 16, "num_heads": 2, "feed_forward": 24, "conv_kernel_size": 5,
    "num_contrastive_layers": 1, "num_masked_layers": 2, "tap_layer": 2, "codebook_entries": 8, "num_clusters": 12,
}  # fmt: skip


@pytest.fixture
def config() -> SemanticConfig:
    return SemanticConfig(**SIZES)


@pytest.fixture
def tokenizer(config: SemanticConfig, sounds: Callable[[int, int], torch.Tensor]) -> SemanticTokenizer:
    """Random weights; the clusters are positions of a sound."""
    torch.manual_seed(0)
    tokenizer = SemanticTokenizer(config).eval()
    tokenizer.extractor.log_mel.fit(normalise_level(sounds(2, 64_000)))
    tokenizer.centroids.copy_(tokenizer.features(sounds(1, 64_000))[0, :96:8])
    return tokenizer


@pytest.fixture
def sounds() -> Callable[[int, int], torch.Tensor]:
    """Rows of noise whose spectrum changes every 80 ms."""

    def make(rows: int, length: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(rows + length)
        noise = torch.randn(rows, length, generator=generator) * 0.05
        tilts = (torch.rand(rows, length // 1280 + 1, generator=generator) * 1.8 - 0.9).repeat_interleave(1280, dim=1)
        noise[:, 1:] += tilts[:, 1:length] * noise[:, :-1]
        return noise

    return make


@pytest.fixture
def corpus_folder(tmp_path: Path, sounds: Callable[[int, int], torch.Tensor]) -> Path:
    folder = tmp_path / "corpus"
    with CorpusWriter(folder) as writer:
        for index in range(8):
            samples = sounds(1, 30_000 + 2_000 * index)[0].numpy().astype(np.float32)
            split = "valid" if index % 4 == 3 else "train"
            writer.add(
                to_pcm(samples),
                id=f"item{index}",
                group=f"reader{index % 3}",
                split=split,
                source="made",
                licence="CC0",
            )
    return folder
