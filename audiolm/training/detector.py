"""Trains the detector on views of generated and original clips, calibrates it, and measures its errors on others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.checkpoints.components import MADE_FOR
from audiolm.checkpoints.format import as_shipped, read_run
from audiolm.config import SAMPLE_RATE_HZ, DetectorConfig
from audiolm.data.pairs import SPLITS, PairSet, shared_groups
from audiolm.data.views import STEP_SAMPLES, ViewSet
from audiolm.detector import Detector
from audiolm.detector.calibration import (
    BAND_ERROR,
    Scored,
    calibrate,
    calibration_error,
    equal_error_rate,
    fit_platt,
    fit_ridge,
    fit_weights,
    shares,
)
from audiolm.detector.ear import pool
from audiolm.detector.network import EVIDENCE_S, SEGMENT_SAMPLES, Reading, Views
from audiolm.detector.scope import fit_scope, scope_distances, scope_limit
from audiolm.detector.verdict import probability_of
from audiolm.errors import TrainingError
from audiolm.intervals import wilson_interval
from audiolm.training.loop import Task
from audiolm.training.runs import load_fitting, load_run, write_run

CROP_S = (1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 5.5, 6.0, 6.0)  # drawn as often as they stand here
SEGMENT_WEIGHT = 0.5
SINGLES_SHARE = 1 / 3  # of a batch: originals without a generated partner
STATISTICS_VIEWS = 400
CLIP_PENALTY, SEGMENT_PENALTY = 20.0, 100.0
EVERY_SEGMENT = 3  # neighbours share what they see: every third is enough to learn from
BATCH_ROWS = 32
MASKS = 2
MASKED_BANDS, MASKED_FRAMES = 10, 40  # at most, of a mask
LEVEL_SPREAD, FIGURE_SPREAD = 0.15, 0.1  # nats; standard deviations
LEAST_SPREAD = 0.01  # of a figure: views keep them in half precision, and what rounding moves says nothing

Chosen = Callable[[dict[str, Any]], bool]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder made by detector-data and detector-views")
    parser.add_argument("--batch-size", type=int, default=32, help="crops a step")
    parser.add_argument("--channels", type=int, nargs="+", default=list(DetectorConfig.channels))
    parser.add_argument("--heard-width", type=int, default=DetectorConfig.heard_width)
    parser.add_argument("--init", type=Path, help="run whose weights to start from, where their sizes fit")
    parser.add_argument("--dropout", type=float, default=DetectorConfig.dropout)
    parser.add_argument("--band-error", type=float, default=BAND_ERROR, help="most wrong outside the uncertain band")


def build(args: argparse.Namespace) -> DetectorTask:
    """Raises DataError where the folder lacks a split, ConfigError for impossible sizes, TrainingError where splits
    share a speaker or piece or have views of different kinds, for an impossible band, or as `DetectorTask`."""
    made_for = made_for_of(PairSet(args.data, "train"))
    views = {split: ViewSet(args.data, split) for split in SPLITS}
    if shared := shared_groups({split: {note["group"] for note in one.notes} for split, one in views.items()}):
        raise TrainingError(shared)
    if not 0.0 < args.band_error < 1.0:
        raise TrainingError(f"the band error is a share of the answers, found {args.band_error:g}")
    kinds = {(one.num_mels, one.num_figures, one.listener_version) for one in views.values()}
    if len(kinds) != 1:
        raise TrainingError(f"the splits have views of different kinds: {sorted(kinds)}; make them again")
    num_mels, num_heard, listener_version = kinds.pop()
    config = DetectorConfig(
        num_mels=num_mels,
        channels=tuple(args.channels),
        dropout=args.dropout,
        num_heard=num_heard,
        listener_version=listener_version,
        heard_width=args.heard_width,
    )
    model = Detector(config)
    if args.init is not None:
        take_over(model, args.init)
    return DetectorTask(model.to(args.device), views, made_for, args.batch_size, args.band_error)


def take_over(model: Detector, run: Path) -> None:
    """Weights of an earlier run's detector, where there are some of that name and size."""
    load_fitting(model, as_shipped(require_listener(run, model.config.listener_version)))


def require_listener(run: Path, listener_version: int) -> dict[str, Tensor]:
    """State dict of a detector's run. Raises CheckpointError where there is none, TrainingError where it is of
    something else or heard by another version of the listener."""
    component, config, tensors, _ = read_run(run)
    if component != "detector":
        raise TrainingError(f"{run} is a run of {component}, not of a detector")
    if (version := config.get("listener_version", 1)) != listener_version:
        raise TrainingError(f"{run} heard by listener version {version}, the views by {listener_version}")
    return tensors


def made_for_of(pairs: PairSet) -> dict[str, str]:
    """The hashes of the codec and the stages that made the pairs. Raises TrainingError where the folder lacks one."""
    made_for = pairs.meta.get("made_for", {})
    if lacking := [name for name in MADE_FOR["detector"] if name not in made_for]:
        raise TrainingError(f"the pairs do not say which {', '.join(lacking)} made them; make them again")
    return {name: made_for[name] for name in MADE_FOR["detector"]}


@dataclass(frozen=True)
class Batch:
    """What branches read of B clips of one length; the share of each that is generated [B], and by segment [B, N]."""

    views: Views
    labels: Tensor
    segments: Tensor


class DetectorTask(Task):
    """Binary cross-entropy of every branch's clip and segment logits, on crops of 1 to 6 s.

    A third of a batch are generated crops, a third their counterparts of the other kind from the same place, a third
    originals without a counterpart; both kinds weigh the same. In the end the ear's logits are fitted anew: by
    themselves, and to say what the log-mel branch leaves open (stacking, Wolpert 1992), of which the likelier stays: a
    log-mel branch that knows all its clips by heart leaves nothing.

    Raises TrainingError for too small a batch, or where there are no pairs.
    """

    def __init__(
        self,
        model: Detector,
        views: dict[str, ViewSet],
        made_for: dict[str, str],
        batch_size: int,
        band_error: float = BAND_ERROR,
    ) -> None:
        if batch_size < 3:
            raise TrainingError(f"the batch size must be at least 3 (a pair and an original), found {batch_size}")
        self.component, self.config = "detector", model.config
        self.model, self.shipped = model, model
        self.modules = nn.ModuleDict({"model": model})
        self.views, self.batch_size, self.band_error = views, batch_size, band_error
        self.made_for = made_for
        self.device = model.output.weight.device
        self.crops = Crops(views["train"])
        fit_statistics(model, views["train"])
        fit_clip_head(model, views["train"])

    def batch(self, generator: torch.Generator) -> Batch:
        batch = augment(self.crops.draw(self.batch_size, generator), generator)
        return Batch(batch.views.to(self.device), batch.labels.to(self.device), batch.segments.to(self.device))

    def loss(self, group: str, batch: Batch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        counted = shares(batch.labels > 0).float()
        total, figures = torch.zeros((), device=self.device), {}
        for name, reading in zip(("mel", "ear"), self.model.read(batch.views), strict=False):
            clips, segments = reading.clips.float(), reading.segments.float()
            clip_loss = F.binary_cross_entropy_with_logits(clips, batch.labels, counted, reduction="sum")
            of_segments = F.binary_cross_entropy_with_logits(segments, batch.segments, reduction="none").mean(dim=1)
            total = total + clip_loss + SEGMENT_WEIGHT * (counted * of_segments).sum()
            figures[f"{name}_clip_loss"] = clip_loss.detach()
        return total, figures

    def validate(self) -> dict[str, float]:
        """On whole clips of the split valid as they are. `loss` is what is left once the logits are calibrated.

        The ear is heard as gradient steps have it: its logits are fitted only in the end.
        """
        scored = score(self.model, self.views["valid"], is_whole)
        weights, _, _ = fit_weights(scored, EVIDENCE_S)
        fused = scored.logits @ weights
        scale, bias = fit_platt(fused, scored.labels)
        loss = F.binary_cross_entropy_with_logits(
            scale * fused + bias, scored.labels, shares(scored.labels), reduction="sum"
        )
        errors = {
            name: equal_error_rate(x, scored.labels) for name, x in zip(("mel", "ear"), scored.logits.T, strict=False)
        }
        return {"loss": float(loss), "equal_error_rate": equal_error_rate(fused, scored.labels)} | {
            f"{name}_equal_error_rate": error for name, error in errors.items()
        }

    def finish(self, folder: Path) -> dict[str, float]:
        """Fits the ear's logits, weighs the branches, calibrates on the split valid and measures on test.

        All of it goes into the run, the figures also to `log.jsonl`; those of changed clips are of the split valid,
        which chose scaling and band. Segments keep a scaling of clips as they are: their course is read, not values.
        """
        _, model, made_for = load_run(folder, self.device)
        stacked = self._fit_clips(model)
        model = with_scope(model, self.views["train"])
        write_run(folder, self.component, model, model.config, made_for)
        model = load_run(folder, self.device)[1]  # the limit is taken with the values that ship
        scored = score(model, self.views["valid"], lambda note: True)
        weights, growth, _ = fit_weights(scored, EVIDENCE_S)
        model.weights.copy_(weights)
        model.growth.fill_(growth)
        fit_segment_head(model, self.views["train"], stacked)
        write_run(folder, self.component, model, model.config, made_for)
        model = load_run(folder, self.device)[1]
        valid = fuse(model, score(model, self.views["valid"], is_unchanged))
        test = fuse(model, score(model, self.views["test"], is_of_pair))
        changed = fuse(model, score(model, self.views["valid"], is_changed))
        calibration = calibrate(valid, changed, test, float(valid.seconds.max()), self.band_error)
        scale, bias = fit_platt(*segments_of(model, self.views["valid"], is_whole))
        calibration = replace(calibration, segment_scale=scale, segment_bias=bias)
        scope = (one.cpu() for one in (model.scope_mean, model.scope_std, model.scope_map))
        limit = scope_limit(scope_distances(mean_figures(model, self.views["valid"]), *scope))
        self.config = replace(model.config, calibration=calibration, scope_limit=limit)
        write_run(folder, self.component, model, self.config, made_for)
        figures = {"weight_mel": float(weights[0]), "weight_ear": float(weights[1]), "growth": growth}
        for rates in calibration.by_length:
            figures |= {f"test_{rates.seconds:g}s_{name}": value for name, value in rates.to_dict().items()}
        for name, scores in {
            "test_whole": of_length(test, float(test.seconds.max())),
            "valid_changed": changed,
        }.items():
            figures |= {f"{name}_{key}": value for key, value in measure(self.config, scores).items()}
        with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"kind": "test", **figures}) + "\n")
        return figures

    def _fit_clips(self, model: Detector) -> bool:
        """Fits the ear's clip logit by itself and stacked, keeps what is likelier on the split valid -> whether that is
        the stacked one."""
        head, rows = model.ear.clip, clip_rows(model, self.views["train"], with_mel=True)
        fitted = []
        for mel in (None, rows.mel):
            fit_head(head, replace(rows, mel=mel), CLIP_PENALTY)
            _, _, loss = fit_weights(score(model, self.views["valid"], lambda note: True), EVIDENCE_S)
            fitted.append((loss, {name: value.clone() for name, value in head.state_dict().items()}))
        (alone_loss, alone), (stacked_loss, stacked) = fitted
        is_stacked = stacked_loss < alone_loss
        head.load_state_dict(stacked if is_stacked else alone)
        return is_stacked


def is_whole(note: dict[str, Any]) -> bool:
    return note["turn"] == 0


def is_of_one_kind(note: dict[str, Any]) -> bool:
    return note["kind"] != "spliced"


def is_unchanged(note: dict[str, Any]) -> bool:
    return not note["change"]


def is_of_pair(note: dict[str, Any]) -> bool:
    """What error rates are measured on: the same clips at every length."""
    return is_unchanged(note) and note["kind"] != "unpaired"


def is_changed(note: dict[str, Any]) -> bool:
    return note["turn"] > 0 and bool(note["change"])


class Crops:
    """Draws crops of views of one split: pairs of a generated or spliced clip and an original, and single originals.

    Raises TrainingError where there is no pair.
    """

    def __init__(self, views: ViewSet) -> None:
        self.views = views
        by_place: dict[tuple[int, int], dict[str, int]] = {}
        self.singles: list[int] = []
        for index, note in enumerate(views.notes):
            if note["kind"] == "unpaired":
                self.singles.append(index)
            else:
                kind = "original" if note["kind"] == "original" else "generated"
                by_place.setdefault((note["turn"], note["row"]), {})[kind] = index
        self.pairs = [(kinds["generated"], kinds["original"]) for kinds in by_place.values() if len(kinds) == 2]
        if not self.pairs:
            raise TrainingError("there is no view of a generated clip beside its original")

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """`count` crops of one random length, a third of them singles where there are any."""
        length = round(CROP_S[_draw(len(CROP_S), generator)] * SAMPLE_RATE_HZ)
        notes = self.views.notes
        longest = max(notes[index]["length"] for index, _ in self.pairs)
        length = min(length, longest)
        num_singles = round(count * SINGLES_SHARE) if self.singles else 0
        rows: list[tuple[int, int]] = []
        while len(rows) < count - num_singles - 1:
            generated, original = self.pairs[_draw(len(self.pairs), generator)]
            if notes[generated]["length"] >= length:
                start = self._start(generated, length, generator)
                rows += [(generated, start), (original, start)]
        while num_singles and len(rows) < count:
            single = self.singles[_draw(len(self.singles), generator)]
            if notes[single]["length"] >= length:
                rows.append((single, self._start(single, length, generator)))
        return self.batch(rows, length)

    def batch(self, rows: Iterable[tuple[int, int]], length: int) -> Batch:
        """rows: (view, first sample)."""
        crops = [(*self.views.crop(view, start, length), *self._labels(view, start, length)) for view, start in rows]
        mels, figures, labels, segments = (torch.stack(parts) for parts in zip(*crops, strict=True))
        return Batch(Views(mels, figures, length), labels, segments)

    def _start(self, view: int, length: int, generator: torch.Generator) -> int:
        places = (self.views.notes[view]["length"] - length) // STEP_SAMPLES + 1
        return STEP_SAMPLES * _draw(places, generator)

    def _labels(self, view: int, start: int, length: int) -> tuple[Tensor, Tensor]:
        """(generated share of a crop, of every segment: 0 or 1)."""
        note, centres = self.views.notes[view], SEGMENT_SAMPLES * torch.arange(length // SEGMENT_SAMPLES + 1)
        join = {"generated": 0, "spliced": note.get("join", 0)}.get(note["kind"])
        if join is None:
            return torch.tensor(0.0), torch.zeros(len(centres))
        share = min(1.0, max(0.0, (start + length - join) / length))
        return torch.tensor(share), (start + centres >= join).float()


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Other levels of the log-mel frames, some of their bands and frames hidden (SpecAugment, arXiv 1904.08779).

    Figures get a little noise.
    """
    mels = batch.views.mels + LEVEL_SPREAD * torch.randn(len(batch.labels), 1, 1, generator=generator)
    for row in mels:
        for axis, most in ((0, MASKED_BANDS), (1, MASKED_FRAMES)):
            for _ in range(MASKS):
                size = _draw(most + 1, generator)
                first = _draw(max(1, row.shape[axis] - size + 1), generator)
                row.narrow(axis, first, min(size, row.shape[axis])).fill_(float(row.mean()))
    spread = batch.views.figures.std(dim=(0, 2), keepdim=True)
    noise = torch.randn(batch.views.figures.shape, generator=generator)
    figures = batch.views.figures + FIGURE_SPREAD * spread * noise
    return replace(batch, views=Views(mels, figures, batch.views.num_samples))


def fit_statistics(model: Detector, views: ViewSet) -> None:
    """Mean and spread of the figures, from views spread evenly over the set."""
    step = max(1, len(views.notes) // STATISTICS_VIEWS)
    chosen = range(0, len(views.notes), step)
    frames = torch.cat([views.crop(index, 0, views.notes[index]["length"])[1] for index in chosen], dim=1)
    model.ear.mean.copy_(frames.mean(dim=1))
    model.ear.std.copy_(frames.std(dim=1).clamp_min(LEAST_SPREAD))


@dataclass(frozen=True)
class HeadRows:
    """What one of the ear's logits is fitted to: what it reads [N, E], labels [N], the log-mel branch's logits [N]."""

    x: Tensor
    labels: Tensor
    mel: Tensor | None


def fit_clip_head(model: Detector, views: ViewSet) -> None:
    """Has the ear's clip logit be a logistic regression, which gradient steps need long to reach."""
    fit_head(model.ear.clip, clip_rows(model, views, with_mel=False), CLIP_PENALTY)


def fit_segment_head(model: Detector, views: ViewSet, stacked: bool) -> None:
    """The same for the ear's logit of a segment, also of spliced views, after the branches have been weighed.

    `stacked`: it says what the log-mel branch's leaves open, at such a size that the weights, which are those of clips,
    add the two as they were fitted; unless one has no weight, or log-mel's is the wrong way round.
    """
    head, rows = model.ear.segment, segment_rows(model, views, with_mel=stacked)
    factor, (of_mel, of_ear) = fit_head(head, rows, SEGMENT_PENALTY), model.weights.tolist()
    if stacked and min(factor, of_mel, of_ear) > 0.0:
        for parameter in (head.weight, head.bias):
            parameter.data.mul_(of_mel / (factor * of_ear))
    elif stacked:
        fit_head(head, replace(rows, mel=None), SEGMENT_PENALTY)


def fit_head(head: nn.Linear, rows: HeadRows, penalty: float) -> float:
    """Writes a regression of the rows, stacked where they have log-mel's logits, into a head -> the factor of these."""
    middle, unit = rows.x.mean(dim=0), rows.x.std(dim=0).clamp_min(1e-3)
    ridge = fit_ridge((rows.x - middle) / unit, rows.labels, penalty, rows.mel)
    head.weight.data.copy_((ridge.weights / unit)[None])
    head.bias.data.fill_(ridge.bias - float((ridge.weights / unit) @ middle))
    return ridge.factor


@torch.no_grad()
def clip_rows(model: Detector, views: ViewSet, with_mel: bool) -> HeadRows:
    x, labels, mel = [], [], []
    for batch in _one_by_one(model, views, is_of_one_kind):
        x.append(pool(model.ear.hear(batch.views.figures)).cpu())
        labels.append(batch.labels)
        if with_mel:
            mel.append(_read_mel(model, batch).clips.cpu())
    return HeadRows(torch.cat(x), torch.cat(labels), torch.cat(mel) if with_mel else None)


@torch.no_grad()
def segment_rows(model: Detector, views: ViewSet, with_mel: bool) -> HeadRows:
    x, labels, mel = [], [], []
    for number, batch in enumerate(_one_by_one(model, views, lambda note: True)):
        some = slice(number % EVERY_SEGMENT, None, EVERY_SEGMENT)
        around = model.ear.around(model.ear.hear(batch.views.figures), batch.segments.shape[1])
        x.append(around[0, some].cpu())
        labels.append(batch.segments[0, some])
        if with_mel:
            mel.append(_read_mel(model, batch).segments[0, some].cpu())
    return HeadRows(torch.cat(x), torch.cat(labels), torch.cat(mel) if with_mel else None)


def _read_mel(model: Detector, batch: Batch) -> Reading:
    return model.read(replace(batch.views, figures=None))[0]


def _one_by_one(model: Detector, views: ViewSet, chosen: Chosen) -> Iterator[Batch]:
    """The chosen views, whole, each in a batch of its own; what branches read of it is where the model is."""
    crops, device = Crops(views), model.output.weight.device
    model.eval()
    for index, note in enumerate(views.notes):
        if chosen(note):
            batch = crops.batch([(index, 0)], note["length"])
            yield replace(batch, views=batch.views.to(device))


@torch.no_grad()
def score(model: Detector, views: ViewSet, chosen: Chosen) -> Scored:
    """What the branches say of the chosen views, none of them spliced."""
    crops, device = Crops(views), model.output.weight.device
    by_length: dict[int, list[int]] = {}
    for index, note in enumerate(views.notes):
        if chosen(note) and is_of_one_kind(note):
            by_length.setdefault(note["length"], []).append(index)
    logits, labels, order = [], [], []
    for length, indices in by_length.items():
        for first in range(0, len(indices), BATCH_ROWS):
            some = indices[first : first + BATCH_ROWS]
            batch = crops.batch([(index, 0) for index in some], length)
            readings = model.read(batch.views.to(device))
            logits.append(torch.stack([reading.clips for reading in readings], dim=1).double().cpu())
            labels.append(batch.labels.double())
            order += some
    if not order:
        raise TrainingError("there are no such views; make them with detector-views")
    seconds = torch.tensor([views.notes[index]["length"] / SAMPLE_RATE_HZ for index in order])
    return Scored(torch.cat(logits), seconds, torch.cat(labels))


@torch.no_grad()
def segments_of(model: Detector, views: ViewSet, chosen: Chosen) -> tuple[Tensor, Tensor]:
    """(fused logits [M], labels [M]) of all segments of the chosen views, none of them spliced."""
    logits, labels = [], []
    for batch in _one_by_one(model, views, lambda note: chosen(note) and is_of_one_kind(note)):
        logits.append(model.fused(model.read(batch.views), batch.views.num_samples)[0][0].cpu())
        labels.append(batch.segments[0])
    return torch.cat(logits), torch.cat(labels)


def fuse(model: Detector, scored: Scored) -> Scored:
    """With the fused logits [N] in place of the branches' [N, K]."""
    lengths = (scored.seconds.clamp_max(EVIDENCE_S) / EVIDENCE_S).double() ** float(model.growth)
    return replace(scored, logits=(scored.logits @ model.weights.double().cpu()) * lengths)


def of_length(scored: Scored, seconds: float) -> Scored:
    """Those clips alone."""
    chosen = scored.seconds == seconds
    return Scored(scored.logits[chosen], scored.seconds[chosen], scored.labels[chosen])


def with_scope(model: Detector, views: ViewSet) -> Detector:
    """The same detector with the mean and the map of the clips of a split."""
    wider = Detector(replace(model.config, scope_limit=1.0)).eval()
    mean, std, mapping = fit_scope(mean_figures(model, views))
    wider.load_state_dict({**model.state_dict(), "scope_mean": mean, "scope_std": std, "scope_map": mapping})
    return wider.to(model.output.weight.device).requires_grad_(False)


@torch.no_grad()
def mean_figures(model: Detector, views: ViewSet) -> Tensor:
    """[N, D], what distances are taken from, of the clips that are neither changed nor spliced nor short.

    They are at least half as long as the longest: the mean of a shorter one scatters more, and what changes the sound
    makes it scatter more still, until other synthesisers would pass. So changed and short clips are refused more often.
    """
    least = max(note["length"] for note in views.notes) / 2
    chosen = [n for n, note in enumerate(views.notes) if is_unchanged(note) and note["kind"] != "spliced"]
    lengths = [(n, views.notes[n]["length"]) for n in chosen if views.notes[n]["length"] >= least]
    clips = (views.crop(n, 0, length)[1].to(model.ear.mean.device) for n, length in lengths)
    return torch.cat([model.ear.deviations(clip[None]).mean(dim=2).cpu() for clip in clips])


def measure(config: DetectorConfig, scored: Scored) -> dict[str, float]:
    """Figures at the threshold; both kinds count the same."""
    probabilities = probability_of(config.calibration, scored.logits)
    wrong = (probabilities >= config.calibration.threshold) != scored.labels.bool()
    positive, counted = scored.labels.bool(), shares(scored.labels)
    decided = (probabilities <= config.calibration.uncertain_low) | (probabilities >= config.calibration.uncertain_high)
    count = len(wrong)
    low, high = wilson_interval(int(wrong.sum()), count)
    return {
        "balanced_accuracy": float((counted * ~wrong).sum()),
        "accuracy_low": 1 - high,
        "accuracy_high": 1 - low,
        "false_positive_rate": float(wrong[~positive].double().mean()),
        "false_negative_rate": float(wrong[positive].double().mean()),
        "num_originals": int((~positive).sum()),
        "num_generated": int(positive.sum()),
        "equal_error_rate": equal_error_rate(scored.logits, scored.labels),
        "calibration_error": calibration_error(probabilities, scored.labels),
        "decided_share": float((counted * decided).sum()),
        "wrong_answers": int((wrong & decided).sum()),
        "answers": int(decided.sum()),
    }
