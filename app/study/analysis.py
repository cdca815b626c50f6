"""Records -> every figure of the owner's page, the export and the methods paragraph. Pure; every figure has its n."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from app.study.records import StudyRecords


@dataclass(frozen=True)
class Figure:
    """An estimate with its 95 % interval; None where it cannot be had, and `note` says why, or how it was made."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""


@dataclass(frozen=True)
class Test:
    """A significance test. `decision` is a sentence."""

    name: str
    p_value: float | None
    n: int
    decision: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One clip, rater or condition: a rate or mean score with its interval."""

    name: str
    group: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    excluded: str = ""


@dataclass(frozen=True)
class Counts:
    """Sessions by outcome. `by_cell` counts completed sessions; `spread` is its maximum less its minimum."""

    consented: int
    running: int
    complete: int
    screened_out: int
    lapsed: int
    excluded: int
    declined: int
    withdrawn: int
    target: int
    ratings: int
    by_cell: tuple[int, ...]
    spread: int
    drop_out_by_step: tuple[int, ...]  # sessions that are not complete, by how many steps they answered


@dataclass(frozen=True)
class Results:
    """`paper` is AudioLM's own figure, where the study asks the same question."""

    study_id: str
    kind: str
    title: str
    counts: Counts
    figures: tuple[Figure, ...]
    tests: tuple[Test, ...]
    conditions: tuple[Row, ...]
    clips: tuple[Row, ...]
    raters: tuple[Row, ...]
    paper: Figure | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def analyse(records: StudyRecords, seed: int = 0) -> Results:
    """`seed` is that of the bootstrap."""
    raise NotImplementedError
