"""Trains the codec: spectral losses, the residual quantizer after a start without it, optionally against
discriminators, and with frozen tokens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiolm.audio.distortion import si_sdr_db
from audiolm.checkpoints.format import read_run
from audiolm.codec.balancer import LossBalancer
from audiolm.codec.discriminators import MagnitudeDiscriminator, StftDiscriminator, discriminator_loss, generator_losses
from audiolm.codec.losses import MagnitudeLosses, SpectralLosses
from audiolm.codec.model import Codec, CodecOutput, without_phases
from audiolm.config import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    CodecConfig,
    FrameBackboneConfig,
    QuantizerConfig,
    SeanetConfig,
)
from audiolm.data.corpus import Corpus
from audiolm.errors import TrainingError
from audiolm.nn.quantize import draw_levels, perplexity
from audiolm.training.loop import Task
from audiolm.training.runs import load_weights, read_state

# Shares of the gradient at the output, by the loss balancer.
WEIGHTS = {"mel": 2.0, "complex": 0.5, "waveform": 0.3, "adversarial": 0.5, "matching": 1.0}
MAGNITUDE_WEIGHTS = {"mel": 1.0, "compressed": 1.0, "linear": 0.5}  # where phases are reconstructed
MAGNITUDE_ADVERSARIAL_WEIGHTS = {**MAGNITUDE_WEIGHTS, "adversarial": 0.5, "matching": 1.0}
COMMITMENT_WEIGHT = 0.25
QUANTIZE_FROM_STEP = 300
NUM_START_BATCHES = 16
GAIN_RANGE_DB = (-8.0, 4.0)
VALIDATION_CROPS, VALIDATION_S = 24, 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="corpus folders")
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--crop-s", type=float, default=1.0)
    parser.add_argument("--backbone", choices=("frame", "seanet"), default="frame")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--n-fft", type=int, default=640, help="window of the frame backbone; 960 for piano")
    parser.add_argument(
        "--phase", choices=("predicted", "reconstructed"), default="predicted", help="reconstructed: code no phases"
    )
    parser.add_argument("--channels", type=int, default=16, help="base channels of the SEANet backbone")
    parser.add_argument("--levels", type=int, default=12)
    parser.add_argument("--init", type=Path, help="run folder whose weights to start from")
    parser.add_argument("--adversarial", action="store_true", help="train the decoder against discriminators")
    parser.add_argument("--heard", type=float, default=0.0, help="share of a loss on the sound after phases are found")
    parser.add_argument("--freeze-tokens", action="store_true", help="leave encoder and quantizer as they are")


def build(args: argparse.Namespace) -> CodecTask:
    config = CodecConfig(
        backbone=args.backbone,
        frame=FrameBackboneConfig(width=args.width, n_fft=args.n_fft, phase=args.phase),
        seanet=SeanetConfig(base_channels=args.channels),
        quantizer=QuantizerConfig(num_levels=args.levels),
        num_coarse_levels=min(4, args.levels),
    )
    codec = Codec(config)
    if args.heard and not codec.is_phase_free:
        raise TrainingError("--heard is for --phase reconstructed: other codecs are trained on what is heard anyway")
    converted = args.init is not None and codec.is_phase_free and _predicts_phases(args.init)
    if converted and args.freeze_tokens:
        raise TrainingError(f"--freeze-tokens: {args.init} has tokens with phases, of no use to a codec without them")
    if args.init is not None:
        load_weights(args.init, "codec", codec, without_phases if converted else None)
    source = args.out if args.resume else args.init
    ready = args.freeze_tokens or (source is not None and _quantizer_ready(source) and (args.resume or not converted))
    return CodecTask(codec, [Corpus(folder) for folder in args.data], args, quantizer_ready=ready)


def _predicts_phases(run: Path) -> bool:
    """Whether a run is a frame codec whose tokens carry phases."""
    component, values, _, _ = read_run(run)
    if component != "codec":
        return False
    config = CodecConfig.from_dict(values)
    return config.backbone == "frame" and config.frame.phase == "predicted"


def _quantizer_ready(run: Path) -> bool:
    """Whether a run's codebooks have had their k-means start; its own steps tell where it does not say so."""
    state = read_state(run)
    return state.get("quantizer_ready", state["step"] >= QUANTIZE_FROM_STEP)


def _discriminator(codec: Codec) -> nn.Module:
    """Of what the codec is trained by: waveforms, or magnitudes where phases are reconstructed."""
    return MagnitudeDiscriminator(codec.config.frame.n_fft) if codec.is_phase_free else StftDiscriminator()


class CodecTask(Task):
    """Spectral reconstruction; with `--adversarial` also hinge losses and feature matching."""

    component = "codec"

    def __init__(self, codec: Codec, corpora: list[Corpus], args: argparse.Namespace, quantizer_ready: bool) -> None:
        self.config, self.made_for = codec.config, {}
        self.device, self.batch_size = args.device, args.batch_size
        self.crop = round(args.crop_s * SAMPLE_RATE_HZ)
        self.corpora = [(corpus, corpus.select(split="train"), corpus.select(split="valid")) for corpus in corpora]
        self.lengths = torch.tensor([float(sum(item.length for item in train)) for _, train, _ in self.corpora])
        self.shipped = codec.to(self.device)
        self.modules = nn.ModuleDict({"codec": codec})
        self.frozen = args.freeze_tokens
        if self.frozen:
            codec.encoder.requires_grad_(False)
        if args.adversarial:
            self.modules["discriminator"] = _discriminator(codec).to(self.device)
        self.weights = WEIGHTS
        if codec.is_phase_free:
            self.weights = MAGNITUDE_ADVERSARIAL_WEIGHTS if args.adversarial else MAGNITUDE_WEIGHTS
        if args.heard:
            self.weights = {**self.weights, "heard": args.heard}
        self.modules["balancer"] = LossBalancer(self.weights).to(self.device)
        self.spectral = SpectralLosses().to(self.device)
        self.magnitude = MagnitudeLosses(codec.config.frame.n_fft).to(self.device) if codec.is_phase_free else None
        self.quantizer_ready = quantizer_ready
        self.start_latents: list[Tensor] = []
        self.output: CodecOutput | None = None  # of this step's discriminator loss, for the codec's
        self.generator = torch.Generator().manual_seed(args.seed + 1)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {"codec": [p for p in self.modules["codec"].parameters() if p.requires_grad]}
        if "discriminator" in self.modules:
            groups = {"discriminator": list(self.modules["discriminator"].parameters()), **groups}
        return groups

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """Crops [B, T] drawn from the corpora in proportion to their length, with random gain."""
        picks = torch.multinomial(self.lengths, self.batch_size, replacement=True, generator=generator)
        counts = torch.bincount(picks, minlength=len(self.lengths))
        crops = [
            corpus.crops(train, self.crop, int(count), generator)
            for (corpus, train, _), count in zip(self.corpora, counts, strict=True)
            if count
        ]
        low, high = GAIN_RANGE_DB
        gain_db = low + (high - low) * torch.rand(self.batch_size, 1, generator=generator)
        waveforms = (torch.cat(crops) * 10 ** (gain_db / 20)).clamp(-1, 1).to(self.device)
        levels = draw_levels(self.batch_size, self.config.quantizer, generator).to(self.device)
        return {"waveforms": waveforms, "levels": levels}

    def loss(self, group: str, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        if group == "discriminator":
            output = self.output = self._decode(batch)
            discriminator = self.modules["discriminator"]
            real, fake = discriminator(self._target(batch)), discriminator(output.reconstruction.detach())
            return discriminator_loss(real, fake), {}
        output, self.output = self.output or self._decode(batch), None
        if not self.quantizer_ready:
            self.start_latents = [*self.start_latents, output.latents.detach().reshape(-1, output.latents.shape[-1])]
            self.start_latents = self.start_latents[-NUM_START_BATCHES:]
        losses = self._losses(output.reconstruction, batch["waveforms"])
        if "discriminator" in self.modules:
            discriminator = self.modules["discriminator"]
            with torch.no_grad():
                real = discriminator(self._target(batch))
            losses["adversarial"], losses["matching"] = generator_losses(real, discriminator(output.reconstruction))
        total = self.modules["balancer"](losses, output.reconstruction)
        if not self.frozen:
            losses["commitment"] = output.commitment_loss
            total = total + COMMITMENT_WEIGHT * output.commitment_loss
        figures = {name: value.detach() for name, value in losses.items()}
        weights = {**self.weights, "commitment": COMMITMENT_WEIGHT}
        return total, {"codec_loss": sum(weights[name] * value for name, value in figures.items()), **figures}

    def after_step(self, step: int) -> None:
        if not self.quantizer_ready and step + 1 >= QUANTIZE_FROM_STEP:
            self.shipped.quantizer.initialise(torch.cat(self.start_latents), self.generator)
            self.quantizer_ready, self.start_latents = True, []

    def state(self) -> dict[str, Any]:
        return {"quantizer_ready": self.quantizer_ready}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses at all and at the coarse levels, SI-SDR in dB, perplexity of the first and the last level."""
        codec = self.shipped
        waveforms = self._validation_crops()
        codes = codec.encode(waveforms)
        waveforms = waveforms[:, : codes.shape[1] * SAMPLES_PER_FRAME]
        full = codec.decode(codes)
        coarse = codec.decode(codes[..., : self.config.num_coarse_levels])
        losses, coarse_losses = self.spectral(full, waveforms), self.spectral(coarse, waveforms)
        use = perplexity(codes, codec.codebook_size)
        judged = ("mel",) if codec.is_phase_free else tuple(losses)
        return {
            "loss": float(sum(WEIGHTS[name] * losses[name] for name in judged)),
            **{name: float(value) for name, value in losses.items()},
            "coarse_mel": float(coarse_losses["mel"]),
            "si_sdr_db": float(si_sdr_db(full, waveforms).mean()),
            "coarse_si_sdr_db": float(si_sdr_db(coarse, waveforms).mean()),
            "perplexity_first": float(use[0]),
            "perplexity_last": float(use[-1]),
        }

    def _losses(self, reconstruction: Tensor, waveforms: Tensor) -> dict[str, Tensor]:
        if self.magnitude is None:
            return self.spectral(reconstruction, waveforms)
        losses = self.magnitude(reconstruction, self.shipped.encoder.spectra(waveforms))
        if "heard" in self.weights:  # a smooth magnitude is near every one that it may be, but no phases fit it
            sound = self.shipped.decoder.sound(reconstruction)[:, : waveforms.shape[-1]]
            losses["heard"] = self.spectral(sound, waveforms)["mel"]
        return losses

    def _target(self, batch: dict[str, Any]) -> Tensor:
        """What a reconstruction is to be like: the waveforms, or their log magnitudes where there are no phases."""
        if self.magnitude is None:
            return batch["waveforms"]
        return torch.log(self.shipped.encoder.spectra(batch["waveforms"]).abs() + 1e-9)

    def _decode(self, batch: dict[str, Any]) -> CodecOutput:
        quantizer = self.shipped.quantizer
        quantizer.train(not self.frozen)
        return self.shipped(batch["waveforms"], quantize=self.quantizer_ready, levels=batch["levels"])

    def _validation_crops(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        length = round(VALIDATION_S * SAMPLE_RATE_HZ)
        count = VALIDATION_CROPS // len(self.corpora)
        crops = [corpus.crops(valid, length, count, generator) for corpus, _, valid in self.corpora]
        return torch.cat(crops).to(self.device)
