"""`python -m audiolm.training detector-views`: lets the detector's branches hear its pairs, once for all training.

Clips whole and as they are (of the training pairs some); for training then, turn by turn, crops of random lengths from
random places, most of them after a random change (`data.degrading`), a quarter of them over the join of prompt and
continuation; for calibration short crops, and whole clips after a change; for measuring crops of every short length.
Both clips of a pair are cut and changed alike.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from audiolm.checkpoints.format import load_checkpoint
from audiolm.checkpoints.listener import LISTENER_VERSION, Listener
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.degrading import MOST_FASTER, degrade
from audiolm.data.pairs import SPLITS, PairSet
from audiolm.data.views import ViewWriter
from audiolm.detector.network import mel_frames
from audiolm.detector.verdict import MIN_SOUND_S, sounding_s
from audiolm.errors import TrainingError
from audiolm.training.loop import setup_device

NUM_MELS = 64
CROP_S = (1.5, 2.0, 2.5, 3.5, 4.5, 6.0)  # half a second more than is kept: a changed clip may become faster
HELD_OUT_CROP_S = (1.0, 2.0, 4.0)
CUT_SAMPLES = SAMPLE_RATE_HZ // 2  # lengths are multiples of this
SPLICED_SHARE = 0.25
WHOLE_EVERY = 2  # of so many batches of training pairs, one is heard whole and as it is beside its crops
UNCHANGED_EVERY = 4  # of so many batches of crops, one is only cut: away from the codec's own frames
LEAST_PART_S = 1.0  # of a spliced crop, on either side of the join


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint that made the pairs")
    parser.add_argument("--data", type=Path, required=True, help="folder made by detector-data; views go into it")
    parser.add_argument("--turns", type=int, default=2, help="of changed crops of every training pair")
    parser.add_argument("--batch-size", type=int, default=16, help="clips listened to at once")
    parser.add_argument("--max-minutes", type=float, default=60.0, help="wall-clock budget of the training views")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")


def run(args: argparse.Namespace) -> None:
    """Raises CheckpointError, DataError for unusable folders; TrainingError for pairs of another checkpoint."""
    device = setup_device(args.device, args.threads)
    models = load_checkpoint(args.checkpoint, device)
    listener = Listener(models.codec, models.semantic, models.stages)
    sets = {split: PairSet(args.data, split) for split in SPLITS}
    for name, digest in sets["train"].meta.get("made_for", {}).items():
        if (found := models.info.components[name].hash) != digest:
            raise TrainingError(f"{args.data} was made with {name} {digest[:12]}, the checkpoint's is {found[:12]}")
    for split in reversed(SPLITS):  # held-out views come first, and all: training can do with fewer, measuring cannot
        writer = ViewWriter(args.data, split, NUM_MELS, listener.num_features, LISTENER_VERSION)
        done = {(note["turn"], note["kind"] == "unpaired", note["row"]) for note in writer.notes}
        jobs = [job.without(done) for job in plan(sets[split], split, args.turns, args.batch_size)]
        jobs = [job for job in jobs if job.rows]
        deadline = time.monotonic() + (60 * args.max_minutes if split == "train" else math.inf)
        for job in tqdm(jobs, desc=f"{split}, views", unit="batch"):
            clips, notes = job.clips(sets[split], args.seed + 1_000_003 * SPLITS.index(split))
            if not len(clips):  # all of them near silence
                continue
            heard = clips.to(device)
            writer.add(mel_frames(heard, NUM_MELS), listener(heard), notes)
            if time.monotonic() > deadline:
                break


@dataclass(frozen=True)
class Job:
    """Views of one batch: `rows` of the pairs (or the unpaired originals) cut to `length` samples."""

    rows: range
    turn: int
    length: int
    changed: bool = False
    spliced: bool = False
    unpaired: bool = False

    def clips(self, pairs: PairSet, seed: int) -> tuple[Tensor, list[dict[str, Any]]]:
        """-> (clips [B, T], their notes), without those that a verdict would be withheld for as near silence."""
        generator = torch.Generator().manual_seed(seed + 7_919 * self.turn + 104_729 * self.rows[0] + self.unpaired)
        kept, notes = [], []
        for row in self.rows:
            group, start = self._place(pairs, row, generator)
            state = generator.get_state()
            for kind, clip in group.items():
                generator.set_state(state)  # both of a pair are changed alike
                clip, change = degrade(clip, generator) if self.changed else (clip, "")
                note = {"kind": kind, "row": row, "turn": self.turn, "change": change, "length": self._heard}
                note["group"] = (pairs.unpaired if self.unpaired else pairs.rows)[row]["group"]
                if kind == "spliced":
                    note["join"] = round((pairs.join - start) * len(clip) / self.length)
                kept.append(clip[: self._heard])
                notes.append(note)
        clips = torch.stack(kept)
        heard = sounding_s(clips) >= MIN_SOUND_S
        return clips[heard], [note for note, is_heard in zip(notes, heard.tolist(), strict=True) if is_heard]

    def without(self, done: Container[tuple[int, bool, int]]) -> Job:
        """The rows after the last of which (turn, unpaired, row) is done: those before were heard, or near silence."""
        last = next(
            (row for row in reversed(self.rows) if (self.turn, self.unpaired, row) in done), self.rows.start - 1
        )
        return replace(self, rows=range(last + 1, self.rows.stop))

    @property
    def _heard(self) -> int:
        """Samples kept: a changed clip may have become faster, and all of a batch have one length."""
        return int(self.length / MOST_FASTER) // CUT_SAMPLES * CUT_SAMPLES if self.changed else self.length

    def _place(self, pairs: PairSet, row: int, generator: torch.Generator) -> tuple[dict[str, Tensor], int]:
        """-> (clips [length] by kind, where they start in the row)."""
        if self.spliced:
            least = round(LEAST_PART_S * SAMPLE_RATE_HZ)
            first, last = max(0, pairs.join + least - self.length), pairs.join - least
            start = int(torch.randint(first, last + 1, (1,), generator=generator))
            spliced, original = pairs.spliced(row)[:, start : start + self.length]
            return {"spliced": spliced, "original": original}, start
        start = int(torch.randint(pairs.length - self.length + 1, (1,), generator=generator))
        if self.unpaired:
            return {"unpaired": pairs.original(row, start, self.length)}, start
        generated, original = pairs.pair(row, start, self.length)
        return {"generated": generated, "original": original}, start


def plan(pairs: PairSet, split: str, turns: int, batch_size: int) -> Iterator[Job]:
    """What is to be listened to, most needed first. Raises TrainingError where no crop fits the clips."""
    whole = pairs.length // CUT_SAMPLES * CUT_SAMPLES
    if whole < round(min(CROP_S) * SAMPLE_RATE_HZ):
        raise TrainingError(f"the clips have {pairs.length} samples; crops take at least {min(CROP_S):g} s")
    half, train = max(1, batch_size // 2), split == "train"
    rows = [range(first, min(first + half, pairs.num_rows)) for first in range(0, pairs.num_rows, half)]
    singles = [
        range(first, min(first + batch_size, pairs.num_unpaired)) for first in range(0, pairs.num_unpaired, batch_size)
    ]
    yield from (Job(batch, 0, whole) for batch in rows[:: WHOLE_EVERY if train else 1])
    generator = torch.Generator().manual_seed(SPLITS.index(split))
    for index, batch in enumerate(singles):
        changed = train and index % 2 == 1
        yield Job(batch, 0, _length(CROP_S, whole, generator) if changed else whole, changed, unpaired=True)
    if split == "valid":
        yield from (Job(batch, 1, _length(HELD_OUT_CROP_S, whole, generator)) for batch in rows)
        yield from (Job(batch, 2, whole, changed=True) for batch in rows)
    if split == "test":
        for turn, seconds in enumerate(HELD_OUT_CROP_S, start=1):
            yield from (Job(batch, turn, min(whole, round(seconds * SAMPLE_RATE_HZ))) for batch in rows)
    for turn in range(1, turns + 1 if train else 1):
        for number, batch in enumerate(rows):
            spliced = pairs.join > 0 and float(torch.rand((), generator=generator)) < SPLICED_SHARE
            length = _length(CROP_S[2:] if spliced else CROP_S, whole, generator)
            yield Job(batch, turn, length, (number + turn) % UNCHANGED_EVERY != 0, spliced)


def _length(seconds: tuple[float, ...], whole: int, generator: torch.Generator) -> int:
    """One of these lengths, in samples; the whole where it is longer."""
    drawn = seconds[int(torch.randint(len(seconds), (1,), generator=generator))]
    return min(whole, round(drawn * SAMPLE_RATE_HZ))
