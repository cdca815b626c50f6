"""What a token stands for in the clips that a visitor has open, and the sound of it where it occurs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from app.timeline_payload import Selection
from audiolm.audio import files
from audiolm.checkpoints import CheckpointInfo
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import RequestError
from audiolm.events import Continuation
from audiolm.inspection.dictionary import Entry, Occurrence, entry_in
from audiolm.inspection.timeline import Timeline
from audiolm.streams import Waveform

MAX_OPEN = 4  # clips that a visitor has open besides the continuations of the last run
MAX_HEARD = 12
CONTEXT_S = 0.2  # heard before and after an occurrence: a token alone is a click
SILENCE_S = 0.1  # between occurrences, so that a player that stops late betrays nothing of the next


@dataclass(frozen=True)
class OpenClip:
    """A clip in a visitor's page, the checkpoint that reads it, and the run that made it where that is known."""

    name: str
    checkpoint: CheckpointInfo
    timeline: Timeline
    continuation: Continuation | None = None


@dataclass(frozen=True)
class Heard:
    """An occurrence, in clip `name`, and where it lies in the file of them all, context included."""

    name: str
    occurrence: Occurrence
    start_s: float
    end_s: float


@dataclass(frozen=True)
class LookedUp:
    """A token's entry over `clips`, and the first occurrences as one file."""

    entry: Entry
    clips: tuple[OpenClip, ...]
    audio: Path
    heard: tuple[Heard, ...]


def look_up(clips: Sequence[OpenClip], selection: Selection, folder: Path) -> LookedUp:
    """The selected token in the clips read by the first one's checkpoint; the file is written into the folder.

    Raises RequestError where no clip is open, or none has such tokens or this one.
    """
    if not clips:
        raise RequestError("no clip is open here any more: inspect it again")
    same = tuple(clip for clip in clips if clip.checkpoint.sha256 == clips[0].checkpoint.sha256)
    entry = entry_in([clip.timeline for clip in same], selection.id, selection.family, selection.level)
    if not entry.occurrences:
        raise RequestError(f"no open clip has {selection.family} token {selection.id} at level {selection.level}")
    parts: list[torch.Tensor] = []
    heard: list[Heard] = []
    for occurrence in entry.occurrences[:MAX_HEARD]:
        clip = same[occurrence.clip]
        part = clip.timeline.waveform.seconds(max(0.0, occurrence.start_s - CONTEXT_S), occurrence.end_s + CONTEXT_S)
        start_s = sum(one.shape[0] for one in parts) / SAMPLE_RATE_HZ
        heard.append(Heard(clip.name, occurrence, start_s, start_s + part.duration_s))
        parts += [part.samples, torch.zeros(round(SILENCE_S * SAMPLE_RATE_HZ))]
    audio = folder / f"{selection.family}-{selection.level}-{selection.id}.wav"
    files.write_wav(audio, Waveform(torch.cat(parts)))
    return LookedUp(entry, same, audio, tuple(heard))


def with_opened(clips: Sequence[OpenClip], new: OpenClip) -> tuple[OpenClip, ...]:
    """The new clip first, then those that were open before, MAX_OPEN in all."""
    return (new, *clips)[:MAX_OPEN]
