"""Many hold-out prompts continued together, as tokens: for rows that need no files, or only some of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiolm.audio.levelling import level_gain
from audiolm.checkpoints.format import ModelSet
from audiolm.config import FRAMES_PER_SEMANTIC, SAMPLES_PER_SEMANTIC, SEMANTIC_RATE_HZ, SamplingConfig
from audiolm.errors import AudioError
from audiolm.evaluation.holdout import HoldOut
from audiolm.receipt import derive_seed
from audiolm.stages import StageRun, finished, run_coarse, run_fine, run_semantic


@dataclass(frozen=True)
class Prompt:
    """The start of a hold-out recording as the pipeline reads it, and the recording with what it went on with.

    `semantic` [S0] and `codes` [2 S0, Q] are the prompt's, encoded alone and without the last position, which the
    pipeline makes anew; `whole_semantic` [S] and `whole_codes` [2 S, Q] those of the recording, at the level the prompt
    was brought to. `seed` is that of its continuation.
    """

    id: str
    group: str
    seed: int
    semantic: Tensor
    codes: Tensor
    whole_semantic: Tensor
    whole_codes: Tensor


def read_prompts(
    holdout: HoldOut,
    models: ModelSet,
    count: int,
    prompt_s: float,
    total_s: float,
    more_s: float = 0.0,
    seed: int = 0,
    split: str = "test",
) -> list[Prompt]:
    """The first `prompt_s` of at most `count` items of a split, of at least `total_s`, silent starts left out.

    As much as there is of `more_s` is read beyond `total_s`. Seeds count from `seed`.
    """
    num_samples = round(prompt_s * SEMANTIC_RATE_HZ) * SAMPLES_PER_SEMANTIC
    prompts = []
    for index, item in enumerate(holdout.items(count, split, min_s=total_s + 1 / SEMANTIC_RATE_HZ)):
        samples = holdout.waveform(item, total_s + more_s)
        try:
            start = samples[:num_samples]
            mean, gain = start.mean(), level_gain(start - start.mean())
        except AudioError:
            continue
        (semantic, codes), (whole_semantic, whole_codes) = (
            _encode(models, (part - mean) * gain) for part in (start, samples)
        )
        known = semantic[:-1], codes[:-FRAMES_PER_SEMANTIC]
        prompts.append(Prompt(item.id, item.group, seed + index, *known, whole_semantic, whole_codes))
    return prompts


@torch.inference_mode()
def _encode(models: ModelSet, samples: Tensor) -> tuple[Tensor, Tensor]:
    batch = samples[None].to(models.device)
    return models.semantic.encode(batch)[0].cpu(), models.codec.encode(batch)[0].cpu()


def continue_semantic(
    models: ModelSet, prompts: Sequence[Prompt], num_positions: int, sampling: SamplingConfig
) -> Tensor:
    """-> semantic ids [N, num_positions] at 25 Hz, prompts included: what the pipeline makes with each prompt's seed.

    One by one, since prompts differ in their number of runs; it is the stage with the fewest steps.
    """
    rows = []
    for prompt in prompts:
        run, joins = _stage(models, "semantic", [prompt], sampling), [derive_seed(prompt.seed, "semantic", "join")]
        rows.append(finished(run_semantic(run, prompt.semantic, num_positions, joins)))
    return torch.cat(rows)


def continue_coarse(models: ModelSet, prompts: Sequence[Prompt], semantic: Tensor, sampling: SamplingConfig) -> Tensor:
    """semantic [N, S] -> coarse codes [N, 2 S, Lc], prompts included, all as one batch."""
    run = _stage(models, "coarse", prompts, sampling)
    known = torch.stack([prompt.codes for prompt in prompts])[:, :, : len(run.model.config.levels)]
    return finished(run_coarse(run, semantic, known, semantic.shape[1] * FRAMES_PER_SEMANTIC))


def continue_fine(models: ModelSet, prompts: Sequence[Prompt], coarse: Tensor, sampling: SamplingConfig) -> Tensor:
    """coarse [N, F, Lc] -> codes of all levels [N, F, Q], prompts included, all as one batch."""
    run = _stage(models, "fine", prompts, sampling)
    known = torch.stack([prompt.codes for prompt in prompts])[:, :, coarse.shape[2] :]
    return torch.cat([coarse, finished(run_fine(run, coarse, known))], dim=2)


@torch.inference_mode()
def decode(models: ModelSet, codes: Tensor) -> Tensor:
    """codes [F, Q] -> [320 F] at 16 kHz."""
    return models.codec.decode(codes[None].to(models.device))[0].float().cpu()


def _stage(models: ModelSet, stage: str, prompts: Sequence[Prompt], sampling: SamplingConfig) -> StageRun:
    """The pipeline's run of a stage, of the first continuation of every prompt."""
    return StageRun(models.stages[stage], sampling, [derive_seed(prompt.seed, stage, 0) for prompt in prompts])
