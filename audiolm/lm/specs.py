"""What each of the three stages predicts, from what, at which rate (AudioLM, arXiv 2209.03143)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC, SEMANTIC_RATE_HZ, StageConfig, TransformerConfig
from audiolm.errors import ConfigError
from audiolm.lm.sequences import merge_repeats, split_runs

MAX_RUN = 32


@dataclass(frozen=True)
class StageSpec:
    """One stage: `rate_hz` of its steps, the paper's crop, and how many steps share one condition step."""

    stage: str
    rate_hz: int
    crop_s: float
    condition_stride: int = 1

    def targets(self, semantic: Tensor, codes: Tensor, num_coarse_levels: int, num_levels: int = 2) -> Tensor:
        """semantic [S], codes [F, Q] -> [N, L], what the stage predicts.

        The semantic stage merges repeats: steps (id, run length - 1), runs over 32 split, so that durations survive
        (the paper drops them; `num_levels=1` does that). Coarse: the first levels of `codes`; fine: the others.
        """
        if self.stage == "semantic":
            return semantic_steps(semantic)[:, :num_levels]
        return codes[:, :num_coarse_levels] if self.stage == "coarse" else codes[:, num_coarse_levels:]

    def condition(self, semantic: Tensor, codes: Tensor, num_coarse_levels: int) -> Tensor | None:
        """-> [C, Lc], what the stage knows: coarse: semantic ids; fine: coarse codes; semantic: None."""
        if self.stage == "semantic":
            return None
        return semantic[:, None] if self.stage == "coarse" else codes[:, :num_coarse_levels]


SPECS = {
    "semantic": StageSpec("semantic", SEMANTIC_RATE_HZ, 30.0),
    "coarse": StageSpec("coarse", FRAME_RATE_HZ, 10.0, FRAMES_PER_SEMANTIC),
    "fine": StageSpec("fine", FRAME_RATE_HZ, 3.0),
}


def semantic_steps(ids: Tensor) -> Tensor:
    """Semantic ids [S] -> steps [R, 2]: (id, run length - 1), runs at most 32 long."""
    merged, runs = split_runs(*merge_repeats(ids), MAX_RUN)
    return torch.stack([merged, runs - 1], dim=1)


def default_config(
    stage: str,
    layout: str,
    *,
    codebook_size: int,
    num_coarse_levels: int,
    num_fine_levels: int,
    num_clusters: int,
    feature_dimension: int,
    transformer: TransformerConfig,
    depth_width: int,
    crop_s: float | None = None,
) -> StageConfig:
    """The StageConfig of a stage beside a codec and a semantic tokenizer.

    `feature_dimension` is that of the codec's codebook vectors; the semantic stage uses none. Raises ConfigError for an
    unknown stage or a fine stage without fine levels.
    """
    if stage not in SPECS:
        raise ConfigError(f"stage must be one of {tuple(SPECS)}, found {stage!r}")
    if stage == "fine" and num_fine_levels < 1:
        raise ConfigError("a fine stage needs fine levels, the codec has none")
    spec = SPECS[stage]
    coarse = (codebook_size,) * num_coarse_levels
    levels, condition = {
        "semantic": ((num_clusters, MAX_RUN) if layout == "depth" else (num_clusters,), ()),
        "coarse": (coarse, (num_clusters,)),
        "fine": ((codebook_size,) * num_fine_levels, coarse),
    }[stage]
    return StageConfig(
        stage=stage,
        layout=layout,
        levels=levels,
        condition_levels=condition,
        condition_stride=spec.condition_stride,
        max_steps=round((spec.crop_s if crop_s is None else crop_s) * spec.rate_hz),
        feature_dimension=0 if stage == "semantic" else feature_dimension,
        depth_width=depth_width,
        transformer=transformer,
    )
