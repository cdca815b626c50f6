"""A run whose stages overlap and whose sound is heard while it is made: the same tokens as one stage after the other.

The coarse stage follows some 0.2 s of semantic tokens behind, the fine stage some 0.1 s of coarse frames, and the codec
decodes what is there, in blocks. What streams exactly, and what waits:

- tokens: each stage's windows are what `audiolm.stages` makes of them, so they are equal by construction;
- sound: the decoder is causal but for its look-ahead (80 ms) and searches phases in blocks of 0.5 s, each once and for
  all. Blocks of BLOCK_FRAMES frames from the first frame on are all that ever decodes a run, streamed or not: equal
  samples. The first second is there some 60 frames after the prompt's end;
- a preview from the coarse levels alone goes on from the state of the decoder where the fine tokens end. Its phases are
  its own, so a listener who is taken from it to the fine version needs a crossfade at the change.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from audiolm.codec import Codec
from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from audiolm.events import Event, Sound
from audiolm.growing import Excerpt, Growing
from audiolm.stages import Meter, StageEvents, StageRun, fine_window, run_coarse, run_semantic

BLOCK_FRAMES = 25  # 0.5 s, a block of the phase search
CHUNK_SAMPLES = SAMPLE_RATE_HZ  # what is heard at a time: 1 s
MAX_REST_SAMPLES = SAMPLE_RATE_HZ // 10  # heard with the second before it
LAG_FRAMES = FRAME_RATE_HZ  # of the fine stage behind the coarse one, from which on a preview is worth its work

Value = TypeVar("Value")


def interleave(*tasks: Generator[Any, None, Value]) -> Generator[Any, None, list[Value]]:
    """Runs generators in turns; yields what they yield, but for the Nones of those that wait -> what they return.

    One None is yielded where all of them wait for something outside.
    """
    results: list[Any] = [None] * len(tasks)
    waiting = dict(enumerate(tasks))
    try:
        while waiting:
            idle = True
            for number, task in list(waiting.items()):
                try:
                    event = next(task)
                except StopIteration as stop:
                    results[number] = stop.value
                    del waiting[number]
                    idle = False
                else:
                    if event is not None:
                        idle = False
                        yield event
            if idle:
                yield None
    finally:
        for task in tasks:
            task.close()
    return results


def stream_fine(run: StageRun, coarse: Growing, prompt: Tensor, into: Growing) -> StageEvents:
    """`stages.run_fine` on coarse frames that are still being made -> [N, F, L], the prompt's codes [F0, L] included.

    `into`, which starts as the prompt's codes, gets every frame once all before it are there.
    """
    known, size, num_rows = prompt.shape[-2], fine_window(run.model.config), len(run.seeds)
    total, counter = coarse.total, _Counter(coarse.total - known)
    index, offset = divmod(known, size)
    start, tasks, windows = known, [], []
    if offset and total > known:
        start = min(known - offset + size, total)
        windows.append([])
        history = prompt.cpu()[None, known - offset :]
        tasks.append(_window(run, coarse, (known, start), index, counter, windows[-1], history))
        index += 1
    length = min(size, total - start)
    for number, first in enumerate(range(start, total, size)):
        windows.append([])
        tasks.append(_window(run, coarse, (first, first + length), index + number, counter, windows[-1]))
    for event in interleave(*tasks):
        _flush(windows, known, into)
        yield event
    _flush(windows, known, into)
    made = [torch.stack(window, dim=1) for window in windows]
    return torch.cat([prompt.cpu().expand(num_rows, -1, -1), *made], dim=1)


def _flush(windows: list[list[Tensor]], known: int, into: Growing) -> None:
    """Appends what is there without a gap."""
    start = known
    for window in windows:
        for step in window[max(0, len(into) - start) :]:
            into.append(step)
        start += len(window)
        if len(into) < start or not window:
            return


class _Counter:
    """Counts the frames of all windows together: (done, total)."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total

    def add(self) -> tuple[int, int]:
        self._done = min(self._done + 1, self._total)
        return self._done, self._total


def _window(
    run: StageRun,
    coarse: Growing,
    span: tuple[int, int],
    index: int,
    counter: _Counter,
    made: list[Tensor],
    history: Tensor | None = None,
) -> Generator[Event | None]:
    """Fine frames `span` as their coarse ones come, from `history` [1, n, L] or from nothing, into `made`."""
    start, end = span[0], min(span[1], coarse.total)
    first = start - (0 if history is None else history.shape[1])
    condition = Excerpt(coarse, first, end, span[1] - first)  # the last window is as long as the others

    def count(tokens: Tensor) -> tuple[int, int]:
        made.append(tokens)
        return counter.add()

    yield from run.decode(history, condition, end - start, run.generators("window", index), count, start)


class Sounding:
    """One row's way through the codec's decoder: frames in blocks, samples as they become final. A copy goes its own
    way from there on."""

    def __init__(self, codec: Codec, meter: Meter) -> None:
        self._codec, self._meter, self._state = codec, meter, codec.init_decode_state(1)
        self._pieces: list[Tensor] = []
        self.position = 0  # frames read
        self.num_samples = 0  # final ones

    def copy(self) -> Sounding:
        other = object.__new__(Sounding)
        other.__dict__.update(self.__dict__, _pieces=list(self._pieces))
        return other

    def read(self, codes: Tensor, is_last: bool) -> None:
        """codes [n, q], any q from 1 to all levels."""
        codec = self._codec
        with self._meter.measure():
            samples, self._state = codec.decode_step(codes[None].to(codec.codebooks().device), self._state)
            self._keep(samples)
            if is_last:
                self._keep(codec.decode_flush(self._state))
        self.position += codes.shape[0]

    def _keep(self, samples: Tensor) -> None:
        self._pieces.append(samples[0].float().cpu())
        self.num_samples += samples.shape[1]

    def samples(self) -> Tensor:
        """[T], all that are final."""
        return torch.cat(self._pieces)


def sound(rows: list[Sounding], streams: tuple[Growing, ...]) -> Iterator[None]:
    """Takes all frames of the streams, whose levels make up a frame, to the rows; yields after every row's block."""
    total = streams[0].total
    for start in range(0, total, BLOCK_FRAMES):
        end = min(start + BLOCK_FRAMES, total)
        for stream in streams:
            yield from stream.until(end)
        codes = torch.cat([stream.span(start, end) for stream in streams], dim=2)
        for row, block in zip(rows, codes, strict=True):
            row.read(block, end == total)
            yield None


@dataclass(frozen=True)
class Start:
    """What is known before the first token: the prompt's ids [S0] and codes [F0, Q], the length of the whole, the seed
    of the join."""

    semantic: Tensor
    codes: Tensor
    num_frames: int
    join_seed: int

    @property
    def first_sample(self) -> int:
        return self.codes.shape[0] * SAMPLES_PER_FRAME


Heard = Callable[[Tensor, int], Tensor]
"""(samples [T] from the decoder, first of the chunk at their end) -> that chunk as it is heard [n] int16."""


def stream(
    stages: dict[str, StageRun], codec: Codec, start: Start, heard: Heard, meter: Meter
) -> Generator[Event | None, None, tuple[Tensor, Tensor, list[Tensor]]]:
    """All stages and the decoder at once -> semantic ids [N, S], codes [N, F, Q], decoded samples [T] of every row.

    Besides the stages' events it yields a `Sound` for each second of every row as soon as it is final, and before that
    where the coarse levels are sooner one of these alone. `meter` is the decoder's.
    """
    num_rows, num_coarse = len(stages["coarse"].seeds), len(stages["coarse"].model.config.levels)
    num_positions = -(-start.num_frames // FRAMES_PER_SEMANTIC)
    prompt = start.codes.cpu().expand(num_rows, -1, -1)
    coarse_prompt, fine_prompt = prompt[..., :num_coarse], prompt[..., num_coarse:]
    semantic = Growing(start.semantic.cpu().expand(num_rows, -1)[..., None], num_positions)
    coarse, fine = Growing(coarse_prompt, start.num_frames), Growing(fine_prompt, start.num_frames)
    rows = [Sounding(codec, meter) for _ in range(num_rows)]
    chunks = _Chunks(start, num_rows, heard)
    ids, coarse_codes, fine_codes, *_ = yield from interleave(
        run_semantic(stages["semantic"], start.semantic, num_positions, [start.join_seed], semantic),
        run_coarse(stages["coarse"], semantic, coarse_prompt, start.num_frames, coarse),
        stream_fine(stages["fine"], coarse, start.codes[:, num_coarse:], fine),
        _final(rows, (coarse, fine), chunks),
        _preview(rows, coarse, fine, chunks),
    )
    return ids, torch.cat([coarse_codes, fine_codes], dim=2), [row.samples() for row in rows]


class _Chunks:
    """The seconds of sound after the prompt, and which of them have been told in full."""

    def __init__(self, start: Start, num_rows: int, heard: Heard) -> None:
        self._first, self._end, self._heard = start.first_sample, start.num_frames * SAMPLES_PER_FRAME, heard
        self.count = max(1, -(-(self._end - self._first - MAX_REST_SAMPLES) // CHUNK_SAMPLES))
        self.told = [0] * num_rows

    def end(self, chunk: int) -> int:
        """The sample after its last."""
        return self._end if chunk == self.count - 1 else self._first + (chunk + 1) * CHUNK_SAMPLES

    def sound(self, row: int, chunk: int, samples: Tensor, stage: str) -> Sound:
        first = self._first + chunk * CHUNK_SAMPLES
        return Sound(row, chunk, self.count, self._heard(samples[: self.end(chunk)], first), stage)


def _final(rows: list[Sounding], streams: tuple[Growing, ...], chunks: _Chunks) -> Iterator[Sound | None]:
    for _ in sound(rows, streams):
        for number, row in enumerate(rows):
            while chunks.told[number] < chunks.count and row.num_samples >= chunks.end(chunks.told[number]):
                chunks.told[number] += 1
                yield chunks.sound(number, chunks.told[number] - 1, row.samples(), "fine")
        yield None


def _preview(rows: list[Sounding], coarse: Growing, fine: Growing, chunks: _Chunks) -> Iterator[Sound | None]:
    """Chunks from the coarse levels alone, where they are sooner: the first one, and any while the fine stage lags."""
    blocks_of_prompt = len(coarse) // BLOCK_FRAMES
    while rows[-1].position < blocks_of_prompt * BLOCK_FRAMES:
        yield None
    ahead = [row.copy() for row in rows]
    for chunk in range(chunks.count):
        for number in range(len(rows)):
            while chunks.told[number] <= chunk and ahead[number].num_samples < chunks.end(chunk):
                if rows[number].position > ahead[number].position:
                    ahead[number] = rows[number].copy()
                first, end = ahead[number].position, min(ahead[number].position + BLOCK_FRAMES, coarse.total)
                lags = chunk == 0 or len(coarse) - len(fine) >= LAG_FRAMES
                if lags and first < end <= len(coarse):
                    ahead[number].read(coarse.span(first, end)[number], end == coarse.total)
                yield None
            if chunks.told[number] <= chunk:
                yield chunks.sound(number, chunk, ahead[number].samples(), "coarse")
