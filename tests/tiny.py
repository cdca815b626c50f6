"""A complete checkpoint of random weights, small enough that the whole pipeline runs in well under a second."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from audiolm.checkpoints.components import MASKED, build_component
from audiolm.checkpoints.format import CheckpointInfo, write_checkpoint
from audiolm.config import (
    SAMPLES_PER_SEMANTIC,
    STAGES,
    CodecConfig,
    Config,
    DetectorCalibration,
    DetectorConfig,
    FrameBackboneConfig,
    LengthRates,
    MaskedConfig,
    QuantizerConfig,
    SemanticConfig,
    TransformerConfig,
)
from audiolm.lm.specs import default_config

CODEC = CodecConfig(
    frame=FrameBackboneConfig(width=16, expansion=2, encoder_blocks=(1, 1), decoder_blocks=(1, 1), look_ahead_frames=2),
    quantizer=QuantizerConfig(num_levels=4, codebook_size=32, dimension=8),
    num_coarse_levels=2,
)
SEMANTIC = SemanticConfig(
    num_mels=16,
    width=16,
    num_heads=2,
    feed_forward=32,
    conv_kernel_size=5,
    num_contrastive_layers=1,
    num_masked_layers=1,
    tap_layer=1,
    codebook_entries=16,
    num_clusters=24,
)
TRANSFORMER = TransformerConfig(width=16, num_layers=1, num_heads=2, feed_forward=32)
DETECTOR = DetectorConfig(
    num_mels=16,
    channels=(4, 8),
    calibration=DetectorCalibration(by_length=(LengthRates(1.0, 0.25, 0.25, 400, 400, 0.0, 400),)),
)
CARD = "---\nlicense: cc0-1.0\nlibrary_name: audiolm\n---\n\n# Tiny\n\nRandom weights: it has learnt nothing.\n"


def tiny_configs(layout: str = "depth", with_detector: bool = True, with_masked: bool = False) -> dict[str, Config]:
    """Configs by component name."""
    sizes = {
        "codebook_size": CODEC.quantizer.codebook_size,
        "num_coarse_levels": CODEC.num_coarse_levels,
        "num_fine_levels": CODEC.num_fine_levels,
        "num_clusters": SEMANTIC.num_clusters,
        "feature_dimension": CODEC.quantizer.dimension,
        "transformer": TRANSFORMER,
        "depth_width": 16,
    }
    stages = {f"stage_{stage}": default_config(stage, layout, **sizes) for stage in STAGES}
    fine = stages["stage_fine"]
    masked = MaskedConfig(fine.levels, fine.condition_levels, fine.max_steps, num_passes=3, transformer=TRANSFORMER)
    others = ({MASKED: masked} if with_masked else {}) | ({"detector": DETECTOR} if with_detector else {})
    return {"codec": CODEC, "semantic": SEMANTIC, **stages, **others}


def tiny_modules(
    seed: int = 0, layout: str = "depth", with_detector: bool = True, with_masked: bool = False
) -> dict[str, nn.Module]:
    """Freshly initialised modules by component name; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        configs = tiny_configs(layout, with_detector, with_masked)
        modules = {name: build_component(name, config.to_dict()) for name, config in configs.items()}
        _fit(modules["semantic"])
    return modules


@torch.no_grad()
def _fit(semantic: nn.Module) -> None:
    """Statistics and centroids from noise that comes and goes: without them every position is the same token."""
    loudness = torch.rand(2, 25).repeat_interleave(2 * SAMPLES_PER_SEMANTIC, dim=1)
    noise = loudness * torch.randn(2, 50 * SAMPLES_PER_SEMANTIC).cumsum(dim=1).sin()
    features = semantic.eval().features(noise).flatten(0, 1)
    semantic.mean.copy_(features.mean(dim=0))
    semantic.std.copy_(features.std(dim=0))
    features = (features - semantic.mean) / semantic.std
    semantic.centroids.copy_(features[torch.randperm(len(features))[: len(semantic.centroids)]])
    semantic.train()


def make_tiny_checkpoint(
    folder: Path,
    domain: str = "speech",
    seed: int = 0,
    with_detector: bool = True,
    layout: str = "depth",
    with_masked: bool = False,
) -> CheckpointInfo:
    """Writes a checkpoint named `tiny-<domain>` into the folder."""
    return write_checkpoint(
        folder,
        name=f"tiny-{domain}",
        domain=domain,
        summary=f"Random weights for tests ({domain}).\nIt has learnt nothing.",
        components=tiny_modules(seed, layout, with_detector, with_masked),
        card=CARD,
    )
