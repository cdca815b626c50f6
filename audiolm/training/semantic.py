"""Pre-trains the semantic encoder: w2v-BERT on random crops of a corpus, for speech also on phones that are known.

With `--phones` a linear map from the tapped layer says which phone of an aligned transcript is heard. AudioLM knows no
text in training; but features of hours of speech, not of its tens of thousands, hold more of the voice than of the
words. AudioPaLM (USM-v2, arXiv 2306.12925) and CosyVoice (arXiv 2407.05407) train their tokens on transcripts too.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.audio.resample import at_speed, least_length_for
from audiolm.checkpoints.format import read_run
from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC, SemanticConfig
from audiolm.data.corpus import Corpus, Crop
from audiolm.data.phones import NUM_LABELS, UNKNOWN, PhoneLabels
from audiolm.errors import DataError, TrainingError
from audiolm.semantic.w2vbert import Views, W2vBert, W2vBertEncoder, normalise_level, span_mask
from audiolm.training.loop import Task, require

COMPONENT = "w2vbert"
DIVERSITY_WEIGHT = 0.1
START_TEMPERATURE, END_TEMPERATURE, TEMPERATURE_DECAY = 2.0, 0.5, 0.9985
NUM_VALIDATION_BATCHES = 3
PHONE_SMOOTHING = 0.1
WIDEST_MASK = 10  # mel bands
SPEED_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class SemanticBatch:
    """Level-normalised crops in two versions, hidden positions and sounding positions [B, S]."""

    views: Views
    mask: Tensor
    valid: Tensor
    phones: Tensor | None = None  # labels of `audiolm.data.phones` [B, S]


@dataclass(frozen=True)
class Augmentation:
    """What the context side hears differently from the target side; `warp` is for speech, where pitch is no content."""

    warp: float = 0.0  # largest relative change of the frequency axis
    gain_db: float = 4.0
    tilt: float = 0.5  # largest coefficient of a one-zero filter
    noise_probability: float = 0.5
    noise_db: tuple[float, float] = (-40.0, -10.0)  # relative to the level of the crop
    masked_bands: int = 0  # runs of up to `WIDEST_MASK` mel bands

    def __call__(self, clean: Tensor, num_mels: int, generator: torch.Generator) -> Views:
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
        masked = None
        if self.masked_bands:
            masked = band_mask(rows, num_mels, self.masked_bands, generator).to(clean.device)
        return Views(clean, noisy, warps, masked)


class SemanticTask(Task):
    """Contrastive + masked-prediction + diversity loss of `W2vBert`, and that of the phones where they are known."""

    component = COMPONENT

    def __init__(self, config: SemanticConfig, corpora: list[Corpus], args: argparse.Namespace) -> None:
        self.config = config
        self.device = torch.device(args.device)
        self.made_for: dict[str, str] = {}
        self.batch_size = args.batch_size
        self.fixed_target_steps = args.fixed_target_steps
        self.length = round(args.crop_s * SAMPLE_RATE_HZ) // SAMPLES_PER_SEMANTIC * SAMPLES_PER_SEMANTIC
        self.augmentation = Augmentation(warp=args.warp, masked_bands=args.masked_bands)
        self.speeds = args.speeds
        self.masked_share, self.phone_weight = args.masked_share, args.phones
        min_length = min(self.length, 2 * SAMPLE_RATE_HZ)
        self.sources = CorpusMixture(corpora, min_length, with_phones=self.phone_weight > 0)
        self.shipped = W2vBert(config).to(self.device)
        self.modules = nn.ModuleDict({"model": self.shipped})
        if self.phone_weight > 0:
            self.modules["phones"] = nn.Linear(config.width, NUM_LABELS).to(self.device)
        generator = torch.Generator().manual_seed(args.seed)
        crops = self.sources.crops("train", self.length, args.start_crops, generator)[0].to(self.device)
        if args.init is not None:
            start_from(args.init, self.shipped.encoder)
        num_cepstra = args.target_cepstra or config.num_mels
        self.shipped.fit(normalise_level(crops), sounding_positions(crops), num_cepstra, generator)

    def batch(self, generator: torch.Generator) -> SemanticBatch:
        return self._batch("train", generator, self.augmentation)

    def loss(self, group: str, batch: SemanticBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        temperature = None
        if step >= self.fixed_target_steps:
            decayed = START_TEMPERATURE * TEMPERATURE_DECAY ** (step - self.fixed_target_steps)
            temperature = max(END_TEMPERATURE, decayed)
        output = self.shipped(batch.views, batch.mask, batch.valid, temperature)
        total = output.contrastive_loss + output.masked_loss + DIVERSITY_WEIGHT * output.diversity_loss
        figures: dict[str, float | Tensor] = {}
        if batch.phones is not None:
            loss, accuracy = self._phones(output.tapped, batch.phones)
            total = total + self.phone_weight * loss
            figures = {"phones": loss.detach(), "phone_accuracy": accuracy}
        return total, figures | {
            "contrastive": output.contrastive_loss.detach(),
            "masked": output.masked_loss.detach(),
            "contrastive_accuracy": output.contrastive_accuracy,
            "masked_accuracy": output.masked_accuracy,
            "code_perplexity": output.code_perplexity,
        }

    def validate(self) -> dict[str, float]:
        """Clean crops of the validation split, the same ones at every call; `loss` counts phones as training does."""
        generator = torch.Generator().manual_seed(1)
        sums: dict[str, float] = {}
        for _ in range(NUM_VALIDATION_BATCHES):
            batch = self._batch("valid", generator, None)
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
            if batch.phones is not None:  # nothing hidden, as the tokenizer will read
                output = self.shipped(batch.views, torch.zeros_like(batch.mask), batch.valid)
                figures["phones"], figures["phone_accuracy"] = self._phones(output.tapped, batch.phones)
                figures["loss"] = figures["loss"] + self.phone_weight * figures["phones"]
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value) / NUM_VALIDATION_BATCHES
        return sums

    def _phones(self, tapped: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and accuracy over the positions whose phone is known; 0 where none is."""
        known = labels != UNKNOWN
        logits = self.modules["phones"](tapped[known]).float()
        if not len(logits):
            return logits.sum(), logits.sum()
        loss = F.cross_entropy(logits, labels[known], label_smoothing=PHONE_SMOOTHING)
        return loss, (logits.argmax(dim=-1) == labels[known]).float().mean()

    def _batch(self, split: str, generator: torch.Generator, augmentation: Augmentation | None) -> SemanticBatch:
        speed = 1.0 if augmentation is None else self._draw_speed(generator)
        crops, phones = self.sources.crops(split, self.length, self.batch_size, generator, speed)
        crops = crops.to(self.device)
        valid = sounding_positions(crops)
        clean = normalise_level(crops)
        views = Views(clean, clean) if augmentation is None else augmentation(clean, self.config.num_mels, generator)
        mask = span_mask(crops.shape[0], valid.shape[1], generator, self.masked_share).to(crops.device)
        return SemanticBatch(views, mask, valid, None if phones is None else phones.to(crops.device))

    def _draw_speed(self, generator: torch.Generator) -> float:
        """One for a whole batch; with a single speed the generator's state stays."""
        choice = torch.randint(len(self.speeds), (), generator=generator) if len(self.speeds) > 1 else 0
        return self.speeds[int(choice)]


class CorpusMixture:
    """Crops over several corpora, each in proportion to its hours, without items shorter than `min_length` samples.

    Raises DataError where phones are asked for and a corpus was not aligned.
    """

    def __init__(self, corpora: list[Corpus], min_length: int, with_phones: bool = False) -> None:
        self.corpora = corpora
        self.labels = [PhoneLabels(corpus) for corpus in corpora] if with_phones else None
        self.items = {
            split: [[item for item in corpus.select(split=split) if item.length >= min_length] for corpus in corpora]
            for split in ("train", "valid")
        }
        self.totals = {
            split: torch.tensor([float(sum(item.length for item in chosen)) for chosen in items])
            for split, items in self.items.items()
        }

    def crops(
        self, split: str, length: int, count: int, generator: torch.Generator, speed: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """[count, length] float32, short items zero-padded at their end, and their phones [count, length // 640].

        Of about `speed * length` samples of each, played so much faster and higher (speed perturbation, Ko et al.,
        2015). No phones where none were asked for. Raises DataError without any items.
        """
        crops, phones, heard = [], [], least_length_for(length, speed)
        for index, crop in self._draw(split, heard, count, generator):
            crops.append(self.corpora[index].read([crop], heard))
            if self.labels is not None:
                phones.append(self.labels[index].at(crop, length // SAMPLES_PER_SEMANTIC, speed))
        played = at_speed(torch.cat(crops), speed)[:, :length]
        return played, torch.stack(phones) if phones else None

    def _draw(self, split: str, length: int, count: int, generator: torch.Generator) -> list[tuple[int, Crop]]:
        items, totals = self.items[split], self.totals[split]
        if float(totals.sum()) == 0.0:
            raise DataError(f"no item of the split {split!r} is long enough")
        drawn = torch.multinomial(totals, count, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(items)).tolist()
        return [
            (index, crop)
            for index, n in enumerate(counts)
            if n > 0
            for crop in self.corpora[index].draw(items[index], length, n, generator)
        ]


def start_from(folder: Path, encoder: W2vBertEncoder) -> None:
    """The layers of a tokenizer's or an encoder's run, as many as it has; the log-mel statistics are the corpus's own.

    Layers beyond them only normalise at first, so that an encoder can be made deeper.
    Raises CheckpointError for an unreadable folder, TrainingError for a run of another component, of other sizes or
    without such layers.
    """
    component, _, tensors, _ = read_run(folder)
    own, wanted = layers_of(folder, component, tensors), encoder.state_dict()
    own = {name: value for name, value in own.items() if name in wanted and not name.startswith("log_mel.")}
    if unlike := [name for name, value in own.items() if value.shape != wanted[name].shape]:
        raise TrainingError(f"{folder} does not fit this encoder: other sizes of {', '.join(unlike[:3])}")
    num_held = len({name.split(".")[1] for name in own if name.startswith("layers.")})
    if not num_held:
        raise TrainingError(f"{folder} holds no layer of this kind of encoder")
    encoder.load_state_dict(own, strict=False)
    for layer in encoder.layers[num_held:]:
        layer.zero_residual_branches()


def layers_of(folder: Path, component: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the layers in that of a tokenizer's or an encoder's run. Raises TrainingError for another one's."""
    prefix = {"semantic": "extractor.", COMPONENT: "encoder."}.get(component)
    if prefix is None:
        raise TrainingError(f"{folder} holds a run of {component!r}, neither 'semantic' nor {COMPONENT!r}")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def sounding_positions(crops: Tensor) -> Tensor:
    """crops [B, T] -> [B, T // 640] bool: positions before the run of zeros that pads a short item."""
    num_positions = crops.shape[1] // SAMPLES_PER_SEMANTIC
    frames = crops[:, : num_positions * SAMPLES_PER_SEMANTIC].unflatten(1, (num_positions, SAMPLES_PER_SEMANTIC))
    sounding = (frames != 0).any(dim=-1)
    return sounding.flip(1).cummax(dim=1).values.flip(1)


def band_mask(rows: int, num_mels: int, count: int, generator: torch.Generator) -> Tensor:
    """[rows, num_mels] bool: `count` runs of up to `WIDEST_MASK` bands in every row, at random places."""
    bands = torch.arange(num_mels)
    widths = torch.randint(0, min(WIDEST_MASK, num_mels) + 1, (rows, count, 1), generator=generator)
    starts = (torch.rand(rows, count, 1, generator=generator) * (num_mels + 1 - widths)).long()
    return ((bands >= starts) & (bands < starts + widths)).any(dim=1)


def _change_rate(codes: Tensor, valid: Tensor) -> Tensor:
    """Share of neighbouring positions whose joint codes [B, S, G] differ."""
    changed = (codes[:, 1:] != codes[:, :-1]).any(dim=-1)
    return changed[valid[:, 1:]].float().mean()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = SemanticConfig()
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="corpus folders")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop-s", type=float, default=8.0)
    parser.add_argument("--warp", type=float, default=0.0, help="frequency warping of the context side; 0.1 for speech")
    parser.add_argument(
        "--speeds", type=float, nargs="+", default=[1.0], help="a batch is played at one of these; 0.9 1 1.1 for speech"
    )
    parser.add_argument(
        "--masked-bands", type=int, default=0, help=f"runs of up to {WIDEST_MASK} masked mel bands; 2 for speech"
    )
    parser.add_argument("--target-cepstra", type=int, default=13, help="cosines over mel in the first targets; 0 = all")
    parser.add_argument("--start-crops", type=int, default=96, help="crops for log-mel statistics and first targets")
    parser.add_argument(
        "--fixed-target-steps", type=int, default=5000, help="steps before the quantizer learns; 0 = from the start"
    )
    parser.add_argument(
        "--init",
        type=Path,
        help="run of a semantic tokenizer or encoder whose layers to start from; those it lacks only normalise first",
    )
    parser.add_argument(
        "--phones",
        type=float,
        default=0.0,
        help="weight of the loss on phones (`audiolm.data phones`); 0: none",
    )
    parser.add_argument("--masked-share", type=float, default=0.12, help="of positions that start a hidden span")
    parser.add_argument("--no-centre-targets", dest="centre_targets", action="store_false", help="for music")
    for name in (
        "num_mels", "n_fft", "width", "num_heads", "feed_forward", "num_contrastive_layers", "num_masked_layers",
        "tap_layer", "codebook_groups", "codebook_entries",
    ):  # fmt: skip
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--dropout", type=float, default=0.0)


def build(args: argparse.Namespace) -> SemanticTask:
    """Raises TrainingError for options that cannot be, DataError and CheckpointError for unreadable folders."""
    low, high = SPEED_RANGE
    for speed in args.speeds:
        require(low <= speed <= high, "--speeds", f"{low:g} to {high:g}", speed)
    require(args.masked_bands >= 0, "--masked-bands", "at least 0", args.masked_bands)
    require(0 <= args.warp < 1, "--warp", "at least 0 and under 1", args.warp)
    require(0 <= args.phones < math.inf, "--phones", "at least 0 and finite", args.phones)
    config = SemanticConfig(
        num_mels=args.num_mels, n_fft=args.n_fft, width=args.width, num_heads=args.num_heads,
        feed_forward=args.feed_forward, num_contrastive_layers=args.num_contrastive_layers,
        num_masked_layers=args.num_masked_layers, tap_layer=args.tap_layer, codebook_groups=args.codebook_groups,
        codebook_entries=args.codebook_entries, centre_targets=args.centre_targets, dropout=args.dropout,
    )  # fmt: skip
    return SemanticTask(config, [Corpus(folder) for folder in args.data], args)
