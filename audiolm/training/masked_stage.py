"""Trains the masked fine stage (`audiolm.lm.masked`) on a token cache."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from audiolm.checkpoints.components import MADE_FOR, MASKED
from audiolm.checkpoints.tensors import component_hash
from audiolm.config import MaskedConfig
from audiolm.errors import TrainingError
from audiolm.lm.masked import MaskedModel
from audiolm.training.loop import Task
from audiolm.training.runs import load_fitting, load_run, load_weights
from audiolm.training.stage import StageData, StageOptions, crops_of, set_codebooks, sources, with_noise
from audiolm.training.token_crops import TokenCrops

PREFIX_SHARE = 0.25  # of the rows: only their first frames are known, as behind a prompt
VALIDATION_FRAMES = 16_000
VALIDATION_SEED = 1
VALIDATED_SHARES = (1.0, 0.5)  # masked; all masked is what the first pass of decoding sees


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = MaskedConfig()
    parser.add_argument("--tokens", type=Path, nargs="+", required=True, help="token caches")
    parser.add_argument("--codec", type=Path, required=True, help="codec run")
    parser.add_argument("--fine", type=Path, required=True, help="run of the fine stage whose tables and head it takes")
    parser.add_argument("--batch-size", type=int, default=12, help="windows a step")
    parser.add_argument("--layers", type=int, help="of the body (default: the fine stage's)")
    parser.add_argument("--feed-forward", type=int, help="width inside its feed-forward layers (default: the same)")
    parser.add_argument("--passes", type=int, default=defaults.num_passes, help="of decoding, by default")
    parser.add_argument("--dropout", type=float, default=defaults.transformer.dropout)
    parser.add_argument("--token-noise", type=float, default=0.03, help="share of known ids replaced by random ones")
    parser.add_argument("--condition-noise", type=float, default=0.05, help="the same for the coarse codes")
    parser.add_argument("--init", type=Path, help="run folder whose weights to start from")


def build(args: argparse.Namespace) -> MaskedTask:
    """Raises TrainingError for caches and runs that do not belong together, or caches that lack a split."""
    options = StageOptions(args.batch_size, args.token_noise, args.condition_noise, args.precision)
    component, fine, made_for = load_run(args.fine)
    if component != "stage_fine":
        raise TrainingError(f"{args.fine} holds a run of {component!r}, not of a fine stage")
    corpora, codebooks, num_coarse, own = sources(args.tokens, args.codec, MADE_FOR[component])
    if own != made_for:
        raise TrainingError(f"{args.fine} was trained on another codec than that of {args.tokens[0]}")
    set_codebooks(fine, codebooks, num_coarse)
    transformer = fine.config.transformer
    layers = transformer.num_layers if args.layers is None else args.layers
    feed_forward = transformer.feed_forward if args.feed_forward is None else args.feed_forward
    config = MaskedConfig(
        levels=fine.config.levels,
        condition_levels=fine.config.condition_levels,
        max_steps=fine.config.max_steps,
        num_passes=args.passes,
        transformer=replace(transformer, num_layers=layers, feed_forward=feed_forward, dropout=args.dropout),
    )
    model = MaskedModel(config)
    model.attach(fine.to(args.device))
    start_from_fine(model)
    if args.init is not None:
        load_weights(args.init, MASKED, model)
    data = StageData(crops_of(corpora, "train"), crops_of(corpora, "valid"), num_coarse)
    made_for = {**own, "stage_fine": component_hash(fine.state_dict())}
    return MaskedTask(model.to(args.device), data, options, made_for)


def start_from_fine(model: MaskedModel) -> None:
    """Gives it the mixer and start vector of its fine stage and, of that one's body, what is of the same sizes."""
    fine = model.fine
    model.mixer.load_state_dict(fine.mixer.state_dict())
    model.mask.data.copy_(fine.start.data)
    load_fitting(model.body, fine.body.state_dict())


@dataclass(frozen=True)
class MaskedBatch:
    """targets [B, F, L], condition [B, F, Lc], masked [B, F]; `inputs` are the targets as they are read.

    Of a held-out batch `masked` are numbers in [0, 1), of which those below the share that is asked for are masked.
    """

    targets: Tensor
    condition: Tensor
    masked: Tensor
    inputs: Tensor | None = None


class MaskedTask(Task):
    """Masked frames from the others; noise on what is read, never on what is predicted."""

    component = MASKED

    def __init__(self, model: MaskedModel, data: StageData, options: StageOptions, made_for: dict[str, str]) -> None:
        self.config: MaskedConfig = model.config
        for split, crops in (("train", data.train), ("valid", data.valid)):
            longest = max((part.num_frames for part in crops.parts), default=0)
            if longest < self.config.max_steps:
                raise TrainingError(
                    f"a window has {self.config.max_steps} frames, "
                    f"the longest of the token caches' split {split} {longest}"
                )
        self.model, self.shipped = model, model
        self.modules = nn.ModuleDict({"model": model})
        self.data, self.options, self.made_for = data, options, made_for
        self.device = model.mask.device
        with torch.no_grad():
            self.tables = model.fine.tables()
        self._held_out: list[MaskedBatch] | None = None

    def batch(self, generator: torch.Generator) -> MaskedBatch:
        targets, condition = self._draw(self.data.train, generator)
        masked = draw_mask(*targets.shape[:2], generator)
        inputs = with_noise(targets, self.config.levels, self.options.token_noise, generator)
        condition = with_noise(condition, self.config.condition_levels, self.options.condition_noise, generator)
        return MaskedBatch(*(value.to(self.device) for value in (targets, condition, masked, inputs)))

    def loss(self, group: str, batch: MaskedBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss, per_level = self.model.loss(self.tables, batch.targets, batch.condition, batch.masked, batch.inputs)
        return loss, {f"level_{level}": value for level, value in enumerate(per_level)}

    def validate(self) -> dict[str, float]:
        """Nats a frame on fixed windows of the split valid: the mean of all masked and of half masked, and both."""
        if self._held_out is None:
            generator = torch.Generator().manual_seed(VALIDATION_SEED)
            count = max(1, VALIDATION_FRAMES // (self.options.batch_size * self.config.max_steps))
            drawn = [self._draw(self.data.valid, generator) for _ in range(count)]
            ranks = [torch.rand(targets.shape[:2], generator=generator) for targets, _ in drawn]
            self._held_out = [
                MaskedBatch(*(value.to(self.device) for value in (*pair, rank)))
                for pair, rank in zip(drawn, ranks, strict=True)
            ]
        figures = {f"loss_masked_{share:g}": self._evaluate(share) for share in VALIDATED_SHARES}
        return {"loss": sum(figures.values()) / len(figures)} | figures

    def _evaluate(self, share: float) -> float:
        losses = []
        for batch in self._held_out or ():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
                loss, _ = self.model.loss(self.tables, batch.targets, batch.condition, batch.masked < share)
            losses.append(float(loss))
        return sum(losses) / len(losses)

    def _draw(self, crops: TokenCrops, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Whole windows: targets [B, F, L] and condition [B, F, Lc]; shorter ones are left out."""
        frames, drawn = self.config.max_steps, []
        while len(drawn) < self.options.batch_size:
            found = crops.draw(frames, self.options.batch_size, generator)
            drawn.extend(crop.codes for crop in found if len(crop.codes) == frames)
        codes = torch.stack(drawn[: self.options.batch_size])
        return codes[..., self.data.num_coarse_levels :], codes[..., : self.data.num_coarse_levels]


def draw_mask(rows: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """[B, F], True where masked: MaskGIT's cosine of a uniform share, of frames anywhere or of all but the first ones.

    At least one frame a row.
    """
    shares = torch.cos(math.pi / 2 * torch.rand(rows, generator=generator))
    counts = (shares * num_frames).long().clamp_min(1)
    ranks = torch.rand(rows, num_frames, generator=generator).argsort(dim=1).argsort(dim=1)
    last_first = torch.arange(num_frames - 1, -1, -1).expand(rows, -1)
    behind_a_prompt = torch.rand(rows, 1, generator=generator) < PREFIX_SHARE
    return torch.where(behind_a_prompt, last_first, ranks) < counts[:, None]
