"""A static batch of slots over one stage: rows join and leave between steps, each as if it were alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from audiolm.config import SamplingConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm.layouts import UNKNOWN, DepthLayout
from audiolm.lm.sampling import RowSampling
from audiolm.lm.stage import StageModel
from audiolm.lm.steps import REACH, Pick, prepared
from audiolm.nn.attention import rotary_angles
from audiolm.nn.packing import EXACT_ROWS


@dataclass
class _Row:
    """What the host knows of a slot in use. `known` counts the condition steps whose effect is final."""

    next_step: int
    num_left: int
    num_positions: int
    is_read: bool  # whether the state that predicts the next step is there
    condition: Tensor  # [C, Lc] so far
    embedded: Tensor  # [C, D]
    known: int = 0


def _kernels() -> ModuleType | None:
    """None where numba is missing."""
    try:
        from audiolm.lm import kernels
    except (ImportError, OSError):  # OSError: LLVM's library is there and cannot be loaded
        return None
    return kernels


class SlotBatch:
    """Decodes up to `num_slots` rows of a StageModel together, a step of every row that can take one at a time.

    A row's tokens depend on its own prompt, condition, sampling and generator alone: the same in an empty batch and in
    a full one, whichever slot it has and whatever joins or leaves (on one thread of a CPU; see `audiolm.nn.packing` and
    `audiolm.nn.cache` for what that rests on). Slots in use are kept low: a step costs what its highest one needs.

    `max_steps`: prompt and new steps of a row; `num_condition`: its condition steps, where the layout reads those as
    positions of their own. `dtype`: as `StepModel`.

    On a CPU a depth layout's step with int8 weights is one function, on one thread, with keys and values of 16 bits
    where the processor has such numbers (`audiolm.lm.kernels`; where numba is missing, torch's operations as
    elsewhere). With `compiled` the body is compiled by torch instead, at the first step (some 30 s, and a C++ compiler
    on a CPU), on CUDA into a graph; that, and any device but a CPU, takes all slots and all places of the cache at
    every step, so that shapes never change. The CUDA path has been run on no CUDA device yet: what is known of it is
    that its arithmetic, in bfloat16 and compiled, was compared on a CPU.
    """

    def __init__(
        self,
        model: StageModel,
        num_slots: int,
        max_steps: int,
        num_condition: int = 0,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.num_slots, self.max_steps, self.num_condition = model, num_slots, max_steps, num_condition
        self._depth = isinstance(model.layout, DepthLayout)
        self._static = compiled or model.start.device.type != "cpu"
        with torch.inference_mode():
            self._steps = prepared(model, dtype)
            self._body_step = self._steps.body.step
            if compiled:
                mode = "reduce-overhead" if model.start.device.type == "cuda" else None
                self._body_step = torch.compile(self._body_step, fullgraph=True, dynamic=False, mode=mode)
            rows = num_slots if self._steps.packed else -(-num_slots // EXACT_ROWS) * EXACT_ROWS
            positions = model.layout.num_positions(max_steps, 0 if self._depth else num_condition) + 1
            kernels = _kernels() if self._depth and self._steps.packed and not self._static else None
            self._allocate(rows, positions, None if kernels is None else kernels.KEPT_AS)
            self._kernel = None if kernels is None else self._compiled_step(kernels)
        self._free = list(range(num_slots))
        self._rows: dict[int, _Row] = {}

    def _allocate(self, rows: int, positions: int, cached: torch.dtype | None) -> None:
        """`cached`: of keys and values, where it is not the weights'."""
        steps, width = self._steps, self.model.config.transformer.width
        inputs = steps.inputs
        self._cache = steps.body.init_cache(rows, positions, cached)
        self._rotary = steps.body.rotary(positions)
        self._sampling = RowSampling(rows, len(self.model.config.levels), inputs.device)
        self._index = torch.arange(rows, device=inputs.device)
        self._inputs = steps.start.repeat(rows, 1)
        self._states = inputs.new_zeros(rows, width)
        self._known = None if steps.mixer is None else inputs.new_zeros(rows, self.max_steps + steps.stride, width)

    def _compiled_step(self, kernels: ModuleType) -> Callable[..., None]:
        """A function of unread slots, their positions and condition steps, ready slots, their uniform numbers and
        where the tokens go. What it works on is shared with this object's tensors."""
        positions, width = self._rotary[0].shape[0], self._states.shape[1]
        angles = rotary_angles(torch.arange(positions), self._steps.body.head_width)
        known = self._states.new_zeros(self.num_slots, 0, width) if self._known is None else self._known
        levels = self.model.config.levels
        logits = self._states.new_zeros(len(levels), self.num_slots, max(levels))
        cache = self._cache.whole.flatten(4)
        cache = cache.view(torch.int16) if cache.dtype == torch.float16 else cache
        kept = (*angles, cache, self._inputs, self._states, known)
        kept += (self._sampling.block, self._sampling.settings, logits)
        slots = kernels.Slots(*(each.numpy() for each in kept), self._cache.window)
        return partial(kernels.compiled_step, kernels.weights_of(self._steps), slots)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def join(
        self,
        prompt: Tensor | None,
        condition: Tensor | None,
        *,
        generator: torch.Generator,
        sampling: SamplingConfig,
        num_steps: int,
        complete: bool = True,
    ) -> int:
        """Takes a slot for `num_steps` steps after prompt [N0, L], given condition [C, Lc]; reads both -> slot.

        With `complete=False` (depth layout) the condition is the beginning of one that grows: see `extend`. It must
        then reach REACH steps beyond the one that the first new step needs.

        Raises IndexError where no slot is free or the row is longer than the batch was made for, RequestError for a
        prompt or condition that is not the stage's, ConfigError for a condition shorter than the steps.
        """
        config = self.model.config
        prompt = torch.zeros(0, len(config.levels), dtype=torch.long) if prompt is None else prompt
        self._check(prompt, condition, num_steps, complete)
        device = self._inputs.device
        given = torch.zeros(0, len(config.condition_levels)) if condition is None else condition
        given, prompt = given.to(device, torch.long), prompt.to(device)
        with torch.inference_mode():
            row = _Row(len(prompt), num_steps, 0, False, given[:0], self._states[:0])
            slot = heapq.heappop(self._free)
            self._rows[slot] = row
            if self._depth:
                self._add(slot, given, complete)
            self._sampling.join(slot, sampling, generator)
            self._prefill(slot, prompt, given)
        return slot

    def fork(self, slot: int, *, generator: torch.Generator, sampling: SamplingConfig) -> int:
        """Takes another slot that starts where `slot` stands: with its prompt, its condition, its steps so far.

        Raises IndexError where no slot is free, KeyError for a slot that is not in use.
        """
        source = self._rows[slot]
        self._require_free()
        target = heapq.heappop(self._free)
        with torch.inference_mode():
            self._rows[target] = _Row(**vars(source))
            self._cache.copy(slot, target)
            for each in (self._inputs, self._states, self._known):
                if each is not None:
                    each[target] = each[slot]
            self._sampling.join(target, sampling, generator)
        return target

    def extend(self, slot: int, condition: Tensor, complete: bool = False) -> None:
        """More of a growing condition [C, Lc], C = 0 allowed; `complete` says that this was all.

        Raises ConfigError where it is complete and too short for the row's steps.
        """
        row = self._rows[slot]
        if complete:
            self._require_reach(len(row.condition) + len(condition), row.next_step + row.num_left)
        with torch.inference_mode():
            self._add(slot, condition.to(self._inputs.device, torch.long), complete)

    def leave(self, slot: int) -> None:
        """Frees a slot. Raises KeyError for one that is not in use."""
        del self._rows[slot]
        self._sampling.leave(slot)
        heapq.heappush(self._free, slot)

    def ready(self, slot: int) -> bool:
        """Whether the slot has steps left and knows enough of its condition for the next one."""
        row = self._rows[slot]
        waits = self._known is not None and row.next_step >= row.known * self._steps.stride
        return row.num_left > 0 and not waits

    def step(self) -> dict[int, Tensor]:
        """One step of every slot that is ready -> its tokens [L] by slot, on the model's device."""
        ready = [slot for slot in sorted(self._rows) if self.ready(slot)]
        if not ready:
            return {}
        tokens = self._advance(ready) if self._kernel is None else self._advance_compiled(ready)
        for slot in ready:
            row = self._rows[slot]
            row.next_step, row.num_left, row.is_read = row.next_step + 1, row.num_left - 1, False
        return dict(zip(ready, tokens, strict=True))

    def rewind(self, length: int) -> None:
        """Rows longer than `length` steps are so long again, for timing: the tokens are those of no row alone."""
        for row in self._rows.values():
            back = max(0, row.next_step - length)
            row.next_step, row.num_left = row.next_step - back, row.num_left + back
            row.num_positions = min(row.num_positions, self.model.layout.num_positions(length, len(row.condition)))

    def bytes_read(self, length: int) -> int:
        """What a step reads when all slots hold rows of `length` positions: the weights once, and every row's cache."""
        places = min(length, self._cache.num_places)
        return self._steps.num_bytes + self._cache.whole[:, :, : self.num_slots, :places].nbytes

    # ---- inside

    def _require_free(self) -> None:
        if not self._free:
            raise IndexError(f"all {self.num_slots} slots are in use")

    def _check(self, prompt: Tensor, condition: Tensor | None, num_steps: int, complete: bool) -> None:
        self._require_free()
        config = self.model.config
        total, levels, known = len(prompt) + num_steps, len(config.levels), len(config.condition_levels)
        if prompt.ndim != 2 or prompt.shape[1] != levels:
            raise RequestError(f"prompt must be [steps, {levels}], found {tuple(prompt.shape)}")
        if (condition is None) != (known == 0):
            raise RequestError(
                f"the {config.stage} stage has {known} condition levels, condition given: {condition is not None}"
            )
        if condition is not None and (condition.ndim != 2 or condition.shape[1] != known):
            raise RequestError(f"condition must be [steps, {known}], found {tuple(condition.shape)}")
        room = self.num_condition if not self._depth and known else None
        if total > self.max_steps or (room is not None and len(condition) > room):
            raise IndexError(f"slots hold {self.max_steps} steps and {room} condition steps, {total} steps asked for")
        if self._depth and condition is not None:
            beyond = 0 if complete else REACH * config.condition_stride
            self._require_reach(len(condition), total if complete else len(prompt) + 1 + beyond)
        elif not complete:
            raise RequestError("only a depth layout's condition can grow: the flattened one is read first, as a whole")

    def _require_reach(self, num_condition: int, num_steps: int) -> None:
        """Raises ConfigError where a condition does not reach `num_steps`."""
        needed = -(-num_steps // self.model.config.condition_stride)
        if num_condition < needed:
            raise ConfigError(f"{num_steps} steps need {needed} condition steps, found {num_condition}")

    def _add(self, slot: int, condition: Tensor, complete: bool) -> None:
        """Works more of the condition into what is known: all of it, or all but the last REACH steps."""
        row, steps = self._rows[slot], self._steps
        if self._known is None:
            return
        row.embedded = torch.cat([row.embedded, steps.embed_condition(condition)])
        row.condition = torch.cat([row.condition, condition])
        end = min(len(row.condition) - (0 if complete else REACH), self._known.shape[1] // steps.stride)
        if end > row.known:
            mixed = steps.mix(row.embedded, row.condition[:, :1] == UNKNOWN, row.known, end)
            self._known[slot, row.known * steps.stride : end * steps.stride] = mixed
            row.known = end

    def _prefill(self, slot: int, prompt: Tensor, condition: Tensor) -> None:
        """Reads prompt and condition, alone: with the same bits whatever else is there. Nothing to read: the start."""
        row = self._rows[slot]
        if not len(prompt) and (self._depth or not len(condition)):
            self._inputs[slot] = self._steps.start
            return
        known = self._known[slot, None].float() if self._known is not None else condition[None]
        x = self.model.prompt_inputs(self._steps.tables, prompt[None], known if condition.shape[1] else None)
        states, keys_values = self.model.body.prefill(x)
        self._cache.fill(slot, [each[:, 0] for each in keys_values])
        self._states[slot] = states[0, -1]
        row.num_positions, row.is_read = x.shape[1], True

    def _advance_compiled(self, ready: list[int]) -> Tensor:
        """-> tokens of the rows `ready`, [B', L]."""
        unread = [slot for slot in ready if not self._rows[slot].is_read]
        reading = [self._rows[slot] for slot in unread]
        positions, following = [row.num_positions for row in reading], [row.next_step for row in reading]
        chosen = np.empty((len(ready), self._inputs.shape[1]), np.int64)
        given = (unread, positions, following, ready, self._sampling.advance(ready))
        self._kernel(*(np.array(each, np.int64) for each in given), chosen)
        for row in reading:
            row.num_positions += 1
        return torch.from_numpy(chosen)

    def _advance(self, ready: list[int]) -> Tensor:
        """-> tokens of the rows `ready`, [B', L]. Other rows' states and lengths stay as they are."""
        with torch.inference_mode():
            tokens = self._advance_by_operations(ready)
        return tokens[ready]  # no inference tensor leaves here

    def _advance_by_operations(self, ready: list[int]) -> Tensor:
        """-> tokens [width, L], of which the rows `ready` count."""
        num_rows = len(self._index) if self._static else ready[-1] + 1
        if not self._steps.packed:
            num_rows = -(-num_rows // EXACT_ROWS) * EXACT_ROWS
        unread = [slot for slot in ready if not self._rows[slot].is_read]
        if unread:
            self._read(unread, num_rows)
        uniforms = self._sampling.draw(ready, num_rows)
        states = self._states[:num_rows]

        def pick(level: int, logits: Tensor) -> Tensor:
            return self._sampling.choose(logits, uniforms[:, level])

        tokens = self._steps.choose_depth(states, pick) if self._depth else self._choose_flat(ready, states, pick)
        counts = self._among(ready, num_rows)[:, None]
        self._inputs[:num_rows] = torch.where(counts, tokens + self._steps.offsets, self._inputs[:num_rows])
        return tokens

    def _read(self, unread: list[int], num_rows: int) -> None:
        """Reads the step that rows chose last (or the start) -> the states that predict their next ones."""
        inputs = self._inputs[:num_rows]
        if self._depth:
            x = self._steps.embed(inputs)
            if self._known is not None:
                following = [self._rows[slot].next_step if slot in self._rows else 0 for slot in range(num_rows)]
                following = torch.tensor(following, device=x.device).clamp_max(self._known.shape[1] - 1)
                x = x + self._known[self._index[:num_rows], following]
        else:
            x = self._steps.embed(inputs[:, -1:])
        states = self._body(unread, x)
        self._states[:num_rows] = torch.where(self._among(unread, num_rows)[:, None], states, self._states[:num_rows])

    def _body(self, rows: list[int], x: Tensor) -> Tensor:
        """x [width, D] at the rows' next positions -> states [width, D]; only `rows` move on."""
        places = [self._rows[slot].num_positions if slot in self._rows else 0 for slot in range(x.shape[0])]
        longest = self._cache.num_places if self._static else max(places[slot] for slot in rows) + 1
        positions = torch.tensor(places, device=x.device).clamp_max(self._rotary[0].shape[0] - 1)
        place = self._steps.body.place(self._cache, self._rotary, positions, longest)
        states = self._body_step(x, self._cache, place).clone()
        for slot in rows:
            self._rows[slot].num_positions += 1
        return states

    def _choose_flat(self, ready: list[int], states: Tensor, pick: Pick) -> Tensor:
        """The levels of a step in turn, each a position of its own; the last one is read by the next step."""
        chosen = [pick(0, self._steps.flat_logits(states, 0))]
        for level in range(1, len(self._steps.outputs)):
            x = self._steps.embed((chosen[-1] + self._steps.offsets[level - 1])[:, None])
            states = self._body(ready, x)
            chosen.append(pick(level, self._steps.flat_logits(states, level)))
        return torch.stack(chosen, dim=1)

    def _among(self, slots: list[int], num_rows: int) -> Tensor:
        among = torch.zeros(num_rows, dtype=torch.bool, device=self._inputs.device)
        among[slots] = True
        return among
