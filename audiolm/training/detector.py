"""Trains the detector on generated and original clips, then calibrates it and measures its errors on held-out ones."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.audio.loudness import rms_db
from audiolm.audio.spectra import log_mel
from audiolm.checkpoints.components import MADE_FOR
from audiolm.config import SAMPLE_RATE_HZ, DetectorConfig
from audiolm.data.pairs import SPLITS, PairSet
from audiolm.detector import Detector
from audiolm.detector.calibration import (
    calibrate,
    calibration_error,
    equal_error_rate,
    fit_platt,
)
from audiolm.detector.verdict import MIN_SOUND_S, sounding_s
from audiolm.errors import TrainingError
from audiolm.intervals import wilson_interval
from audiolm.training.loop import Task
from audiolm.training.runs import load_run, write_run

CROP_S = (1.0, 1.5, 2.0, 3.0, 4.0)
SEGMENT_WEIGHT = 0.5
MEASURE_SEED = 1
BATCH_ROWS = 16
DRAWS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder made by detector-data")
    parser.add_argument("--batch-size", type=int, default=32, help="crops a step, half of them generated")
    parser.add_argument("--channels", type=int, nargs="+", default=list(DetectorConfig.channels))
    parser.add_argument("--mels", type=int, default=DetectorConfig.num_mels)
    parser.add_argument("--dropout", type=float, default=DetectorConfig.dropout)


def build(args: argparse.Namespace) -> DetectorTask:
    """Raises DataError where the folder lacks a split, ConfigError for impossible sizes."""
    sets = {split: PairSet(args.data, split) for split in SPLITS}
    config = DetectorConfig(num_mels=args.mels, channels=tuple(args.channels), dropout=args.dropout)
    return DetectorTask(Detector(config).to(args.device), sets, args.batch_size)


@dataclass(frozen=True)
class Clips:
    """waveforms [B, T] (one length) and labels [B], 1 for generated."""

    waveforms: Tensor
    labels: Tensor


class DetectorTask(Task):
    """Binary cross-entropy of the clip's and of every segment's logit, on crops of 1 to 4 s.

    Each crop comes with its counterpart of the other kind from the same place, and both pass through random gain, band
    limits and faint noise, so that level, length, silences, bandwidth and noise floor tell little.
    """

    def __init__(self, model: Detector, sets: dict[str, PairSet], batch_size: int) -> None:
        if batch_size < 2:
            raise TrainingError(f"the batch size must be at least 2 (a generated and an original), found {batch_size}")
        self.component, self.config = "detector", model.config
        self.model, self.shipped = model, model
        self.modules = nn.ModuleDict({"model": model})
        self.sets, self.batch_size = sets, batch_size
        self.made_for = _made_for(sets)
        self.device = model.output.weight.device
        self._validation: list[Clips] | None = None

    def batch(self, generator: torch.Generator) -> Clips:
        clips = draw_clips(self.sets["train"], self.batch_size // 2, generator)
        return self._to_device(replace(clips, waveforms=augment(clips.waveforms, generator)))

    def loss(self, group: str, batch: Clips, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        segments = self.model.segment_logits(batch.waveforms).float()
        clip = segments.mean(dim=1)
        clip_loss = F.binary_cross_entropy_with_logits(clip, batch.labels)
        wanted = batch.labels[:, None].expand_as(segments)
        loss = clip_loss + SEGMENT_WEIGHT * F.binary_cross_entropy_with_logits(segments, wanted)
        return loss, {"clip_loss": clip_loss.detach(), "accuracy": _accuracy(clip.detach(), batch.labels)}

    def validate(self) -> dict[str, float]:
        """On fixed crops of the split valid, as they are: no augmentation."""
        if self._validation is None:
            self._validation = held_out_clips(self.sets["valid"])
        logits, labels = score(self.model, self._validation)
        return {
            "loss": float(F.binary_cross_entropy_with_logits(logits, labels)),
            "accuracy": float(_accuracy(logits, labels)),
            "equal_error_rate": equal_error_rate(logits, labels),
        }

    def finish(self, folder: Path) -> dict[str, float]:
        """Calibrates the weights that ship on the split valid, measures them on test, and writes both into the run.

        The figures also go to `log.jsonl`, with those of shortcut models: what level, silence, offset or bandwidth
        alone would reach on the same clips.
        """
        _, model, made_for = load_run(folder, self.device)
        valid, test = (held_out_clips(self.sets[split]) for split in ("valid", "test"))
        on_valid, on_test = score(model, valid), score(model, test)
        calibration = calibrate(on_valid, on_test)
        self.config = replace(model.config, calibration=calibration)
        write_run(folder, self.component, model, self.config, made_for)
        probabilities = torch.sigmoid(calibration.scale * on_test[0] + calibration.bias)
        labels = on_test[1]
        decided = (probabilities <= calibration.uncertain_low) | (probabilities >= calibration.uncertain_high)
        wrong = int(((probabilities >= calibration.threshold) != labels.bool()).sum())
        low, high = wilson_interval(wrong, len(labels))
        figures = {
            "test_accuracy": 1 - wrong / len(labels),
            "test_accuracy_low": 1 - high,
            "test_accuracy_high": 1 - low,
            "test_false_positive_rate": calibration.false_positive_rate or 0.0,
            "test_false_negative_rate": calibration.false_negative_rate or 0.0,
            "test_num_originals": calibration.num_originals,
            "test_num_generated": calibration.num_generated,
            "test_equal_error_rate": equal_error_rate(on_test[0], labels),
            "test_calibration_error": calibration_error(probabilities, labels),
            "test_decided_share": float(decided.float().mean()),
        }
        figures |= shortcut_accuracies(held_out_clips(self.sets["train"]), test)
        with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"kind": "test", **figures}) + "\n")
        return figures

    def _to_device(self, clips: Clips) -> Clips:
        return Clips(clips.waveforms.to(self.device), clips.labels.to(self.device))


def _made_for(sets: dict[str, PairSet]) -> dict[str, str]:
    """The hashes of the codec and the stages that made the pairs. Raises TrainingError where the folder lacks one."""
    made_for = sets["train"].meta.get("made_for", {})
    if lacking := [name for name in MADE_FOR["detector"] if name not in made_for]:
        raise TrainingError(f"the pairs do not say which {', '.join(lacking)} made them; make them again")
    return {name: made_for[name] for name in MADE_FOR["detector"]}


def draw_clips(pairs: PairSet, count: int, generator: torch.Generator) -> Clips:
    """`count` pairs of crops of one random length from random places, near silence avoided where it can be."""
    lengths = crop_lengths(pairs)
    length = lengths[int(torch.randint(len(lengths), (1,), generator=generator))]
    crops = []
    for _ in range(count):
        for _ in range(DRAWS):
            row = int(torch.randint(pairs.num_rows, (1,), generator=generator))
            pair = _crop(pairs, row, length, generator)
            if bool((sounding_s(pair) >= MIN_SOUND_S).all()):
                break
        crops.append(pair)
    return Clips(torch.cat(crops), torch.tensor([1.0, 0.0]).repeat(count))


def held_out_clips(pairs: PairSet, seed: int = MEASURE_SEED) -> list[Clips]:
    """One fixed crop of every pair, of all lengths in turn, in batches of one length.

    Left out is what a verdict would be withheld for as near silence.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = crop_lengths(pairs)
    batches = []
    for index, first in enumerate(range(0, pairs.num_rows, BATCH_ROWS)):
        rows = range(first, min(first + BATCH_ROWS, pairs.num_rows))
        crops = torch.cat([_crop(pairs, row, lengths[index % len(lengths)], generator) for row in rows])
        heard = sounding_s(crops) >= MIN_SOUND_S
        batches.append(Clips(crops[heard], torch.tensor([1.0, 0.0]).repeat(len(rows))[heard]))
    return batches


def crop_lengths(pairs: PairSet) -> list[int]:
    """The lengths, in samples, that crops of these clips can have. Raises TrainingError where there are none."""
    lengths = [round(seconds * SAMPLE_RATE_HZ) for seconds in CROP_S]
    if not (fitting := [length for length in lengths if length <= pairs.length]):
        raise TrainingError(f"the clips have {pairs.length} samples; crops take at least {lengths[0]}")
    return fitting


def _crop(pairs: PairSet, row: int, length: int, generator: torch.Generator) -> Tensor:
    start = int(torch.randint(pairs.length - length + 1, (1,), generator=generator))
    return pairs.pair(row, start, length)


@torch.no_grad()
def score(model: Detector, batches: list[Clips]) -> tuple[Tensor, Tensor]:
    """-> (logits [N], labels [N]) on the CPU, float64."""
    device = model.output.weight.device
    logits = [model.logits(clips.waveforms.to(device)).double().cpu() for clips in batches]
    return torch.cat(logits), torch.cat([clips.labels for clips in batches]).double()


def augment(waveforms: Tensor, generator: torch.Generator) -> Tensor:
    """[B, T] -> [B, T]: per row a gain of -20..+6 dB, in one row of three a low pass at 2.5-7.5 kHz and a high pass at
    20-200 Hz, and in one of two white noise 25-60 dB below the clip."""
    rows, length = waveforms.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, generator=generator)

    spectrum = torch.fft.rfft(waveforms)
    frequency = torch.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ)[None]
    response = torch.sigmoid((uniform(2_500, 7_500) - frequency) / 100) * torch.sigmoid(
        (frequency - uniform(20, 200)) / 10
    )
    limited = uniform(0, 1) < 1 / 3
    waveforms = torch.where(limited, torch.fft.irfft(spectrum * response, length), waveforms)
    noise = torch.randn(rows, length, generator=generator) * waveforms.square().mean(dim=1, keepdim=True).sqrt()
    noisy = waveforms + noise * 10 ** (-uniform(25, 60) / 20)
    waveforms = torch.where(uniform(0, 1) < 0.5, noisy, waveforms)
    return waveforms * 10 ** (uniform(-20, 6) / 20)


def shortcut_accuracies(train: list[Clips], test: list[Clips]) -> dict[str, float]:
    """Accuracy on `test` of logistic models of one plain figure each, fitted on `train`: half is what chance gets."""
    before, after = ([shortcut_figures(clips.waveforms) for clips in batches] for batches in (train, test))
    labels = torch.cat([clips.labels for clips in train])
    wanted = torch.cat([clips.labels for clips in test]).bool()
    accuracies = {}
    for name in before[0]:
        x, y = (torch.cat([figures[name] for figures in batches]).double() for batches in (before, after))
        direction = 1.0 if float((x - x.mean()) @ (labels.double() - 0.5)) >= 0 else -1.0
        scale, bias = fit_platt(direction * x, labels)
        called = scale * direction * y + bias >= 0
        accuracies[f"shortcut_{name}"] = float((called == wanted).double().mean())
    return accuracies


def shortcut_figures(waveforms: Tensor) -> dict[str, Tensor]:
    """[B, T] -> plain figures [B] that must not suffice: level, share of silence, offset, bandwidth, duration."""
    frames = waveforms.unfold(1, SAMPLE_RATE_HZ // 50, SAMPLE_RATE_HZ // 50)
    levels = rms_db(frames)
    power = log_mel(waveforms, 80, hop_length=SAMPLE_RATE_HZ // 50).exp().square().mean(dim=2).cumsum(dim=1)
    return {
        "rms": rms_db(waveforms),
        "silence": (levels < levels.amax(dim=1, keepdim=True) - 40).float().mean(dim=1),
        "offset": waveforms.mean(dim=1).abs(),
        "bandwidth": (power < 0.99 * power[:, -1:]).float().sum(dim=1),
        "duration": torch.full((len(waveforms),), waveforms.shape[1] / SAMPLE_RATE_HZ),
    }


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits >= 0) == labels.bool()).float().mean()
