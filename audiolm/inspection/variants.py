"""The same clip in other versions: fewer codec levels, its semantic tokens alone, and runs with a part left out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audiolm import receipt
from audiolm.audio.distortion import mel_distance, si_sdr_db
from audiolm.audio.loudness import SILENCE_LUFS, integrated_loudness
from audiolm.events import Continuation, Event, Progress, Result
from audiolm.pipeline import Pipeline
from audiolm.receipt import Receipt
from audiolm.request import MAX_CONTINUATION_S, ContinuationRequest
from audiolm.streams import Waveform

FULL = "full"
ABLATIONS = (FULL, *receipt.ABLATIONS)
LADDER_LEVELS = (12, 8, 4, 2, 1)


@dataclass(frozen=True)
class Rung:
    """One version of a clip; all rungs of a ladder have one length and, within 0.1 LU, one loudness.

    `num_levels` is how many codec levels were decoded (None: the original, and draws), `draw` counts from 1 the
    generations that follow the clip's semantic tokens alone. `mel_distance` (nats) and `si_sdr_db` compare with the
    original; a draw has no SI-SDR, since nothing ties its waveform to the original's. A draw is generated and has a
    receipt, of the tokens before the loudness was matched.
    """

    label: str
    waveform: Waveform
    num_levels: int | None = None
    draw: int | None = None
    mel_distance: float | None = None
    si_sdr_db: float | None = None
    generated: bool = False
    receipt: Receipt | None = None


def ladder(
    pipeline: Pipeline, waveform: Waveform, seed: int, num_draws: int = 2
) -> Generator[Progress, None, tuple[Rung, ...]]:
    """The original, what 12, 8, 4, 2 and 1 codec levels keep of it, and `num_draws` made of its semantic tokens alone.

    At most the first 60 s, in whole semantic positions (40 ms). Draws are acoustic generations without a voice: the
    model chooses who speaks or what instrument plays.

    Raises RequestError for a number of draws or a seed out of bounds; AudioTooShortError, AudioSilentError,
    DeviceMemoryError.
    """
    original = pipeline.encode(waveform, MAX_CONTINUATION_S).pcm
    counts = [count for count in LADDER_LEVELS if count <= pipeline.num_levels]
    rungs = [Rung("original", original)]
    for count in counts:
        yield Progress("decode", len(rungs) - 1, len(counts), 0.0)
        label = f"{count} level{'s' * (count > 1)}"
        rungs.append(Rung(label, pipeline.reconstruct(original, count), num_levels=count))
    yield Progress("decode", len(counts), len(counts), 0.0)
    if num_draws:
        request = ContinuationRequest(
            continuation_s=original.duration_s,
            num_continuations=num_draws,
            seed=seed,
            **pipeline.models.info.sampling,
        )
        result = yield from result_of(pipeline.acoustic(original, request))
        for draw, one in enumerate(result.continuations, start=1):
            label = f"semantic only, draw {draw}"
            rungs.append(Rung(label, one.waveform, draw=draw, generated=True, receipt=one.receipt))
    return _measured(rungs)


def _measured(rungs: list[Rung]) -> tuple[Rung, ...]:
    """The rungs at the first one's loudness, or all softer where one of them would clip, with their distances."""
    heard = matched_loudness(torch.stack([rung.waveform.samples for rung in rungs]))
    measured = [replace(rungs[0], waveform=Waveform(heard[0]))]
    for rung, samples in zip(rungs[1:], heard[1:], strict=True):
        si_sdr = None if rung.generated else float(si_sdr_db(samples, heard[0]))
        distance = mel_distance(samples, heard[0])
        measured.append(replace(rung, waveform=Waveform(samples), mel_distance=distance, si_sdr_db=si_sdr))
    return tuple(measured)


def matched_loudness(waveforms: Tensor) -> Tensor:
    """[R, T] -> [R, T], all as loud as the first, or all softer by one factor where a peak would pass full scale.

    Silent ones stay silent.
    """
    loudness = integrated_loudness(waveforms)
    gains = 10.0 ** ((loudness[:1] - loudness) / 20.0)
    matched = waveforms * torch.where(loudness > SILENCE_LUFS, gains, 1.0)[:, None]
    return matched / matched.abs().max().clamp_min(1.0)


def ablate(
    pipeline: Pipeline, prompt: Waveform, request: ContinuationRequest
) -> Generator[Progress, None, dict[str, Continuation]]:
    """One continuation by the full model and by each ablation of `Pipeline.continue_prompt`, all with one seed.

    In the order of ABLATIONS. The full one is the first row of a plain run.

    Raises as `Pipeline.continue_prompt`.
    """
    request, made = replace(request, num_continuations=1), {}
    for name in ABLATIONS:
        result = yield from result_of(pipeline.continue_prompt(prompt, request, "" if name == FULL else name))
        made[name] = result.continuations[0]
    return made


def result_of(events: Generator[Event]) -> Generator[Progress, None, Result]:
    for event in events:
        if isinstance(event, Progress):
            yield event
    assert isinstance(event, Result), "a run ends with its result"
    return event
