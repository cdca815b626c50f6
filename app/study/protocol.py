"""Who hears what, and in which order: pure functions of the study, the participant's key and the cell.

Lists: the items are cut into blocks of `plan.trials_per_session`; within a block a Latin square decides which condition
of an item, and which side, a session hears. A cell is (block, rotation of the square): sessions of all cells together
hear everything equally often. The key decides the order of the trials and the places of the checks.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.study.definition import Study
from audiolm.config import Config


@dataclass(frozen=True)
class PlannedTrial(Config):
    """One step of a session: the trial, and its clips by id in the order presented.

    `side` says what stands where: ab "one" or "other" (first); abx "x=a one first" and its like; "" elsewhere.
    mushra: `clips` are shuffled.
    """

    index: int
    trial: str
    role: str
    clips: tuple[str, ...]
    side: str = ""


def num_cells(study: Study) -> int:
    """How many different lists there are."""
    raise NotImplementedError


def order(study: Study, participant_key: str, cell: int) -> tuple[PlannedTrial, ...]:
    """Every step of a session but the comment: headphones, level, practice, then the rest with checks between.

    Raises ValueError for a cell the study does not have.
    """
    raise NotImplementedError


def quotas(study: Study) -> tuple[int, ...]:
    """Completed sessions wanted of every cell: they add up to the target and differ by one at most."""
    raise NotImplementedError
