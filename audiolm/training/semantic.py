"""Pre-trains the semantic encoder: w2v-BERT on random crops of a corpus."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC, SemanticConfig
from audiolm.data.corpus import Corpus
from audiolm.semantic.w2vbert import Views, W2vBert, normalise_level, span_mask
from audiolm.training.loop import Task

COMPONENT = "w2vbert"
DIVERSITY_WEIGHT = 0.1
START_TEMPERATURE, END_TEMPERATURE, TEMPERATURE_DECAY = 2.0, 0.5, 0.9985
NUM_VALIDATION_BATCHES = 3


@dataclass(frozen=True)
class SemanticBatch:
    """Level-normalised crops in two versions, hidden positions and sounding positions [B, S]."""

    views: Views
    mask: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Augmentation:
    """What the context side hears differently from the target side; `warp` is for speech, where pitch is no content."""

    warp: float = 0.0  # largest relative change of the frequency axis
    gain_db: float = 4.0
    tilt: float = 0.5  # largest coefficient of a one-zero filter
    noise_probability: float = 0.5
    noise_db: tuple[float, float] = (-40.0, -10.0)  # relative to the level of the crop

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Views:
        """clean [B, T] at the reference level; randomness is drawn on the CPU, so devices see the same factors."""
        rows = clean.shape[0]

        def uniform(low: float, high: float) -> Tensor:
            return (low + (high - low) * torch.rand(rows, 1, generator=generator)).to(clean.device)

        tilt = uniform(-self.tilt, self.tilt)
        noisy = clean.clone()
        noisy[:, 1:] += tilt * clean[:, :-1]
        noisy = noisy / (1 + tilt.square()).sqrt() * 10 ** (uniform(-self.gain_db, self.gain_db) / 20)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        level = clean.square().mean(dim=-1, keepdim=True).sqrt() * 10 ** (uniform(*self.noise_db) / 20)
        present = uniform(0.0, 1.0) < self.noise_probability
        # Noise is low-passed at random, as rooms and microphones rarely hiss white.
        colour = uniform(0.0, 0.9)
        noise[:, 1:] += colour * noise[:, :-1]
        noisy = noisy + present * level * noise
        warps = uniform(1.0 - self.warp, 1.0 + self.warp)[:, 0] if self.warp > 0 else None
        return Views(clean, noisy, warps)


class SemanticTask(Task):
    """Contrastive + masked-prediction + diversity loss of `W2vBert`."""

    component = COMPONENT

    def __init__(self, config: SemanticConfig, corpora: list[Corpus], args: argparse.Namespace) -> None:
        self.config = config
        self.device = torch.device(args.device)
        self.made_for: dict[str, str] = {}
        self.batch_size = args.batch_size
        self.fixed_target_steps = args.fixed_target_steps
        self.length = round(args.crop_s * SAMPLE_RATE_HZ) // SAMPLES_PER_SEMANTIC * SAMPLES_PER_SEMANTIC
        self.augmentation = Augmentation(warp=args.warp)
        self.sources = CorpusMixture(corpora, min_length=min(self.length, 2 * SAMPLE_RATE_HZ))
        self.shipped = W2vBert(config).to(self.device)
        self.modules = nn.ModuleDict({"model": self.shipped})
        generator = torch.Generator().manual_seed(args.seed)
        crops = self.sources.crops("train", self.length, args.start_crops, generator).to(self.device)
        num_cepstra = args.target_cepstra or config.num_mels
        self.shipped.fit(normalise_level(crops), sounding_positions(crops), num_cepstra, generator)

    def batch(self, generator: torch.Generator) -> SemanticBatch:
        crops = self.sources.crops("train", self.length, self.batch_size, generator).to(self.device)
        return self._prepare(crops, generator, self.augmentation)

    def loss(self, group: str, batch: SemanticBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        temperature = None
        if step >= self.fixed_target_steps:
            decayed = START_TEMPERATURE * TEMPERATURE_DECAY ** (step - self.fixed_target_steps)
            temperature = max(END_TEMPERATURE, decayed)
        output = self.shipped(batch.views, batch.mask, batch.valid, temperature)
        total = output.contrastive_loss + output.masked_loss + DIVERSITY_WEIGHT * output.diversity_loss
        return total, {
            "contrastive": output.contrastive_loss.detach(),
            "masked": output.masked_loss.detach(),
            "contrastive_accuracy": output.contrastive_accuracy,
            "masked_accuracy": output.masked_accuracy,
            "code_perplexity": output.code_perplexity,
        }

    def validate(self) -> dict[str, float]:
        """Clean crops of the validation split, the same ones at every call."""
        generator = torch.Generator().manual_seed(1)
        sums: dict[str, float] = {}
        for _ in range(NUM_VALIDATION_BATCHES):
            crops = self.sources.crops("valid", self.length, self.batch_size, generator).to(self.device)
            batch = self._prepare(crops, generator, None)
            output = self.shipped(batch.views, batch.mask, batch.valid)
            figures = {
                "loss": output.contrastive_loss + output.masked_loss,
                "contrastive": output.contrastive_loss,
                "masked": output.masked_loss,
                "contrastive_accuracy": output.contrastive_accuracy,
                "masked_accuracy": output.masked_accuracy,
                "code_perplexity": output.code_perplexity,
                "code_change_rate": _change_rate(output.codes, batch.valid),
            }
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value) / NUM_VALIDATION_BATCHES
        return sums

    def _prepare(self, crops: Tensor, generator: torch.Generator, augmentation: Augmentation | None) -> SemanticBatch:
        valid = sounding_positions(crops)
        clean = normalise_level(crops)
        views = Views(clean, clean) if augmentation is None else augmentation(clean, generator)
        mask = span_mask(crops.shape[0], valid.shape[1], generator).to(crops.device)
        return SemanticBatch(views, mask, valid)


class CorpusMixture:
    """Crops over several corpora, each in proportion to its hours, without items shorter than `min_length` samples."""

    def __init__(self, corpora: list[Corpus], min_length: int) -> None:
        self.corpora = corpora
        self.items = {
            split: [[item for item in corpus.select(split=split) if item.length >= min_length] for corpus in corpora]
            for split in ("train", "valid")
        }

    def crops(self, split: str, length: int, count: int, generator: torch.Generator) -> Tensor:
        """[count, length] float32; short items are zero-padded at their end. Raises DataError without any items."""
        items = self.items[split]
        totals = torch.tensor([float(sum(item.length for item in chosen)) for chosen in items])
        if len(self.corpora) == 1 or float(totals.sum()) == 0.0:
            return self.corpora[0].crops(items[0], length, count, generator)
        drawn = torch.multinomial(totals, count, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(items)).tolist()
        parts = [
            corpus.crops(chosen, length, n, generator)
            for corpus, chosen, n in zip(self.corpora, items, counts, strict=True)
            if n > 0
        ]
        return torch.cat(parts)


def sounding_positions(crops: Tensor) -> Tensor:
    """crops [B, T] -> [B, T // 640] bool: positions before the run of zeros that pads a short item."""
    num_positions = crops.shape[1] // SAMPLES_PER_SEMANTIC
    frames = crops[:, : num_positions * SAMPLES_PER_SEMANTIC].unflatten(1, (num_positions, SAMPLES_PER_SEMANTIC))
    sounding = (frames != 0).any(dim=-1)
    return sounding.flip(1).cummax(dim=1).values.flip(1)


def _change_rate(codes: Tensor, valid: Tensor) -> Tensor:
    """Share of neighbouring positions whose joint codes [B, S, G] differ."""
    changed = (codes[:, 1:] != codes[:, :-1]).any(dim=-1)
    return changed[valid[:, 1:]].float().mean()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = SemanticConfig()
    parser.add_argument("--data", type=Path, action="append", required=True, help="corpus folder; may be repeated")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop-s", type=float, default=8.0)
    parser.add_argument("--warp", type=float, default=0.0, help="frequency warping of the context side; 0.1 for speech")
    parser.add_argument("--target-cepstra", type=int, default=13, help="cosines over mel in the first targets; 0 = all")
    parser.add_argument("--start-crops", type=int, default=96, help="crops for log-mel statistics and first targets")
    parser.add_argument(
        "--fixed-target-steps", type=int, default=5000, help="steps before the quantizer learns; 0 = from the start"
    )
    parser.add_argument("--no-centre-targets", dest="centre_targets", action="store_false", help="for music")
    for name in (
        "num_mels", "n_fft", "width", "num_heads", "feed_forward", "num_contrastive_layers", "num_masked_layers",
        "tap_layer", "codebook_groups", "codebook_entries",
    ):  # fmt: skip
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--dropout", type=float, default=0.0)


def build(args: argparse.Namespace) -> SemanticTask:
    config = SemanticConfig(
        num_mels=args.num_mels, n_fft=args.n_fft, width=args.width, num_heads=args.num_heads,
        feed_forward=args.feed_forward, num_contrastive_layers=args.num_contrastive_layers,
        num_masked_layers=args.num_masked_layers, tap_layer=args.tap_layer, codebook_groups=args.codebook_groups,
        codebook_entries=args.codebook_entries, centre_targets=args.centre_targets, dropout=args.dropout,
    )  # fmt: skip
    return SemanticTask(config, [Corpus(folder) for folder in args.data], args)
