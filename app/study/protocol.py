"""Who hears what, and in which order: pure functions of the study, the participant's key and the cell.

The items are cut into blocks of what fits one session; within a block a Latin square decides which condition of an
item, and which side, a session hears. A cell is a block with a rotation of the square, so that the sessions of all
cells together hear everything equally often, on either side. The key decides the order of the trials and the places of
the checks. Everything is sorted by SHA-256, so that an order is the same on every machine and with every Python.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, zip_longest

from app.study.definition import (
    AB,
    ABX,
    ATTENTION,
    HEADPHONES,
    LEVEL,
    MUSHRA,
    PRACTICE,
    SCORED,
    TRAP,
    Study,
    Trial,
)

_SIDES = {AB: 2, ABX: 4}
_ANSWERING_S = 6.0  # beside the listening
_REPLAYED = 1.3  # how often a clip is heard, on average


@dataclass(frozen=True)
class PlannedTrial:
    """One step of a session: the trial, and its clips by id in the order presented (the open reference is not in it).

    `side` says what stands where: ab "one" or "other" is the first; abx "x=a" or "x=b", with clips (A, B, X); else "".
    """

    index: int
    trial: str
    role: str
    clips: tuple[str, ...]
    side: str = ""


def plan_to_json(plan: Sequence[PlannedTrial]) -> str:
    return json.dumps([asdict(planned) for planned in plan])


@lru_cache(maxsize=256)
def plan_from_json(text: str) -> tuple[PlannedTrial, ...]:
    """What `plan_to_json` wrote."""
    return tuple(PlannedTrial(**{**one, "clips": tuple(one["clips"])}) for one in json.loads(text))


def num_cells(study: Study) -> int:
    """How many different lists of trials and sides there are."""
    return len(_blocks(study)) * _num_rotations(study)


def quotas(study: Study) -> tuple[int, ...]:
    """Completed sessions wanted of every cell: they add up to the target and differ by one at most."""
    cells, target = num_cells(study), study.plan.target_sessions
    return tuple(target // cells + (cell < target % cells) for cell in range(cells))


def order(study: Study, participant_key: str, cell: int) -> tuple[PlannedTrial, ...]:
    """Every step of a session but the comment: level, headphones, practice, then the rest with checks between.

    Raises ValueError for a cell the study does not have.
    """
    if not 0 <= cell < num_cells(study):
        raise ValueError(f"cell must be 0..{num_cells(study) - 1}, found {cell}")
    draw = _Draw(f"{study.seed}/{participant_key}")
    block, rotation = divmod(cell, _num_rotations(study))
    sides = {trial.id: side for trial, side in _scored(study, block, rotation)}
    scored = draw.shuffled(study.trial(one) for one in sides)
    checks = draw.shuffled((*study.of_role(ATTENTION), *study.of_role(TRAP)))
    steps = [
        *study.of_role(LEVEL),
        *draw.shuffled(study.of_role(HEADPHONES)),
        *draw.shuffled(study.of_role(PRACTICE)),
        *_spread(scored, checks, draw),
    ]
    return tuple(
        _planned(study, index, trial, sides.get(trial.id, draw.number(trial.id)), draw)
        for index, trial in enumerate(steps)
    )


def minutes(study: Study) -> int:
    """About how long a session takes: the longest one, every clip heard a little more than once."""
    longest = max(
        sum(_ANSWERING_S + _REPLAYED * _sound_s(study, planned) for planned in order(study, "", cell))
        for cell in range(0, num_cells(study), _num_rotations(study))
    )
    return math.ceil(longest / 60.0)


class _Draw:
    """Draws that depend on the key and a name alone."""

    def __init__(self, key: str) -> None:
        self._key = key

    def number(self, name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._key}/{name}".encode()).digest()[:8], "big")

    def shuffled(self, trials: Iterable[Trial]) -> list[Trial]:
        return sorted(trials, key=lambda trial: self.number(f"order/{trial.id}"))


def _items(study: Study) -> list[list[Trial]]:
    """The scored trials item by item, in an order drawn from the study's seed alone."""
    by_item: dict[str, list[Trial]] = {}
    for trial in study.of_role(SCORED):
        by_item.setdefault(study.clip(trial.clips[0]).item, []).append(trial)
    draw = _Draw(f"{study.seed}")
    return [by_item[item] for item in sorted(by_item, key=lambda item: draw.number(f"item/{item}"))]


def _blocks(study: Study) -> list[list[list[Trial]]]:
    """Blocks of items, of sizes that differ by one at most."""
    items = _items(study)
    trials_an_item = 1 if study.plan.one_version else max(map(len, items))
    fitting = max(1, (study.plan.trials_per_session or len(items) * trials_an_item) // trials_an_item)
    count = math.ceil(len(items) / fitting)
    return [items[len(items) * i // count : len(items) * (i + 1) // count] for i in range(count)]


def _num_versions(study: Study) -> int:
    return max(map(len, _items(study))) if study.plan.one_version else 1


def _num_rotations(study: Study) -> int:
    return _num_versions(study) * _SIDES.get(study.kind, 1)


def _scored(study: Study, block: int, rotation: int) -> list[tuple[Trial, int]]:
    """The scored trials of a cell with their sides."""
    versions = _num_versions(study)
    chosen: list[tuple[Trial, int]] = []
    for place, trials in enumerate(_blocks(study)[block]):
        if study.plan.one_version:
            side = place // versions + rotation // versions
            chosen.append((trials[(place + rotation) % len(trials)], side))
        else:
            chosen += [(trial, len(chosen) + number + rotation) for number, trial in enumerate(trials)]
    return chosen


def _spread(scored: list[Trial], checks: list[Trial], draw: _Draw) -> list[Trial]:
    """The checks at places of their own among the scored trials, one a stretch, never first."""
    after: dict[int, list[Trial]] = {}
    for number, check in enumerate(checks):
        low, high = (len(scored) * edge // len(checks) for edge in (number, number + 1))
        after.setdefault(low + draw.number(f"place/{check.id}") % max(1, high - low), []).append(check)
    behind = [after.get(place, []) for place in range(len(scored))]
    return list(chain.from_iterable((trial, *extra) for trial, extra in zip_longest(scored, behind)))


def _planned(study: Study, index: int, trial: Trial, side: int, draw: _Draw) -> PlannedTrial:
    clips, shown = trial.clips, ""
    if trial.role not in (HEADPHONES, LEVEL):
        if study.kind == AB:
            clips, shown = (clips, "one") if side % 2 == 0 else (clips[::-1], "other")
        elif study.kind == ABX:
            one, other, copy_of_one, copy_of_other = clips
            first, second = (one, other) if side % 2 == 0 else (other, one)
            x_is_one = side // 2 % 2 == 0
            clips = (first, second, copy_of_one if x_is_one else copy_of_other)
            shown = "x=a" if x_is_one == (side % 2 == 0) else "x=b"
        elif study.kind == MUSHRA:
            clips = tuple(sorted(clips, key=lambda clip: draw.number(f"stimulus/{trial.id}/{clip}")))
    return PlannedTrial(index, trial.id, trial.role, clips, shown)


def _sound_s(study: Study, planned: PlannedTrial) -> float:
    reference = study.trial(planned.trial).reference
    return sum(study.clip(clip).duration_s for clip in (*planned.clips, *([reference] if reference else [])))


def choose_cell(wanted: Sequence[int], complete: Sequence[int], running: Sequence[int], key: str) -> int | None:
    """The cell with a free place that has the fewest sessions, then the fewest completed ones; None without a place."""
    draw = _Draw(key)
    free = [cell for cell, quota in enumerate(wanted) if complete[cell] + running[cell] < quota]
    ranks = {cell: (complete[cell] + running[cell], complete[cell], draw.number(f"cell/{cell}")) for cell in free}
    return min(free, key=ranks.__getitem__, default=None)
