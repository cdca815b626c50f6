"""Trains one of the three language-model stages on a token cache."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiolm.checkpoints.components import MADE_FOR
from audiolm.checkpoints.format import read_run
from audiolm.checkpoints.tensors import token_hash
from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC, STAGES, StageConfig, TransformerConfig
from audiolm.data.tokens import TokenCorpus
from audiolm.errors import TrainingError
from audiolm.lm import SPECS, StageModel, default_config
from audiolm.lm.layouts import UNKNOWN
from audiolm.training.baselines import bigram_nats, unigram_nats
from audiolm.training.loop import Task, require
from audiolm.training.runs import Tensors, load_run, load_weights
from audiolm.training.token_crops import TokenCrop, TokenCrops, segments
from audiolm.training.transfer import SEMANTIC_TABLES, transfer

VALIDATION_FRAMES = 16_000
BASELINE_FRAMES = 1_000_000
VALIDATION_SEED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--tokens", type=Path, nargs="+", required=True, help="token caches")
    parser.add_argument("--codec", type=Path, required=True, help="codec run, for its sizes and codebooks")
    parser.add_argument("--features", action=argparse.BooleanOptionalAction, default=True, help="read its code vectors")
    parser.add_argument("--layout", choices=("depth", "flattened"), default="depth")
    parser.add_argument("--batch-size", type=int, default=8, help="crops a step")
    parser.add_argument("--crop-s", type=float, help="default: the paper's 30 / 10 / 3 s")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--feed-forward", type=int, help="default: four times the width")
    parser.add_argument("--depth-width", type=int, help="default: the width")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--token-noise", type=float, default=0.03, help="share of past ids replaced by random ones")
    parser.add_argument("--condition-noise", type=float, default=0.05, help="the same for the condition")
    parser.add_argument(
        "--condition-dropout", type=float, default=0.0, help="share of crops that hide it: for `guided-stage`"
    )
    parser.add_argument("--fluent-only", action="store_true", help="train on fluent items alone")
    parser.add_argument("--init", type=Path, help="run folder whose weights to start from")
    parser.add_argument(
        "--init-tokens",
        type=Path,
        nargs="+",
        default=[],
        help="the caches --init was trained on, where another semantic tokenizer made them: what it knows of their ids "
        "is transferred (otherwise each id begins as the old one of its number)",
    )


def build(args: argparse.Namespace) -> StageTask:
    """Raises TrainingError for options that cannot be, caches that do not belong together or lack a split and an
    --init that does not fit them; DataError for an unreadable cache, CheckpointError for an unreadable run."""
    options = StageOptions(
        args.batch_size, args.token_noise, args.condition_noise, args.precision, args.condition_dropout
    )
    if args.condition_dropout > 0 and (args.stage == "semantic" or args.layout != "depth"):
        raise TrainingError("--condition-dropout: only coarse and fine stages of the depth layout can hide a condition")
    if args.init is None and args.init_tokens:
        raise TrainingError("--init-tokens says what --init was trained on, which is missing")
    if args.init_tokens and args.stage not in SEMANTIC_TABLES:
        raise TrainingError(f"--init-tokens: a {args.stage} stage knows no semantic ids that could be transferred")
    corpora, codebooks, num_coarse, made_for = sources(args.tokens, args.codec, MADE_FOR[f"stage_{args.stage}"])
    model = StageModel(_config(args, codebooks, num_coarse, corpora[0].meta["num_clusters"]))
    if args.init is not None:
        convert = _transfer(args, corpora) if args.init_tokens else None
        load_weights(args.init, f"stage_{args.stage}", model, convert)
    set_codebooks(model, codebooks, num_coarse)
    fluent = True if args.fluent_only else None
    train, valid = (crops_of(corpora, split, fluent) for split in ("train", "valid"))
    return StageTask(model.to(args.device), StageData(train, valid, num_coarse), options, made_for)


def sources(
    folders: list[Path], codec: Path, made_for: tuple[str, ...]
) -> tuple[list[TokenCorpus], Tensor, int, dict[str, str]]:
    """The token caches, their codec's codebooks [Q, K, D] and coarse levels, and the hashes of `made_for`.

    Raises TrainingError where the caches or the codec do not belong together.
    """
    corpora = [TokenCorpus(folder) for folder in folders]
    hashes = _hashes(corpora)
    return corpora, *_codebooks(codec, corpora[0].meta), {name: hashes[name] for name in made_for}


def _transfer(args: argparse.Namespace, corpora: list[TokenCorpus]) -> Callable[[Tensors], Tensors]:
    """Raises TrainingError where --init was not trained on --init-tokens."""
    old = [TokenCorpus(folder) for folder in args.init_tokens]
    given, trained_on = _hashes(old)["semantic"], read_run(args.init)[3].get("semantic", "none")
    if given != trained_on:
        raise TrainingError(
            f"{args.init} was trained on tokens of semantic tokenizer {trained_on[:12]}, "
            f"--init-tokens are of {given[:12]}"
        )
    return transfer(args.stage, old, corpora)


def set_codebooks(model: StageModel, codebooks: Tensor, num_coarse: int) -> None:
    """Gives a stage those of the codec's codebooks [Q, K, D] that it has a use for."""
    if model.config.feature_dimension:
        coarse, fine = codebooks[:num_coarse], codebooks[num_coarse:]
        model.set_codebooks(*((coarse, None) if model.config.stage == "coarse" else (fine, coarse)))


def crops_of(corpora: list[TokenCorpus], split: str, fluent: bool | None = None) -> TokenCrops:
    return TokenCrops([part for one in corpora for part in segments(one, one.select(split=split, fluent=fluent))])


def _config(args: argparse.Namespace, codebooks: Tensor, num_coarse: int, num_clusters: int) -> StageConfig:
    num_levels, codebook_size, dimension = codebooks.shape
    return default_config(
        args.stage,
        args.layout,
        codebook_size=codebook_size,
        num_coarse_levels=num_coarse,
        num_fine_levels=num_levels - num_coarse,
        num_clusters=num_clusters,
        feature_dimension=dimension if args.features else 0,
        transformer=TransformerConfig(
            width=args.width,
            num_layers=args.layers,
            num_heads=args.heads,
            feed_forward=4 * args.width if args.feed_forward is None else args.feed_forward,
            dropout=args.dropout,
        ),
        depth_width=args.width if args.depth_width is None else args.depth_width,
        crop_s=args.crop_s,
    )


@dataclass(frozen=True)
class StageData:
    """Crops of the two splits, and how many of the codec's levels are coarse."""

    train: TokenCrops
    valid: TokenCrops
    num_coarse_levels: int


@dataclass(frozen=True)
class StageOptions:
    """`token_noise` and `condition_noise` are shares of ids replaced by random ones of the same level,
    `condition_dropout` that of crops without a condition. Raises TrainingError for what cannot be."""

    batch_size: int = 8
    token_noise: float = 0.0
    condition_noise: float = 0.0
    precision: str = "fp32"
    condition_dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(0 <= self.token_noise <= 1, "--token-noise", "0 to 1", self.token_noise)
        require(0 <= self.condition_noise <= 1, "--condition-noise", "0 to 1", self.condition_noise)
        dropout = self.condition_dropout
        require(0 <= dropout < 1, "--condition-dropout", "at least 0 and under 1", dropout)


@dataclass(frozen=True)
class StageBatch:
    """targets [B, N, L], condition [B, C, Lc] or None, mask [B, N] or None where every step counts.

    `inputs` [B, N, L] is the past as the model reads it, where that differs from the targets.
    """

    targets: Tensor
    condition: Tensor | None
    mask: Tensor | None
    inputs: Tensor | None = None

    @property
    def counted(self) -> Tensor:
        """[B, N] bool: the steps that are no padding."""
        return torch.ones_like(self.targets[..., 0], dtype=torch.bool) if self.mask is None else self.mask


class StageTask(Task):
    """Next-step prediction on crops; noise on what is read, never on what is predicted."""

    def __init__(self, model: StageModel, data: StageData, options: StageOptions, made_for: dict[str, str]) -> None:
        if not data.train.num_frames or not data.valid.num_frames:
            raise TrainingError("the token caches hold no items of the split train, or none of the split valid")
        self.component = f"stage_{model.config.stage}"
        self.config: StageConfig = model.config
        self.model, self.shipped = model, model
        self.modules = nn.ModuleDict({"model": model})
        self.data, self.options, self.made_for = data, options, made_for
        self.spec = SPECS[model.config.stage]
        frames = round(model.config.max_steps * FRAME_RATE_HZ / self.spec.rate_hz)
        self.crop_frames = frames + frames % FRAMES_PER_SEMANTIC
        self.device = model.start.device
        self._held_out: tuple[list[StageBatch], dict[str, float]] | None = None

    def batch(self, generator: torch.Generator) -> StageBatch:
        clean = self._collate(self.data.train.draw(self.crop_frames, self.options.batch_size, generator))
        noisy, options, config = clean, self.options, self.config
        if options.token_noise > 0:
            noisy = replace(noisy, inputs=with_noise(clean.targets, config.levels, options.token_noise, generator))
        if clean.condition is not None and options.condition_noise > 0:
            share, levels = options.condition_noise, config.condition_levels
            noisy = replace(noisy, condition=with_noise(clean.condition, levels, share, generator))
        if clean.condition is not None and options.condition_dropout > 0:
            hidden = torch.rand(len(clean.targets), 1, 1, generator=generator) < options.condition_dropout
            noisy = replace(noisy, condition=noisy.condition.masked_fill(hidden, UNKNOWN))
        return self._to_device(noisy)

    def loss(self, group: str, batch: StageBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss, per_level = self.model.loss(batch.targets, batch.condition, batch.mask, batch.inputs)
        return loss, {f"level_{level}": value for level, value in enumerate(per_level)}

    def validate(self) -> dict[str, float]:
        """Nats a step on fixed crops of the split valid, beside what unigrams and a bigram reach on the same crops."""
        if self._held_out is None:
            self._held_out = self._prepare_validation()
        batches, baselines = self._held_out
        figures = self._evaluate(batches)
        if self.config.condition_levels:
            shuffled = [replace(batch, condition=batch.condition.roll(1, dims=0)) for batch in batches]
            figures["loss_condition_shuffled"] = self._evaluate(shuffled)["loss"]
        if self.options.condition_dropout > 0:
            hidden = [replace(batch, condition=torch.full_like(batch.condition, UNKNOWN)) for batch in batches]
            figures["loss_condition_hidden"] = self._evaluate(hidden)["loss"]
        return figures | baselines

    def state(self) -> dict[str, float]:
        return {"condition_dropout": self.options.condition_dropout}

    def resumed(self, folder: Path, state: dict[str, Any]) -> None:
        if "guidance" in state:
            raise TrainingError("this run was made by guided-stage, which it can be gone on with")

    def _evaluate(self, batches: list[StageBatch]) -> dict[str, float]:
        totals, steps = torch.zeros(len(self.config.levels)), 0
        for batch in batches:
            counted = int(batch.counted.sum())
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
                _, per_level = self.model.loss(batch.targets, batch.condition, batch.mask)
            totals += per_level.float().cpu() * counted
            steps += counted
        nats = (totals / steps).tolist()
        return {"loss": sum(nats)} | {f"level_{level}": value for level, value in enumerate(nats)}

    def _prepare_validation(self) -> tuple[list[StageBatch], dict[str, float]]:
        """The same crops at every validation, and the baselines' nats, counted on the split train."""
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        size = max(2, self.options.batch_size)  # at least two rows, so that conditions can change places
        count = max(1, VALIDATION_FRAMES // (size * self.crop_frames))
        batches = [self._collate(self.data.valid.draw(self.crop_frames, size, generator)) for _ in range(count)]
        crops = self.data.train.draw(self.crop_frames, max(1, BASELINE_FRAMES // self.crop_frames), generator)
        train = [self._targets(crop) for crop in crops]
        valid = [row if mask is None else row[mask] for row, mask in _rows(batches)]
        unigram = unigram_nats(torch.cat(train), torch.cat(valid), self.config.levels)
        first = [steps[:, 0] for steps in train], [steps[:, 0] for steps in valid]
        baselines = {"unigram": sum(unigram), "bigram_level_0": bigram_nats(*first, self.config.levels[0])}
        baselines |= {f"unigram_level_{level}": value for level, value in enumerate(unigram)}
        return [self._to_device(batch) for batch in batches], baselines

    def _targets(self, crop: TokenCrop) -> Tensor:
        """Of the semantic stage the last step is left out: the crop's end may have cut its run."""
        steps = self.spec.targets(crop.semantic, crop.codes, self.data.num_coarse_levels, len(self.config.levels))
        return steps[:-1] if self.spec.stage == "semantic" and len(steps) > 1 else steps

    def _collate(self, crops: list[TokenCrop]) -> StageBatch:
        targets = [self._targets(crop) for crop in crops]
        conditions = [self.spec.condition(crop.semantic, crop.codes, self.data.num_coarse_levels) for crop in crops]
        lengths = torch.tensor([len(steps) for steps in targets])
        full = bool((lengths == lengths[0]).all())
        return StageBatch(
            targets=pad_sequence(targets, batch_first=True),
            condition=None if conditions[0] is None else pad_sequence(conditions, batch_first=True),
            mask=None if full else torch.arange(int(lengths.max()))[None] < lengths[:, None],
        )

    def _to_device(self, batch: StageBatch) -> StageBatch:
        tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
        return StageBatch(**{k: v if v is None else v.to(self.device, non_blocking=True) for k, v in tensors.items()})


def _rows(batches: list[StageBatch]) -> Iterator[tuple[Tensor, Tensor | None]]:
    for batch in batches:
        masks = [None] * len(batch.targets) if batch.mask is None else batch.mask
        yield from zip(batch.targets, masks, strict=True)


def with_noise(ids: Tensor, levels: tuple[int, ...], share: float, generator: torch.Generator) -> Tensor:
    """ids [B, N, L] with a share of them drawn anew, uniformly over their level."""
    sizes = torch.tensor(levels)
    drawn = (torch.rand(ids.shape, generator=generator) * sizes).long()
    return torch.where(torch.rand(ids.shape, generator=generator) < share, drawn, ids)


def _hashes(corpora: list[TokenCorpus]) -> dict[str, str]:
    """The tokenizers' hashes, of which all caches must agree. Raises TrainingError where they do not."""
    first = corpora[0].meta
    for other in corpora[1:]:
        for key in ("codec", "semantic"):
            if other.meta[key] != first[key]:
                raise TrainingError(f"token caches of different tokenizers: {key} {first[key]} and {other.meta[key]}")
    return {key: first[key] for key in ("codec", "semantic")}


def _codebooks(run: Path, meta: dict[str, Any]) -> tuple[Tensor, int]:
    """(codebooks [Q, K, D], coarse levels) of the codec run. Raises TrainingError where it is not the caches' codec."""
    component, codec, _ = load_run(run)
    if component != "codec":
        raise TrainingError(f"{run} holds a run of {component!r}, not of a codec")
    if (found := token_hash(codec.state_dict())) != meta["codec"]:
        raise TrainingError(f"{run} has tokens of {found[:12]}, the token caches are of codec {meta['codec'][:12]}")
    return codec.codebooks(), codec.config.num_coarse_levels
