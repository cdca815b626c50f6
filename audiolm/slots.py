"""Rows of many runs through one model at a time: slots of a static batch that rows join and leave between steps.

A row has its own generator and its own place in the cache, so its tokens do not depend on who else is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from audiolm.config import SamplingConfig
from audiolm.lm import StageModel
from audiolm.lm.decode import generate_steps

NUM_SLOTS = 16


class Batch(Protocol):
    """Slots of one model (`audiolm.lm`)."""

    def join(
        self,
        prompt: Tensor | None,
        condition: Tensor | None,
        generator: torch.Generator,
        sampling: SamplingConfig,
        num_steps: int,
    ) -> int: ...

    def step(self) -> dict[int, Tensor]: ...

    def leave(self, slot: int) -> None: ...


@dataclass(eq=False)
class Row:
    """One row on its way: prompt [1, N0, L], condition [1, C, Lc] or None; `steps` [L] are what was chosen so far."""

    owner: object
    prompt: Tensor | None
    condition: Tensor | None
    generator: torch.Generator
    sampling: SamplingConfig
    num_steps: int
    steps: list[Tensor] = field(default_factory=list)
    error: Exception | None = None


class Slots:
    """One model's slots and the rows that wait for one. Thread-safe: whoever needs a step makes it, for all rows."""

    def __init__(self, batch: Batch, num_slots: int) -> None:
        self._batch, self._num_slots = batch, num_slots
        self._lock = threading.Lock()
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
        """One step of all rows, unless another thread has meanwhile made what is needed."""
        with self._lock:
            if needed():
                self._admit()
                self._step()

    def help(self) -> bool:
        """One step, for whoever has nothing else to do. False where there is none to make, or somebody makes it."""
        if not (self._active or self._waiting) or not self._lock.acquire(blocking=False):
            return False
        try:
            self._admit()
            active = bool(self._active)
            self._step()
            return active
        finally:
            self._lock.release()

    def _admit(self) -> None:
        """Free slots go to the run that has the fewest, its rows in their order."""
        while self._waiting and len(self._active) < self._num_slots:
            owners = [row.owner for row in self._active.values()]
            row = min(self._waiting, key=lambda row: sum(owner is row.owner for owner in owners))
            self._waiting.remove(row)
            try:
                slot = self._batch.join(row.prompt, row.condition, row.generator, row.sampling, row.num_steps)
            except Exception as error:  # this row's alone: the others go on
                row.error = error
            else:
                self._active[slot] = row

    def _step(self) -> None:
        if not self._active:
            return
        try:
            chosen = self._batch.step()
        except Exception as error:
            for slot, row in list(self._active.items()):
                row.error = error
                self._free(slot)
            raise
        for slot, tokens in chosen.items():
            row = self._active[slot]
            row.steps.append(tokens)
            if len(row.steps) == row.num_steps:
                self._free(slot)

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
        condition: Tensor | None,
        num_steps: int,
        sampling: SamplingConfig,
        generators: list[torch.Generator],
    ) -> Iterator[Tensor]:
        """As `generate_steps`, in slots shared with whoever else decodes this model. `owner` is the run: runs get slots
        in turns. Closing the iterator frees the slots.
        """
        if model.config.layout != "depth":
            return generate_steps(
                model,
                prompt=prompt,
                condition=condition,
                num_steps=num_steps,
                sampling=sampling,
                generators=generators,
            )
        rows = [
            Row(owner, _row(prompt, n), _row(condition, n), generator, sampling, num_steps)
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
                self._slots[model] = Slots(OneByOne(model), self._num_slots)
            return self._slots[model]


class OneByOne:
    """Slots without a batch: every row is decoded for itself."""

    def __init__(self, model: StageModel) -> None:
        self._model = model
        self._rows: dict[int, Iterator[Tensor]] = {}
        self._next = 0

    def join(
        self,
        prompt: Tensor | None,
        condition: Tensor | None,
        generator: torch.Generator,
        sampling: SamplingConfig,
        num_steps: int,
    ) -> int:
        self._next += 1
        self._rows[self._next] = generate_steps(
            self._model,
            prompt=prompt,
            condition=condition,
            num_steps=num_steps,
            sampling=sampling,
            generators=[generator],
        )
        return self._next

    def step(self) -> dict[int, Tensor]:
        return {slot: next(row)[0] for slot, row in self._rows.items()}

    def leave(self, slot: int) -> None:
        del self._rows[slot]


def _row(tokens: Tensor | None, row: int) -> Tensor | None:
    """[B or 1, n, L] -> that of one row, [1, n, L]."""
    return None if tokens is None else tokens[row % tokens.shape[0]][None]


def _steps(slots: Slots, rows: list[Row], num_steps: int) -> Iterator[Tensor]:
    slots.submit(rows)
    try:
        for number in range(num_steps):

            def needed(number: int = number) -> bool:
                return any(len(row.steps) <= number and row.error is None for row in rows)

            while needed():
                slots.advance(needed)
            if failed := next((row.error for row in rows if len(row.steps) <= number and row.error), None):
                raise failed
            yield torch.stack([row.steps[number] for row in rows])
    finally:
        slots.withdraw(rows)
