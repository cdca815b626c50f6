"""What a run of the pipeline yields, step by step. Values only: no models, no files."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from audiolm.detector import Verdict
from audiolm.receipt import Receipt
from audiolm.streams import AcousticTokens, SemanticTokens, Waveform


@dataclass(frozen=True)
class Progress:
    """How far a stage is. `done` and `total` count positions at the stage's rate (25 or 50 Hz), or outputs."""

    stage: str
    done: int
    total: int
    tokens_per_s: float


@dataclass(frozen=True)
class Chunk:
    """New tokens [N, steps, L] of N continuations, from step `start_step` of the stage's stream (prompt included).

    Semantic, depth layout: a step is (token, run length - 1). Coarse and fine: a step is a frame of 50 Hz.
    """

    stage: str
    tokens: Tensor
    start_step: int


@dataclass(frozen=True)
class Sound:
    """A second of what continuation `row` adds to the prompt, before the end of the run; `samples` [n] are int16.

    Chunk k of `num_chunks` starts k seconds after the prompt; the last one may be shorter, or up to 0.1 s longer. Of
    stage "coarse" it is a preview from these levels alone; the one of stage "fine" comes later and takes its place.
    Generated, all of it.
    """

    row: int
    chunk: int
    num_chunks: int
    samples: Tensor
    stage: str


@dataclass(frozen=True)
class StageTiming:
    """`steps` are sequential decoding steps, `tokens` what they made over all rows and levels."""

    seconds: float
    steps: int = 0
    tokens: int = 0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def ms_per_step(self) -> float:
        return 1000.0 * self.seconds / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class Continuation:
    """One output. `waveform` and both token streams start with what was kept of the prompt, `prompt_s` (0: nothing)."""

    waveform: Waveform
    prompt_s: float
    semantic: SemanticTokens
    acoustic: AcousticTokens
    verdict: Verdict | None
    receipt: Receipt

    @property
    def generated_part(self) -> Waveform:
        return self.waveform.seconds(self.prompt_s)


@dataclass(frozen=True)
class Result:
    """The end of a run: its outputs, and the time each stage took."""

    continuations: tuple[Continuation, ...]
    timings: dict[str, StageTiming]

    @property
    def seconds(self) -> float:
        return sum(timing.seconds for timing in self.timings.values())

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of one run's generated audio; under 1 is faster than it sounds."""
        return self.seconds / self.continuations[0].generated_part.duration_s


Event = Progress | Chunk | Sound | Result
