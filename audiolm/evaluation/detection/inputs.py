"""What every row of the detector is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.corpus import Corpus
from audiolm.data.pairs import PairSet
from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.judging import Clip, Judged, judge
from audiolm.evaluation.subject import Subject
from audiolm.pipeline import Pipeline

BALANCED = {"wider": "wider in band as narrower", "more_silent": "more silent as less"}

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class DetectionInputs:
    """A whole checkpoint with its detector, and what it is judged on.

    `pairs` is the folder of generated clips and their originals through the codec; its split test is measured, of
    which at most `num_items` pairs are used. `real` are corpora whose split test holds recordings of the checkpoint's
    own domain, `other` corpora of what the detector was not made for. `work` keeps continuations between commands.
    """

    subject: Subject
    pairs: Path
    real: tuple[Corpus, ...] = ()
    other: tuple[Corpus, ...] = ()
    num_items: int | None = None
    work: Path | None = None
    seed: int = 0
    show_progress: bool = False
    _judged: dict[tuple[float, int | None], Judged] = field(default_factory=dict, repr=False)

    @property
    def domain(self) -> str:
        return self.subject.require_whole().info.domain

    @cached_property
    def pipeline(self) -> Pipeline:
        """Raises EvaluationError without a whole checkpoint that has a detector."""
        models = self.subject.require_whole()
        if models.detector is None:
            raise EvaluationError(f"checkpoint {models.info.name} has no detector")
        return Pipeline(models)

    def pair_set(self, split: str = "test") -> PairSet:
        """Raises DataError for a damaged folder; EvaluationError for pairs that another checkpoint made."""
        pairs = PairSet(self.pairs, split)
        for name, digest in pairs.meta.get("made_for", {}).items():
            if (found := self.subject.components.get(name, "")) != digest:
                raise EvaluationError(
                    f"{self.pairs} was made with {name} {digest[:12]}, the checkpoint's is {found[:12]}"
                )
        return pairs

    def count(self, default: int) -> int:
        return default if self.num_items is None else min(self.num_items, default)

    @property
    def whole_s(self) -> float:
        """Length of the whole clips of a pair."""
        return self.pair_set().length / SAMPLE_RATE_HZ

    def clips(self, seconds: float, default: int | None = None) -> Iterator[Clip]:
        """A generated clip and its original of every pair of split test, cut at the same random place."""
        pairs, length = self.pair_set(), round(seconds * SAMPLE_RATE_HZ)
        generator = torch.Generator().manual_seed(self.seed)
        rows = range(self.count(pairs.num_rows if default is None else min(default, pairs.num_rows)))
        for row in self.progress(rows, f"{seconds:g} s clips"):
            start = int(torch.randint(pairs.length - length + 1, (1,), generator=generator))
            for samples, generated in zip(pairs.pair(row, start, length), (True, False), strict=True):
                yield Clip(samples, generated, pairs.rows[row]["group"])

    def judged(self, seconds: float) -> Judged:
        """What the detector says of `clips`, asked once for all rows."""
        key = seconds, self.num_items
        if key not in self._judged:
            self._judged[key] = judge(self.pipeline, self.clips(seconds))
        return self._judged[key]

    def selection_note(self) -> tuple[str, ...]:
        """Which pairs of split test there are, where some were left out."""
        pairs = self.pair_set()
        made = pairs.num_rows + pairs.num_left_out
        why = " and ".join(f"as often {BALANCED[name]}" for name in pairs.balanced)
        left_out = f"of {made} pairs that were made {pairs.num_left_out} were left out"
        return (f"{left_out}, so that generated clips are {why}",) if why else ()

    def progress(self, things: Sequence[Thing], label: str) -> Iterable[Thing]:
        return tqdm(things, desc=label, leave=False, disable=not self.show_progress)
