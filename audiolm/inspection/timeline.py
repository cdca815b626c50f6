"""One time axis for everything known of a clip: sound, token lanes with their scores, detector, seam and notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SEMANTIC_RATE_HZ
from audiolm.detector import Verdict
from audiolm.errors import AudioSilentError, AudioTooShortError, EvaluationError
from audiolm.events import Continuation, Progress
from audiolm.inspection.pianoroll import Roll, estimate_roll
from audiolm.inspection.scores import (
    NUM_ALTERNATIVES,
    Scoring,
    TokenScores,
    score_coarse,
    score_fine,
    score_semantic,
)
from audiolm.inspection.seam import Seam, measure_seam
from audiolm.pipeline import Pipeline
from audiolm.receipt import NO_SEMANTIC, SHUFFLED, Receipt
from audiolm.streams import Waveform

HEARD_AGAIN = "read from the finished sound, not what the model chose; run lengths are an estimate"
ABLATION_NOTES = {
    NO_SEMANTIC: "only the prompt has semantic tokens: this run had no semantic stage",
    SHUFFLED: "the new tokens are in random order, as the coarse stage followed them",
}
TABLE_COLUMNS = (
    *("time_s", "level", "id", "nats", "entropy", "rank"),
    *(f"likeliest_{place}" for place in range(1, NUM_ALTERNATIVES + 1)),
)


@dataclass(frozen=True)
class TokenLane:
    """Tokens [N, L] of one family under one label; token n covers the time from n / rate_hz to (n + 1) / rate_hz.

    `first_level` is the number of the first row as shown: 1 for coarse, 5 for fine (after 4 coarse levels), 0 for
    semantic. An id of -1 is no token: an ablation left it out. Where tokens are not those that the model chose or read,
    the `note` says so.
    """

    family: str  # "semantic", "coarse" or "fine"
    label: str
    rate_hz: int  # 25 or 50
    first_level: int
    ids: Tensor  # [N, L]
    scores: TokenScores | None = None
    note: str = ""

    @property
    def duration_s(self) -> float:
        return self.ids.shape[0] / self.rate_hz


@dataclass(frozen=True)
class Timeline:
    """A clip of 16 kHz, mono, and what is known of it. All times count from its start but the verdict's segments.

    `prompt_s` is 0 where there is no prompt, `generated` is true where a model made any part of it. The verdict's
    segment times count from `verdict_start_s`. Lanes are as long as the audio, to within one token. `roll` is an
    estimate, of piano only.
    """

    waveform: Waveform
    prompt_s: float
    generated: bool
    lanes: tuple[TokenLane, ...]
    verdict: Verdict | None = None
    verdict_start_s: float = 0.0
    seam: Seam | None = None
    roll: Roll | None = None


Building = Generator[Progress, None, Timeline]


def of_continuation(pipeline: Pipeline, continuation: Continuation, with_scores: bool) -> Building:
    """The timeline of a run's output.

    The semantic lane holds the ids as generated where the stage predicts run lengths; a second one holds those of the
    finished sound. A flattened stage loses durations: then there is only the second. Sound too short or too soft to be
    read again leaves it out.

    Raises DeviceMemoryError.
    """
    waveform, ids, codes = continuation.waveform, continuation.semantic.ids, continuation.acoustic.codes
    lanes: list[tuple[TokenLane, Scoring]] = []
    if _is_aligned(pipeline, continuation.receipt):
        lanes.append(_semantic_lane(pipeline, "semantic", ids, ABLATION_NOTES.get(continuation.receipt.ablation, "")))
    yield Progress("encode", 0, 1, 0.0)
    try:
        again = pipeline.encode(waveform).semantic
        lanes.append(_semantic_lane(pipeline, "semantic, heard again", again, HEARD_AGAIN))
    except (AudioSilentError, AudioTooShortError):
        pass
    yield Progress("encode", 1, 1, 0.0)
    lanes += _acoustic_lanes(pipeline, ids, codes)
    return Timeline(
        waveform,
        continuation.prompt_s,
        generated=True,
        lanes=(yield from _scored(lanes, with_scores)),
        verdict=continuation.verdict,
        verdict_start_s=continuation.prompt_s,
        seam=_seam(waveform, continuation.prompt_s),
        roll=_roll(pipeline, waveform),
    )


def of_recording(pipeline: Pipeline, waveform: Waveform, with_scores: bool) -> Building:
    """The timeline of a real clip, scored as it is; cut to whole semantic positions (40 ms), at most 90 s.

    Raises AudioTooShortError, AudioSilentError, DeviceMemoryError.
    """
    yield Progress("encode", 0, 1, 0.0)
    encoded = pipeline.encode(waveform)
    yield Progress("encode", 1, 1, 0.0)
    lanes = [_semantic_lane(pipeline, "semantic", encoded.semantic)]
    lanes += _acoustic_lanes(pipeline, encoded.semantic, encoded.codes)
    scored = yield from _scored(lanes, with_scores)
    verdict = None if pipeline.models.detector is None else pipeline.detect(encoded.pcm)
    roll = _roll(pipeline, encoded.pcm)
    return Timeline(encoded.pcm, 0.0, generated=False, lanes=scored, verdict=verdict, roll=roll)


def _is_aligned(pipeline: Pipeline, receipt: Receipt) -> bool:
    """Whether a run's semantic ids stand where they are heard: the stage knows run lengths, or it made none of them."""
    depth = pipeline.models.stages["semantic"].config.layout == "depth"
    return depth or "semantic" not in receipt.stage_seeds


def _semantic_lane(pipeline: Pipeline, label: str, ids: Tensor, note: str = "") -> tuple[TokenLane, Scoring]:
    lane = TokenLane("semantic", label, SEMANTIC_RATE_HZ, 0, ids[:, None], note=note)
    return lane, score_semantic(pipeline, ids)


def _acoustic_lanes(pipeline: Pipeline, ids: Tensor, codes: Tensor) -> list[tuple[TokenLane, Scoring]]:
    """Of codes [F, Q]; there is no fine lane where they are coarse only."""
    split = pipeline.num_coarse_levels
    lanes = [(_code_lane("coarse", codes[:, :split], 1), score_coarse(pipeline, ids, codes))]
    if codes.shape[1] > split:
        lanes.append((_code_lane("fine", codes[:, split:], split + 1), score_fine(pipeline, codes)))
    return lanes


def _code_lane(family: str, codes: Tensor, first_level: int) -> TokenLane:
    last_level = first_level + codes.shape[1] - 1
    levels = f"{first_level}-{last_level}" if last_level > first_level else f"{first_level}"
    return TokenLane(family, f"{family} {levels}", FRAME_RATE_HZ, first_level, codes)


def _scored(
    lanes: list[tuple[TokenLane, Scoring]], with_scores: bool
) -> Generator[Progress, None, tuple[TokenLane, ...]]:
    """The lanes with their scores; progress counts the tokens' positions of all lanes."""
    if not with_scores:
        return tuple(lane for lane, _ in lanes)
    total, done, scored = sum(lane.ids.shape[0] for lane, _ in lanes), 0, []
    for lane, scoring in lanes:
        length = lane.ids.shape[0]
        scores = yield from _counted(scoring, done, length, total)
        scored.append(replace(lane, scores=scores))
        done += length
    return tuple(scored)


def _counted(scoring: Scoring, before: int, length: int, total: int) -> Scoring:
    while True:
        try:
            event = next(scoring)
        except StopIteration as stop:
            return stop.value
        yield replace(event, done=before + length * event.done // max(1, event.total), total=total)


def _seam(waveform: Waveform, prompt_s: float) -> Seam | None:
    """None without a prompt, or where prompt or continuation are too short to measure."""
    try:
        return measure_seam(waveform.samples, round(prompt_s * SAMPLE_RATE_HZ))
    except EvaluationError:
        return None


def _roll(pipeline: Pipeline, waveform: Waveform) -> Roll | None:
    return estimate_roll(waveform.samples) if pipeline.models.info.domain == "piano" else None


# ---- numbers


def summary(timeline: Timeline) -> dict[str, Any]:
    """Plain numbers for JSON, of prompt and continuation apart ("whole" where there is no prompt).

    A semantic run counts once, at its start. `rank_0_share` is how often the token was the likeliest.
    """
    parts = {"prompt": (0.0, timeline.prompt_s), "continuation": (timeline.prompt_s, timeline.waveform.duration_s)}
    if not timeline.prompt_s:
        parts = {"whole": (0.0, timeline.waveform.duration_s)}
    return {
        "duration_s": timeline.waveform.duration_s,
        "prompt_s": timeline.prompt_s,
        "generated": timeline.generated,
        "lanes": [
            {"label": lane.label, "family": lane.family, "rate_hz": lane.rate_hz, "note": lane.note}
            | {name: _lane_figures(lane, *span) for name, span in parts.items()}
            for lane in timeline.lanes
        ],
        "seam": timeline.seam and dataclasses.asdict(timeline.seam),
        "verdict": timeline.verdict and timeline.verdict.to_dict(),
        "verdict_start_s": timeline.verdict_start_s,
        "notes": None if timeline.roll is None else {n: _num_notes(timeline.roll, *span) for n, span in parts.items()},
    }


def _lane_figures(lane: TokenLane, start_s: float, end_s: float) -> dict[str, Any]:
    part = slice(round(start_s * lane.rate_hz), round(end_s * lane.rate_hz))
    starts = lane.ids[:, 0] >= 0
    if lane.family == "semantic":
        starts[1:] &= lane.ids[1:, 0] != lane.ids[:-1, 0]
    counted = starts[part]  # of the whole lane: a run of the prompt's may go on after it
    figures: dict[str, Any] = {"num_tokens": int(counted.sum()) * lane.ids.shape[1]}
    if lane.scores is None or not bool(counted.any()):
        return figures
    scores = lane.scores.rows(part)
    figures["mean_nats"] = float(scores.nats[counted].mean())
    figures["mean_nats_by_level"] = scores.nats[counted].mean(dim=0).tolist()
    figures["mean_entropy_nats"] = float(scores.entropy[counted].mean())
    figures["rank_0_share"] = float((scores.rank[counted] == 0).float().mean())
    return figures


def _num_notes(roll: Roll, start_s: float, end_s: float) -> int:
    return int(np.count_nonzero((roll.onset_s >= start_s) & (roll.onset_s < end_s)))


def table(lane: TokenLane) -> Iterator[tuple[float | int | str, ...]]:
    """Rows under TABLE_COLUMNS, one a token: alternatives are "id:probability", "" stands for what is not known."""
    for step, level in torch.nonzero(lane.ids >= 0).tolist():
        place = (step / lane.rate_hz, lane.first_level + level, int(lane.ids[step, level]))
        if lane.scores is None:
            yield (*place, *[""] * (len(TABLE_COLUMNS) - 3))
            continue
        own = lane.scores
        likeliest = zip(own.top_ids[step, level].tolist(), own.top_probabilities[step, level].tolist(), strict=True)
        yield (
            *place,
            round(float(own.nats[step, level]), 4),
            round(float(own.entropy[step, level]), 4),
            int(own.rank[step, level]),
            *(f"{id}:{probability:.4f}" if id >= 0 else "" for id, probability in likeliest),
        )
