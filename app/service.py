"""The application without its page: runs requests on the pipelines and writes results. Knows no gradio.

Every request that needs a model is a run (`app.runs`): an iterator of events, the last of which is its result; closing
the iterator stops it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from app import versions
from app.clips import Clip, read_clip
from app.detection import judge
from app.offer import Offer
from app.results import Finished, Inspected, Loading, Reconstructed, SavedContinuation, Started
from app.runs import Runs
from app.schemas import (
    MAX_CLIP_S,
    RECONSTRUCTION_LEVELS,
    AblateRequest,
    ClipRequest,
    ContinueRequest,
    LadderRequest,
    VoicesRequest,
)
from app.settings import Settings
from app.study.clips import render
from app.study.library import Library
from app.study.recipe import Recipe
from audiolm.audio import files
from audiolm.checkpoints import CheckpointInfo
from audiolm.config import DOMAINS
from audiolm.device import pick_device
from audiolm.errors import AudioError
from audiolm.events import Continuation, Progress, Result
from audiolm.inspection.files import write_timeline
from audiolm.inspection.timeline import Timeline, of_continuation, of_recording
from audiolm.outputs import write_continuation
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform
from audiolm.watermark import MarkResult

PROMPT_SUFFIXES = (".wav", ".flac")

Events = Iterator[Any]
"""`results.Course` on the way, a result at the end."""


class Service:
    """One a process. Thread-safe; requests of one device take turns."""

    def __init__(self, settings: Settings) -> None:
        """Raises RequestError for a device that this machine does not have."""
        self.settings = settings
        self.device = pick_device(settings.device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.offer = Offer(settings, self.device)
        self._runs = Runs(self.device)

    @cached_property
    def library(self) -> Library:
        """The listening studies that are kept here. Raises StoreError."""
        return Library(self.settings.studies_folder)

    def prompts(self) -> dict[str, list[Path]]:
        """Domain -> example prompts: files named speech_… or piano_… in the prompts folder."""
        found = {
            domain: sorted(
                path
                for path in self.settings.prompts_folder.glob(f"{domain}_*")
                if path.suffix.lower() in PROMPT_SUFFIXES
            )
            for domain in DOMAINS
        }
        return {domain: paths for domain, paths in found.items() if paths}

    # what it does

    def continue_prompt(self, request: ContinueRequest) -> Events:
        """Yields Loading, Started, Waiting, Progress, Chunk, at last one Finished. Closing the iterator stops the run.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
            began = time.monotonic()
            yield Loading(request.checkpoint.source)
            prompt = files.read_waveform(request.audio, max_s=request.options.prompt_s)
            info, pipeline = self.offer.load(request.checkpoint)
            coarse = pipeline.num_coarse_levels
            levels = {"semantic": 1, "coarse": coarse, "fine": pipeline.num_levels - coarse}
            yield Started(info, request.options, prompt.duration_s, levels)
            with closing(pipeline.continue_prompt(prompt, request.options)) as run:
                for event in run:
                    if isinstance(event, Result):
                        saved = yield from self._saved(pipeline, event, folder)
                        yield Finished(info, event, saved, folder, time.monotonic() - began)
                    else:
                        yield event

        return self._runs.start(steps)

    def reconstruct(self, request: ClipRequest, levels: tuple[int, ...] = RECONSTRUCTION_LEVELS) -> Events:
        """Yields Loading, Waiting and Progress, at last one Reconstructed. Levels beyond the codec's are left out.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
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

        return self._runs.start(steps)

    def detect(self, request: ClipRequest) -> Events:
        """Yields Loading, Waiting and Progress, at last one Judged.

        Raises AudioError, CheckpointError (also where the checkpoint has no detector), DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
            _, pipeline, clip = yield from self._open(request)
            yield (yield from judge(pipeline, clip, folder))

        return self._runs.start(steps)

    def inspect(self, request: ClipRequest, known: Sequence[Continuation] = ()) -> Events:
        """Yields Loading, Waiting and Progress, at last one Inspected: the clip's tokens with their scores.

        A file that this checkpoint made, and whose run is among `known`, is shown with the tokens of that run; every
        other one as it is read from the sound.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
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

        return self._runs.start(steps)

    def ladder(self, request: LadderRequest) -> Events:
        """Yields Loading, Waiting and Progress, at last one Compared: the resynthesis ladder.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
            _, pipeline, clip = yield from self._open(request.clip)
            yield (yield from versions.climb(pipeline, clip, request, folder))

        return self._runs.start(steps)

    def voices(self, request: VoicesRequest) -> Events:
        """Yields Loading, Waiting, Progress and Chunk, at last one Compared: the clip in other voices.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
            _, pipeline, clip = yield from self._open(request.clip)
            voice = None if request.voice is None else _read_voice(request.voice, request.prompt_s)
            yield (yield from versions.revoice(pipeline, clip, voice, request, folder))

        return self._runs.start(steps)

    def ablate(self, request: AblateRequest) -> Events:
        """Yields Loading, Waiting and Progress, at last one Compared: continuations by the model and by parts of it.

        Raises AudioError, CheckpointError, DeviceMemoryError.
        """

        def steps(folder: Path) -> Events:
            _, pipeline, clip = yield from self._open(request.clip)
            yield (yield from versions.leave_out(pipeline, clip, request, folder))

        return self._runs.start(steps)

    def make_study(self, recipe: Recipe) -> Events:
        """Yields Waiting and Progress, at last one Rendered: a listening study with its clips.

        Raises RequestError, AudioError, CheckpointError, PreflightError, DeviceMemoryError, WatermarkError.
        """
        recipe = replace(recipe, watermark=recipe.watermark and self.settings.watermark)
        return self._runs.start(lambda folder: render(self.offer, recipe))

    def _open(self, request: ClipRequest) -> Generator[Loading, None, tuple[CheckpointInfo, Pipeline, Clip]]:
        """The clip, at most MAX_CLIP_S of it, and the checkpoint that reads it."""
        yield Loading(request.checkpoint.source)
        clip = read_clip(request.audio, MAX_CLIP_S)
        return *self.offer.load(request.checkpoint), clip

    def _saved(
        self, pipeline: Pipeline, result: Result, folder: Path
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
