"""Rows of many runs through one model at a time: slots of a static batch that rows join and leave between steps.

A row has its own generator and its own place in the cache, so its tokens do not depend on who else is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from audiolm.config import SamplingConfig
from audiolm.growing import Excerpt
from audiolm.lm import SlotBatch, StageModel, generate_steps
from audiolm.lm.steps import REACH

NUM_SLOTS = 16


@dataclass(eq=False)
class Row:
    """One row on its way: prompt [N0, L]; condition [C, Lc] or the row's number in one that grows; `steps` [L] are what
    was chosen so far."""

    owner: object
    prompt: Tensor | None
    condition: Tensor | Excerpt | None
    number: int
    generator: torch.Generator
    sampling: SamplingConfig
    num_steps: int
    steps: list[Tensor] = field(default_factory=list)
    given: int = 0  # condition steps that the batch has
    told_complete: bool = False  # whether the batch knows that these were all
    error: Exception | None = None

    def can_join(self, stride: int) -> bool:
        """Whether enough of the condition is known for the first step."""
        if not isinstance(self.condition, Excerpt) or self.condition.is_complete:
            return True
        known = 0 if self.prompt is None else len(self.prompt)
        return len(self.condition) >= -(-(known + 1) // stride) + REACH

    def take(self) -> tuple[Tensor | None, bool]:
        """What is new of the condition, and whether it is all."""
        if not isinstance(self.condition, Excerpt):
            return self.condition, True
        self.told_complete = self.condition.is_complete  # before it is read: what is appended meanwhile is told next
        new = self.condition.of_row(self.number, self.given)
        self.given += len(new)
        return new, self.told_complete

    @property
    def has_news(self) -> bool:
        """Whether the condition has grown, or has become complete, since the batch was told."""
        if not isinstance(self.condition, Excerpt):
            return False
        return self.given < len(self.condition) or (self.condition.is_complete and not self.told_complete)


class Slots:
    """One model's slots and the rows that wait for one. Thread-safe: whoever needs a step makes it, for all rows."""

    def __init__(self, model: StageModel, num_slots: int) -> None:
        self._model, self._num_slots = model, num_slots
        self._lock = threading.Lock()
        self._batch: SlotBatch | None = None  # made when it is first needed
        self._waiting: list[Row] = []
        self._active: dict[int, Row] = {}

    @property
    def num_active(self) -> int:
        return len(self._active)

    def submit(self, rows: list[Row]) -> None:
        with self._lock:
            self._waiting += rows

    def withdraw(self, rows: list[Row]) -> None:
        """Frees the slots of rows that nobody reads any more."""
        with self._lock:
            gone = set(map(id, rows))
            self._waiting = [row for row in self._waiting if id(row) not in gone]
            for slot in [slot for slot, row in self._active.items() if id(row) in gone]:
                self._free(slot)

    def advance(self, needed: Callable[[], bool]) -> None:
        """One step of all rows that can, unless another thread has meanwhile made what is needed."""
        with self._lock:
            if needed():
                self._step()

    def help(self) -> bool:
        """One step, for whoever has nothing else to do. False where there is none to make, or somebody makes it."""
        if not (self._active or self._waiting) or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._step()
        finally:
            self._lock.release()

    def _step(self) -> bool:
        """False where no row can."""
        self._admit()
        for slot, row in list(self._active.items()):
            if row.has_news:
                new, complete = row.take()
                self._batch.extend(slot, new, complete)
        if not self._active:
            return False
        try:
            chosen = self._batch.step()
        except Exception as error:
            self._give_up(error)
            raise
        for slot, tokens in chosen.items():
            row = self._active[slot]
            row.steps.append(tokens)
            if len(row.steps) == row.num_steps:
                self._free(slot)
        return bool(chosen)

    def _admit(self) -> None:
        """Free slots go to the run that has the fewest, its rows in their order."""
        stride = self._model.config.condition_stride
        while len(self._active) < self._num_slots:
            able = [row for row in self._waiting if row.can_join(stride)]
            if not able:
                return
            owners = [row.owner for row in self._active.values()]
            row = min(able, key=lambda row: sum(owner is row.owner for owner in owners))
            self._waiting.remove(row)
            try:
                self._active[self._join(row)] = row
            except Exception as error:  # this row's alone: the others go on
                row.error = error

    def _join(self, row: Row) -> int:
        if self._batch is None:
            self._batch = SlotBatch(self._model, self._num_slots, max(2, self._model.config.max_steps))
        condition, complete = row.take()
        return self._batch.join(
            row.prompt,
            condition,
            generator=row.generator,
            sampling=row.sampling,
            num_steps=row.num_steps,
            complete=complete,
        )

    def _give_up(self, error: Exception) -> None:
        """A step failed, and nobody knows which rows have moved: all of them end, and the next ones get a new batch."""
        for row in self._active.values():
            row.error = error
        self._active, self._batch = {}, None

    def _free(self, slot: int) -> None:
        del self._active[slot]
        self._batch.leave(slot)


class Decoder:
    """The slots of one checkpoint's stages."""

    def __init__(self, num_slots: int = NUM_SLOTS) -> None:
        self._num_slots = num_slots
        self._lock = threading.Lock()
        self._slots: dict[StageModel, Slots] = {}

    def decode(
        self,
        owner: object,
        model: StageModel,
        *,
        prompt: Tensor | None,
        condition: Tensor | Excerpt | None,
        num_steps: int,
        sampling: SamplingConfig,
        generators: list[torch.Generator],
    ) -> Iterator[Tensor | None]:
        """As `generate_steps`, in slots shared with whoever else decodes this model; the condition may still grow.

        Yields None where the next step waits for a slot or for more of the condition. `owner` is the run: runs get
        slots in turns. Closing the iterator frees the slots.
        """
        if model.config.layout != "depth":  # the condition comes before the prompt, as a whole
            return _alone(
                model, condition, prompt=prompt, num_steps=num_steps, sampling=sampling, generators=generators
            )
        rows = [
            Row(owner, _of_row(prompt, n), _of_row(condition, n), n, generator, sampling, num_steps)
            for n, generator in enumerate(generators)
        ]
        return _steps(self._slots_of(model), rows, num_steps)

    def help(self) -> bool:
        """One step of some stage, for a thread with nothing else to do. False where there is none to make."""
        with self._lock:
            all_slots = list(self._slots.values())
        return any(slots.help() for slots in all_slots)

    def active_rows(self) -> dict[str, int]:
        """How many slots are taken, by stage."""
        with self._lock:
            return {model.config.stage: slots.num_active for model, slots in self._slots.items()}

    def _slots_of(self, model: StageModel) -> Slots:
        with self._lock:
            if model not in self._slots:
                self._slots[model] = Slots(model, self._num_slots)
            return self._slots[model]


def _of_row(tokens: Tensor | Excerpt | None, row: int) -> Tensor | Excerpt | None:
    """[B or 1, n, L] -> that of one row, [n, L]."""
    return tokens[row % tokens.shape[0]] if isinstance(tokens, Tensor) else tokens


def _alone(model: StageModel, condition: Tensor | Excerpt | None, **others: Any) -> Iterator[Tensor | None]:
    if isinstance(condition, Excerpt):
        yield from condition.source.until(condition.end)
        condition = condition.whole()
    yield from generate_steps(model, condition=condition, **others)


def _steps(slots: Slots, rows: list[Row], num_steps: int) -> Iterator[Tensor | None]:
    slots.submit(rows)
    try:
        for number in range(num_steps):

            def needed(number: int = number) -> bool:
                return any(len(row.steps) <= number and row.error is None for row in rows)

            while needed():
                slots.advance(needed)
                if needed():  # no slot yet, or not enough of the condition: others' turn
                    yield None
            if failed := next((row.error for row in rows if len(row.steps) <= number), None):
                raise failed
            yield torch.stack([row.steps[number] for row in rows])
    finally:
        slots.withdraw(rows)
