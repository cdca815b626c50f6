"""Teaches a stage to follow its condition as closely as classifier-free guidance would make it, in one pass.

A stage trained with `--condition-dropout` says what it expects with its condition and without. Guidance (Ho and
Salimans, arXiv 2207.12598) goes on from the second through the first and beyond: what follows the condition gets
likelier, at the price of two rows for every one that is decoded. Here a student learns to say so by itself (Meng et
al., arXiv 2210.03142), so that nothing in decoding changes.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.errors import TrainingError
from audiolm.lm import StageModel
from audiolm.lm.layouts import UNKNOWN
from audiolm.training.runs import load_run
from audiolm.training.stage import StageBatch, StageData, StageOptions, StageTask, crops_of, set_codebooks, sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=Path, nargs="+", required=True, help="token caches")
    parser.add_argument("--codec", type=Path, required=True, help="codec run")
    parser.add_argument("--teacher", type=Path, required=True, help="run of a stage, trained with --condition-dropout")
    parser.add_argument("--guidance", type=float, default=2.0, help="1: the teacher as it is; more: beyond it")
    parser.add_argument("--batch-size", type=int, default=4, help="crops a step")
    parser.add_argument("--token-noise", type=float, default=0.03, help="share of past ids replaced by random ones")


def build(args: argparse.Namespace) -> GuidedTask:
    """Raises TrainingError for caches and runs that do not belong together, or a teacher without a condition."""
    component, teacher, made_for = load_run(args.teacher)
    if not isinstance(teacher, StageModel) or not teacher.config.condition_levels:
        raise TrainingError(f"{args.teacher} holds a run of {component!r}, not of a stage with a condition")
    corpora, codebooks, num_coarse, own = sources(args.tokens, args.codec, tuple(made_for))
    if own != made_for:
        raise TrainingError(f"{args.teacher} was trained on other tokenizers than those of {args.tokens[0]}")
    set_codebooks(teacher, codebooks, num_coarse)
    data = StageData(crops_of(corpora, "train"), crops_of(corpora, "valid"), num_coarse)
    options = StageOptions(args.batch_size, args.token_noise, 0.0, args.precision)
    return GuidedTask(teacher.to(args.device), args.guidance, data, options, made_for)


class GuidedTask(StageTask):
    """The teacher's guided probabilities of every token; the student starts from the teacher's weights."""

    def __init__(
        self, teacher: StageModel, guidance: float, data: StageData, options: StageOptions, made_for: dict[str, str]
    ) -> None:
        super().__init__(copy.deepcopy(teacher).requires_grad_(True), data, options, made_for)
        self.teacher, self.guidance = teacher.eval(), guidance

    def loss(self, group: str, batch: StageBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        per_level = self._divergences(batch)
        return sum(per_level), {f"level_{level}": value.detach() for level, value in enumerate(per_level)}

    def validate(self) -> dict[str, float]:
        """As of any stage, its nats by the name `nats`; `loss` is how far the student is from the guided teacher."""
        figures = super().validate()
        batches, _ = self._held_out
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            losses = [float(sum(self._divergences(batch))) for batch in batches]
        return figures | {"nats": figures["loss"], "loss": sum(losses) / len(losses)}

    def _divergences(self, batch: StageBatch) -> list[Tensor]:
        """Kullback-Leibler divergence of every level's logits from the teacher's guided ones, in nats a step."""
        with torch.no_grad():
            wanted = guided_logits(self.teacher, batch.targets, batch.condition, self.guidance, batch.inputs)
        found = self.model.logits(batch.targets, batch.condition, inputs=batch.inputs)
        counted = torch.ones_like(batch.targets[..., 0], dtype=torch.bool) if batch.mask is None else batch.mask
        return [
            F.kl_div(
                own[counted].float().log_softmax(dim=-1),
                other[counted].log_softmax(dim=-1),
                reduction="batchmean",
                log_target=True,
            )
            for own, other in zip(found, wanted, strict=True)
        ]


def guided_logits(
    model: StageModel, targets: Tensor, condition: Tensor, guidance: float, inputs: Tensor | None = None
) -> list[Tensor]:
    """As `StageModel.logits`, float32: from those without a condition, `guidance` times the way to those with it."""
    tables = model.tables()
    known = model.logits(targets, condition, tables, inputs)
    unknown = model.logits(targets, torch.full_like(condition, UNKNOWN), tables, inputs)
    return [torch.lerp(b.float(), a.float(), guidance) for a, b in zip(known, unknown, strict=True)]
