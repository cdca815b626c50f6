"""Teaches a stage to follow its condition as closely as classifier-free guidance would make it, in one pass.

A stage trained with `--condition-dropout` says what it expects with its condition and without. Guidance (Ho and
Salimans, arXiv 2207.12598) goes on from the second through the first and beyond: what the condition speaks for gets
likelier, at the price of two rows for every one that is decoded. Here a student learns to say so by itself, after
Meng et al. (arXiv 2210.03142), so that nothing in decoding changes. Theirs is told how much guidance is wanted and
distils diffusion; here the amount is fixed, and the loss is the divergence of the tokens' distributions.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.checkpoints.components import MADE_FOR
from audiolm.checkpoints.tensors import component_hash
from audiolm.errors import TrainingError
from audiolm.lm import StageModel
from audiolm.lm.layouts import UNKNOWN
from audiolm.training.loop import require
from audiolm.training.runs import load_run, read_state
from audiolm.training.stage import StageBatch, StageData, StageOptions, StageTask, crops_of, set_codebooks, sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=Path, nargs="+", required=True, help="token caches")
    parser.add_argument("--codec", type=Path, required=True, help="codec run")
    parser.add_argument("--teacher", type=Path, required=True, help="run of a stage, trained with --condition-dropout")
    parser.add_argument("--guidance", type=float, default=2.0, help="1: the teacher as it is; more: beyond it")
    parser.add_argument("--batch-size", type=int, default=4, help="crops a step")
    parser.add_argument("--token-noise", type=float, default=0.03, help="share of past ids replaced by random ones")


def build(args: argparse.Namespace) -> GuidedTask:
    """Raises TrainingError for caches and runs that do not belong together or a teacher that cannot teach this,
    CheckpointError for an unreadable run."""
    options = StageOptions(args.batch_size, args.token_noise, precision=args.precision)  # no noise on the condition
    require(0 <= args.guidance < math.inf, "--guidance", "at least 0 and finite", args.guidance)
    if args.out.resolve() == args.teacher.resolve():
        raise TrainingError(f"--out and --teacher are the same run, {args.out}: the student would replace its teacher")
    component, teacher, made_for = load_run(args.teacher)
    if not isinstance(teacher, StageModel) or not read_state(args.teacher).get("condition_dropout"):
        raise TrainingError(f"{args.teacher}: a run of {component!r}, not of a stage trained with --condition-dropout")
    corpora, codebooks, num_coarse, own = sources(args.tokens, args.codec, MADE_FOR[component])
    if own != made_for:
        raise TrainingError(f"{args.teacher} was trained on other tokenizers than those of {args.tokens[0]}")
    set_codebooks(teacher, codebooks, num_coarse)
    data = StageData(crops_of(corpora, "train"), crops_of(corpora, "valid"), num_coarse)
    return GuidedTask(teacher.to(args.device), args.guidance, data, options, made_for)


class GuidedTask(StageTask):
    """The teacher's guided probabilities of every token. The student starts from the teacher's weights.

    It is shown no crop without a condition, and soon forgets what it knew of those.
    """

    def __init__(
        self, teacher: StageModel, guidance: float, data: StageData, options: StageOptions, made_for: dict[str, str]
    ) -> None:
        super().__init__(copy.deepcopy(teacher).requires_grad_(True), data, options, made_for)
        self.teacher, self.guidance = teacher.eval().requires_grad_(False), guidance

    def loss(self, group: str, batch: StageBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        per_level = self._divergences(batch)
        return per_level.sum(), {f"divergence_level_{level}": value for level, value in enumerate(per_level.detach())}

    def validate(self) -> dict[str, float]:
        """`loss`: how far the student is from the guided teacher, nats a step; `nats…`: what it is of any stage."""
        figures = {name.replace("loss", "nats", 1): value for name, value in super().validate().items()}
        batches, _ = self._held_out
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            losses = torch.stack([self._divergences(batch).sum() for batch in batches])
        counts = losses.new_tensor([float(batch.counted.sum()) for batch in batches])
        return figures | {"loss": float((losses * counts).sum() / counts.sum())}

    def state(self) -> dict[str, Any]:
        return {"teacher": component_hash(self.teacher.state_dict()), "guidance": self.guidance}

    def resumed(self, folder: Path, state: dict[str, Any]) -> None:
        for name, value in self.state().items():
            if state.get(name) != value:
                raise TrainingError(f"cannot resume: the run in --out has {name} {state.get(name)!r}, not {value!r}")

    def _divergences(self, batch: StageBatch) -> Tensor:
        """[L]: the Kullback-Leibler divergence of each level from the teacher's guided one, nats a step."""
        with torch.no_grad():
            wanted = guided_logits(self.teacher, batch.targets, batch.condition, self.guidance, batch.inputs)
        found = self.model.logits(batch.targets, batch.condition, inputs=batch.inputs)
        return torch.stack(
            [
                F.kl_div(
                    own[batch.counted].float().log_softmax(dim=-1),
                    other[batch.counted].log_softmax(dim=-1),
                    reduction="batchmean",
                    log_target=True,
                )
                for own, other in zip(found, wanted, strict=True)
            ]
        )


def guided_logits(
    model: StageModel, targets: Tensor, condition: Tensor, guidance: float, inputs: Tensor | None = None
) -> list[Tensor]:
    """L tensors [B, N, V_l] float32, u + guidance (c - u): c the model's logits, u those without the condition.

    Arguments as in `StageModel.logits`; of a model that was trained to do without (depth layout).
    """
    tables = model.tables()
    known = model.logits(targets, condition, tables, inputs)
    unknown = model.logits(targets, torch.full_like(condition, UNKNOWN), tables, inputs)
    return [torch.lerp(u.float(), c.float(), guidance) for c, u in zip(known, unknown, strict=True)]
