"""Tiny stage models of every stage and layout, with weights large enough that their choices differ."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.config import StageConfig, TransformerConfig
from audiolm.lm import StageModel, default_config
from audiolm.nn.packing import pack_rows, unpack_rows

STAGE_LAYOUTS = [(stage, layout) for stage in ("semantic", "coarse", "fine") for layout in ("depth", "flattened")]
TRANSFORMER = TransformerConfig(width=32, num_layers=2, num_heads=2, feed_forward=64, dropout=0.1)


def stage_config(stage: str, layout: str, crop_s: float | None = None) -> StageConfig:
    return default_config(
        stage,
        layout,
        codebook_size=16,
        num_coarse_levels=2,
        num_fine_levels=3,
        num_clusters=12,
        feature_dimension=4,
        transformer=TRANSFORMER,
        depth_width=24,
        crop_s=crop_s,
    )


def stage_model(stage: str, layout: str, crop_s: float | None = None) -> StageModel:
    torch.manual_seed(0)
    model = StageModel(stage_config(stage, layout, crop_s))
    model.set_codebooks(torch.randn(len(model.config.levels), 16, 4), torch.randn(2, 16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.eval()


def wide_model(
    stage: str, crop_s: float | None = None, width: int = 64, num_heads: int = 2, feed_forward: int = 96
) -> StageModel:
    """A depth model whose matrices can be int8: all sizes are multiples of 32, and are what a checkpoint stores."""
    torch.manual_seed(0)
    sizes = {"codebook_size": 32, "num_coarse_levels": 2, "num_fine_levels": 3, "num_clusters": 64}
    transformer = TransformerConfig(width=width, num_layers=2, num_heads=num_heads, feed_forward=feed_forward)
    config = default_config(
        stage, "depth", **sizes, feature_dimension=4, depth_width=32, crop_s=crop_s, transformer=transformer
    )
    model = StageModel(config)
    model.set_codebooks(torch.randn(len(config.levels), 32, 4), torch.randn(2, 32, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(unpack_rows(*pack_rows(module.weight)))
    return model.eval()


def random_steps(model: StageModel, batch: int, steps: int, seed: int = 1) -> tuple[Tensor, Tensor | None]:
    """targets [B, N, L] and a condition [B, C, Lc] long enough for them."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    targets = _ids(config.levels, batch, steps, generator)
    if not config.condition_levels:
        return targets, None
    return targets, _ids(config.condition_levels, batch, -(-steps // config.condition_stride), generator)


def _ids(levels: tuple[int, ...], batch: int, steps: int, generator: torch.Generator) -> Tensor:
    return torch.stack([torch.randint(size, (batch, steps), generator=generator) for size in levels], dim=-1)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]
