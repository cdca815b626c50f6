"""What requests do, inside the engine process: each a generator of events, the last of which is its result."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app import versions
from app.clips import Clip, read_clip
from app.detection import judge
from app.engine.messages import Task
from app.offer import MAX_LOADED, Offer
from app.results import Finished, Inspected, Loading, Reconstructed, SavedContinuation, Started
from app.schemas import (
    MAX_CLIP_S,
    AblateRequest,
    CheckpointChoice,
    ClipRequest,
    ContinueRequest,
    LadderRequest,
    VoicesRequest,
)
from app.settings import Settings
from app.study.clips import render
from app.study.recipe import Recipe
from audiolm.audio import files
from audiolm.checkpoints import CheckpointInfo
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioError, AudioLMError
from audiolm.events import Continuation, Progress, Result
from audiolm.inspection.files import write_timeline
from audiolm.inspection.timeline import Timeline, of_continuation, of_recording
from audiolm.outputs import write_continuation
from audiolm.pipeline import Pipeline, planned_frames
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform
from audiolm.watermark import MarkResult

Events = Generator[Any]

logger = logging.getLogger(__name__)


class Tasks:
    """Named by `Task.name`; what each yields and raises is said at the method of that name of `app.service.Service`."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.offer = Offer(settings, device)
        self._named = {
            method.__name__: method
            for method in (
                *(self.continue_prompt, self.reconstruct, self.detect, self.inspect),
                *(self.ladder, self.voices, self.ablate, self.make_study, self.warm_up),
            )
        }

    def perform(self, task: Task, folder: Path) -> Events:
        """Nothing is done before the first event is asked for."""
        return self._named[task.name](folder, *task.arguments)

    def warm_up(self, folder: Path) -> Events:
        """Loads what is offered, as far as it is kept, and runs each once, so that no visitor waits for that."""
        for name in self.offer.names()[:MAX_LOADED]:
            try:
                _, pipeline = self.offer.load(CheckpointChoice.parse(name))
                options = ContinuationRequest(prompt_s=1.0, continuation_s=2.2, num_continuations=1)
                yield from pipeline.continue_prompt(_hum(), options, stream=True)
            except AudioLMError as error:  # whoever asks for it is told
                logger.warning("checkpoint %s could not be warmed up: %s", name, error)

    def help(self) -> bool:
        """A decoding step of some checkpoint. False where there is none to make."""
        return any(pipeline.decoder.help() for pipeline in self.offer.loaded())

    def active_rows(self) -> dict[str, int]:
        """Rows that are being decoded, by stage."""
        counts = Counter()
        for pipeline in self.offer.loaded():
            counts.update(pipeline.decoder.active_rows())
        return dict(counts)

    def continue_prompt(self, folder: Path, request: ContinueRequest) -> Events:
        began = time.monotonic()
        yield Loading(request.checkpoint.source)
        prompt = files.read_waveform(request.audio, max_s=request.options.prompt_s)
        info, pipeline = self.offer.load(request.checkpoint)
        coarse = pipeline.num_coarse_levels
        levels = {"semantic": 1, "coarse": coarse, "fine": pipeline.num_levels - coarse}
        yield Started(info, request.options, prompt.duration_s, *planned_frames(prompt, request.options), levels)
        with closing(pipeline.continue_prompt(prompt, request.options, stream=True)) as run:
            for event in run:
                if isinstance(event, Result):
                    saved = yield from _saved(pipeline, event, folder)
                    yield Finished(info, event, saved, folder, time.monotonic() - began)
                else:
                    yield event

    def reconstruct(self, folder: Path, request: ClipRequest, levels: tuple[int, ...]) -> Events:
        info, pipeline, clip = yield from self._open(request)
        deepest = pipeline.models.codec.num_levels
        chosen = sorted({min(level, deepest) for level in levels}, reverse=True)
        original = folder / "original.wav"
        files.write_wav(original, clip.waveform)
        paths: dict[int, Path] = {}
        heard: dict[int | None, Waveform] = {None: clip.waveform}
        for done, level in enumerate(chosen):
            yield Progress("reconstruct", done, len(chosen), 0.0)
            heard[level] = pipeline.reconstruct(clip.waveform, level)
            paths[level] = folder / f"levels-{level:02d}.wav"
            files.write_wav(paths[level], heard[level])
        yield Reconstructed(info, original, paths, heard, folder)

    def detect(self, folder: Path, request: ClipRequest) -> Events:
        _, pipeline, clip = yield from self._open(request)
        yield (yield from judge(pipeline, clip, folder))

    def inspect(self, folder: Path, request: ClipRequest, known: Sequence[Continuation]) -> Events:
        began = time.monotonic()
        info, pipeline, clip = yield from self._open(request)
        made = clip.made_by(known, info)
        if made is not None:
            timeline = yield from of_continuation(pipeline, made, with_scores=True)
        else:
            timeline = yield from of_recording(pipeline, clip.waveform, with_scores=True)
            timeline = replace(timeline, generated=clip.generated)
        yield Progress("draw", 0, 1, 0.0)
        comment = "" if clip.receipt is None else clip.receipt.to_json()
        written = write_timeline(timeline, folder, comment)
        yield Inspected(info, timeline, made, written, time.monotonic() - began)

    def ladder(self, folder: Path, request: LadderRequest) -> Events:
        _, pipeline, clip = yield from self._open(request.clip)
        yield (yield from versions.climb(pipeline, clip, request, folder))

    def voices(self, folder: Path, request: VoicesRequest) -> Events:
        _, pipeline, clip = yield from self._open(request.clip)
        voice = None if request.voice is None else _read_voice(request.voice, request.prompt_s)
        yield (yield from versions.revoice(pipeline, clip, voice, request, folder))

    def ablate(self, folder: Path, request: AblateRequest) -> Events:
        _, pipeline, clip = yield from self._open(request.clip)
        yield (yield from versions.leave_out(pipeline, clip, request, folder))

    def make_study(self, folder: Path, recipe: Recipe) -> Events:
        yield from render(self.offer, recipe)

    def _open(self, request: ClipRequest) -> Generator[Loading, None, tuple[CheckpointInfo, Pipeline, Clip]]:
        """The clip, at most MAX_CLIP_S of it, and the checkpoint that reads it."""
        yield Loading(request.checkpoint.source)
        clip = read_clip(request.audio, MAX_CLIP_S)
        return *self.offer.load(request.checkpoint), clip


def _hum() -> Waveform:
    """A second of something to go on from."""
    time_s = torch.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    return Waveform(
        0.2 * torch.sin(2 * torch.pi * 220.0 * time_s) * (0.6 + 0.4 * torch.sin(2 * torch.pi * 5.0 * time_s))
    )


def _saved(
    pipeline: Pipeline, result: Result, folder: Path
) -> Generator[Progress, None, tuple[SavedContinuation, ...]]:
    saved = []
    for number, continuation in enumerate(result.continuations, 1):
        timeline = yield from of_continuation(pipeline, continuation, with_scores=False)
        marked = bool(continuation.receipt.watermark)
        mark = pipeline.check_watermark(continuation.generated_part) if marked else None
        saved.append(_save(folder, number, continuation, timeline, mark))
    return tuple(saved)


def _read_voice(path: Path, max_s: float) -> Waveform:
    """Raises AudioError that says which of two recordings it is about."""
    try:
        return files.read_waveform(path, max_s=max_s)
    except AudioError as error:
        raise type(error)(f"the voice to follow: {error}") from error


def _save(
    folder: Path, number: int, continuation: Continuation, timeline: Timeline, mark: MarkResult | None
) -> SavedContinuation:
    """Writes the files of one continuation; audio as int16 WAV with the receipt inside."""
    name = f"continuation-{number}"
    written = write_continuation(continuation, folder, name)
    generated = folder / f"{name}.only.wav"
    files.write_wav(generated, continuation.generated_part, continuation.receipt.to_json())
    return SavedContinuation(continuation, timeline, mark, written.whole, generated, written.tokens, written.receipt)
