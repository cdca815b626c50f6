"""The three stages as runs: token streams in, longer or finer token streams out, with events on the way.

Each function is a generator of `Progress` and `Chunk` whose return value (`yield from`) is the finished stream.
They know lengths, windows and seeds; the models and their caches are `lm`'s affair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from audiolm.config import FRAME_RATE_HZ, SamplingConfig, StageConfig
from audiolm.errors import RequestError
from audiolm.events import Chunk, Event, Progress, StageTiming
from audiolm.growing import Excerpt, Growing
from audiolm.lm import StageModel
from audiolm.lm.decode import generate_steps
from audiolm.lm.sampling import sample
from audiolm.lm.sequences import expand_runs, merge_repeats, split_runs
from audiolm.receipt import derive_seed

EVENT_STEPS = 5  # decoding steps between events: what a stop has to wait for
FINE_WINDOW_FRAMES = 3 * FRAME_RATE_HZ  # the paper's non-overlapping windows of 3 s
MAX_FINE_ROWS = 128  # windows decoded at once; bounds the cache of long runs
TYPICAL_RUN = 2.8  # mean run of equal semantic tokens (64 % repeat), for layouts that drop durations

StageEvents = Generator[Event | None, None, Tensor]
"""None while a stage waits for tokens of the one before it."""
Generate = Callable[..., Iterator[Tensor]]
"""`lm.decode.generate_steps`, or what does the same for many runs at once."""
Value = TypeVar("Value")


@torch.no_grad()
def finished(events: Generator[Any, None, Value]) -> Value:
    """Runs a generator to its end, for callers that show nothing on the way -> what it returns."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value


@dataclass
class Meter:
    """Adds up a stage's own time; what the receiver of events does in between is not counted."""

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0

    @contextmanager
    def measure(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def timed(self, steps: Iterator[Tensor | None]) -> Iterator[Tensor | None]:
        """Passes on [B, L] steps, on the CPU: the copy is what waits for an accelerator to be done with a step."""
        while True:
            with self.measure():
                tokens = next(steps, steps)
                if tokens is steps:
                    return
                tokens = None if tokens is None else tokens.cpu()
            self.steps += tokens is not None
            self.tokens += 0 if tokens is None else tokens.numel()
            yield tokens

    @property
    def timing(self) -> StageTiming:
        return StageTiming(self.seconds, self.steps, self.tokens)


@dataclass
class StageRun:
    """One stage's model, sampling and row seeds (their number is the number of continuations N)."""

    model: StageModel
    sampling: SamplingConfig
    seeds: list[int]
    meter: Meter = field(default_factory=Meter)
    generate: Generate = generate_steps

    @property
    def stage(self) -> str:
        return self.model.config.stage

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def generators(self, *path: str | int) -> list[torch.Generator]:
        """One a row, seeded with the row's seed itself or, with a path, with what is derived from it."""
        seeds = [derive_seed(seed, *path) if path else seed for seed in self.seeds]
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def progress(self, done: int, total: int) -> Progress:
        return Progress(self.stage, done, total, self.meter.timing.tokens_per_s)

    def decode(
        self,
        history: Tensor | None,
        condition: Tensor | Excerpt | None,
        num_steps: int,
        generators: list[torch.Generator],
        count: Callable[[Tensor], tuple[int, int]],
        first_step: int | None,
    ) -> StageEvents:
        """Up to `num_steps` new steps [B, n, L] after `history` [1 or B, n0, L] (the model's window of it).

        `count` is told every step's tokens [B, L] and answers (done, total); decoding ends once done reaches total.
        Chunks are numbered from `first_step`; None leaves them out, for batches whose rows are not continuations.
        """
        steps = self.generate(
            self.model,
            prompt=history,
            condition=condition,
            num_steps=num_steps,
            sampling=self.sampling,
            generators=generators,
        )
        new: list[Tensor] = []
        sent = 0
        with closing(steps):
            for tokens in self.meter.timed(steps):
                if tokens is None:
                    yield None
                    continue
                new.append(tokens)
                done, total = count(tokens)
                if len(new) - sent == EVENT_STEPS or len(new) == num_steps or done >= total:
                    if first_step is not None:
                        yield Chunk(self.stage, torch.stack(new[sent:], dim=1), first_step + sent)
                    sent = len(new)
                    yield self.progress(done, total)
                if done >= total:
                    break
        return torch.stack(new, dim=1)


def run_semantic(
    run: StageRun, prompt_ids: Tensor, num_positions: int, seeds: list[int], into: Growing | None = None
) -> StageEvents:
    """Continues semantic ids, [S0] of all rows or [N, S0], to [N, num_positions] at 25 Hz; S0 = 0: from nothing.

    The prompts' ids are kept. Depth layout: steps of (token, run length - 1) until every row is long enough. A prompt's
    last run was cut by the prompt's end, so its length is drawn again, no shorter than observed, from `seeds`, one a
    prompt: the rows of one prompt then share one prefill. Flattened layout (the paper's, one level): merging has
    dropped durations, so the number of tokens follows the prompt's mean run and the new tokens are spread evenly over
    the time asked for.

    `into`, which starts as the prompts' ids [N, S0, 1], gets every position as soon as all rows have it.

    Raises RequestError for prompts of different numbers of steps (`semantic_prompt`).
    """
    prompt_ids = torch.atleast_2d(prompt_ids.cpu())
    prompts = [semantic_prompt(run.model.config, ids) for ids in prompt_ids]
    if len({len(prompt) for prompt in prompts}) > 1:
        raise RequestError("prompts that are continued together must have equally many semantic steps")
    prompt, num_known = torch.stack(prompts), prompt_ids.shape[1]
    needed, mean_run = num_positions - num_known, num_known / prompt.shape[1] if num_known else TYPICAL_RUN
    limit = semantic_limit(run.model.config, mean_run)
    if run.model.config.layout == "depth":
        prompt = _redraw_last_run(run, prompt, seeds, limit) if num_known else prompt
        return (yield from _run_semantic_depth(run, prompt, num_known, num_positions, limit, into))
    num_tokens = max(1, math.ceil(needed / mean_run))
    rows = prompt.expand(len(run.seeds), -1, -1)
    rows = yield from _run_counted(run, rows, lambda start, end: None, prompt.shape[1] + num_tokens, limit)
    spread = prompt.shape[1] + torch.arange(needed) * num_tokens // needed
    ids = rows[:, spread, 0]
    for column in ids.unbind(1) if into is not None else ():
        into.append(column[:, None])
    return torch.cat([prompt_ids.expand(len(run.seeds), -1), ids], dim=1)


def semantic_prompt(config: StageConfig, ids: Tensor) -> Tensor:
    """Semantic ids [S] -> the steps [R, L] that a semantic stage of this config reads for them."""
    merged, runs = merge_repeats(ids)
    if config.layout == "flattened":
        return merged[:, None]
    merged, runs = split_runs(merged, runs, config.levels[1])
    return torch.stack([merged, runs - 1], dim=1)


def semantic_limit(config: StageConfig, mean_run: float) -> int:
    """How many steps a semantic stage reads at most, where a step stands for `mean_run` positions.

    It learnt on `max_steps` positions before merging; long silences must not shrink that much.
    """
    return max(2, int(config.max_steps / min(mean_run, TYPICAL_RUN)))


def _redraw_last_run(run: StageRun, prompt: Tensor, seeds: list[int], limit: int) -> Tensor:
    """prompt [P, R, 2] with the last run lengths drawn from the model's distribution, none shorter than it was."""
    with run.meter.measure():
        logits = run.model.logits(prompt[:, -limit:].to(run.device), None)[1][:, -1].float().cpu()
    logits = logits.masked_fill(torch.arange(logits.shape[1]) < prompt[:, -1, 1:], -math.inf)
    uniforms = torch.cat([torch.rand(1, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    last = torch.stack([prompt[:, -1, 0], sample(logits, uniforms, run.sampling)], dim=1)
    return torch.cat([prompt[:, :-1], last[:, None]], dim=1)


def _run_semantic_depth(
    run: StageRun, prompt: Tensor, num_known: int, num_positions: int, limit: int, into: Growing | None
) -> StageEvents:
    """prompt [P, R, 2], of `num_known` positions before its last runs were drawn again -> ids [N, num_positions]."""
    rows, needed = prompt.expand(len(run.seeds), -1, -1), num_positions - num_known
    reached = (rows[..., 1] + 1).sum(dim=1) - num_known
    spreading = None if into is None else _Spreading(into, rows)

    def count(tokens: Tensor) -> tuple[int, int]:
        nonlocal reached
        reached = reached + tokens[:, 1] + 1
        if spreading is not None:
            spreading.add(tokens)
        return min(int(reached.min()), needed), needed

    generators = run.generators()
    while int(reached.min()) < needed:
        total = rows.shape[1] + needed - int(reached.min())
        start, room = decoding_window(run.model.config, rows.shape[1], total, limit)
        new = yield from run.decode(_shared(rows[:, start:]), None, room, generators, count, rows.shape[1])
        rows = torch.cat([rows, new], dim=1)
    return torch.stack([expand_runs(row[:, 0], row[:, 1] + 1)[:num_positions] for row in rows])


class _Spreading:
    """Appends the positions of rows of runs to a `Growing` of ids, as far as all rows have come."""

    def __init__(self, into: Growing, rows: Tensor) -> None:
        """rows [N, R, 2] are the prompts' steps, the last of which may reach beyond the prompt."""
        self._into = into
        self._ids = [expand_runs(row[:, 0], row[:, 1] + 1).tolist() for row in rows]
        self._flush()

    def add(self, tokens: Tensor) -> None:
        """One more step [N, 2] of (token, run length - 1)."""
        for ids, (token, more) in zip(self._ids, tokens.tolist(), strict=True):
            ids += [token] * (more + 1)
        self._flush()

    def _flush(self) -> None:
        for position in range(len(self._into), min(map(len, self._ids))):
            self._into.append(torch.tensor([[ids[position]] for ids in self._ids]))


def run_coarse(
    run: StageRun, semantic: Tensor | Growing, prompt: Tensor, num_frames: int, into: Growing | None = None
) -> StageEvents:
    """Coarse codes [N, num_frames, L] for semantic ids [N, S] (2 S >= num_frames), going on from the prompt's codes.

    Those are [F0, L] or each row's [N, F0, L]. F0 = 0 leaves voice and room to the model: acoustic generation. Ids may
    still be growing, where `run.generate` takes such; `into`, which starts as the prompt's codes, gets every frame
    as it is made.
    """
    stride = run.model.config.condition_stride
    if isinstance(semantic, Tensor):
        semantic = Growing(semantic[..., None], semantic.shape[1])

    def condition(start: int, end: int) -> Excerpt:
        first, last = start // stride, -(-end // stride)
        return Excerpt(semantic, first, last, last - first)

    prompt = prompt.cpu().expand(len(run.seeds), -1, -1)
    return (yield from _run_counted(run, prompt, condition, num_frames, run.model.config.max_steps, into))


def _run_counted(
    run: StageRun,
    rows: Tensor,
    condition: Callable[[int, int], Excerpt | None],
    num_steps: int,
    limit: int,
    into: Growing | None = None,
) -> StageEvents:
    """Extends [N, n0, L] to [N, num_steps, L], in windows of `limit` steps with `condition(start, end)`."""
    first, done, generators = rows.shape[1], 0, run.generators()

    def count(tokens: Tensor) -> tuple[int, int]:
        nonlocal done
        done += 1
        if into is not None:
            into.append(tokens)
        return done, num_steps - first

    while rows.shape[1] < num_steps:
        start, room = decoding_window(run.model.config, rows.shape[1], num_steps, limit)
        known = condition(start, rows.shape[1] + room)
        known = _shared(known.whole()) if known is not None and known.is_complete else known
        new = yield from run.decode(_shared(rows[:, start:]), known, room, generators, count, rows.shape[1])
        rows = torch.cat([rows, new], dim=1)
    return rows


def decoding_window(config: StageConfig, length: int, total: int, limit: int) -> tuple[int, int]:
    """(first step of the history to keep, number of steps to add) where `length` of `total` steps are there.

    Everything, where the total fits `limit`, the trained length; else a history of half of it at most, from a whole
    condition step on, so that the model works at the lengths it was trained on however long the run is.
    """
    stride = config.condition_stride
    limit = max(2, limit // stride) * stride
    if total <= limit:
        return 0, total - length
    start = max(0, length - limit // 2)
    start = -(-start // stride) * stride
    return start, min(total, start + limit) - length


def _shared(rows: Tensor | None) -> Tensor | None:
    """One row where all are equal (it is then read once), None where there is nothing."""
    if rows is None or not rows.shape[1]:
        return None
    return rows[:1] if bool((rows == rows[:1]).all()) else rows


def run_fine(run: StageRun, coarse: Tensor, prompt: Tensor) -> StageEvents:
    """Fine codes [N, F, L] for coarse codes [N, F, Lc], in windows of 3 s from frame 0.

    They go on from the prompt's codes, [F0, L] or each row's [N, F0, L]. A window that straddles the prompt's end is
    continued from its prompt frames; all later windows, of all rows, are decoded as one batch, each from nothing, as in
    the paper.
    """
    known, size, num_rows = prompt.shape[-2], fine_window(run.model.config), len(run.seeds)
    rows, coarse = prompt.cpu().expand(num_rows, -1, -1), coarse.cpu()
    index, offset = divmod(known, size)
    joint = min(size - offset, coarse.shape[1] - known) if offset else 0
    rest = coarse[:, known + joint :]
    num_windows, length = -(-rest.shape[1] // size), min(size, rest.shape[1])
    done, work, frames = 0, num_rows * (joint + num_windows * length), coarse.shape[1] - known

    def count(tokens: Tensor) -> tuple[int, int]:
        nonlocal done
        done += tokens.shape[0]
        return done * frames // work, frames

    if joint:
        generators, window = run.generators("window", index), coarse[:, known - offset : known + joint]
        history = _shared(rows[:, known - offset :])
        new = yield from run.decode(history, _shared(window), joint, generators, count, known)
        rows, index = torch.cat([rows, new], dim=1), index + 1
    if num_windows:
        new = yield from _run_windows(run, rest, index, count)
        yield Chunk(run.stage, new, known + joint)
        rows = torch.cat([rows, new], dim=1)
    return rows


def _run_windows(
    run: StageRun, coarse: Tensor, first_index: int, count: Callable[[Tensor], tuple[int, int]]
) -> StageEvents:
    """[N, F, Lc] -> [N, F, L], whole windows at once; the last one is padded by repeating its last coarse frame."""
    num_rows, num_frames, _ = coarse.shape
    length = min(fine_window(run.model.config), num_frames)
    num_windows = -(-num_frames // length)
    padding = coarse[:, -1:].expand(-1, num_windows * length - num_frames, -1)
    windows = torch.cat([coarse, padding], dim=1).reshape(num_rows * num_windows, length, -1)
    of_window = [run.generators("window", first_index + number) for number in range(num_windows)]
    generators = [of_window[number][row] for row in range(num_rows) for number in range(num_windows)]
    parts = []
    for start in range(0, len(generators), MAX_FINE_ROWS):
        batch = slice(start, start + MAX_FINE_ROWS)
        parts.append((yield from run.decode(None, windows[batch], length, generators[batch], count, None)))
    return torch.cat(parts).reshape(num_rows, num_windows * length, -1)[:, :num_frames]


def fine_window(config: StageConfig) -> int:
    """Frames of the windows that a fine stage decodes one by one, each from nothing."""
    return min(FINE_WINDOW_FRAMES, config.max_steps)
