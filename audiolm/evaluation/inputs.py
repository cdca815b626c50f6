"""What every row is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.subject import Subject
from audiolm.request import ContinuationRequest

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Inputs:
    """Domain ("speech" or "piano"), models, hold-out, and how prompts are continued.

    `work` is the folder that keeps continuations between commands; `request` holds their lengths, sampling and seed.
    """

    domain: str
    subject: Subject
    holdout: HoldOut
    request: ContinuationRequest
    work: Path | None = None
    show_progress: bool = False

    def progress(self, things: Sequence[Thing], label: str) -> Iterable[Thing]:
        return tqdm(things, desc=label, leave=False, disable=not self.show_progress)
