"""Renders a study's clips: continuations and recordings, equal in length and loudness; the files hold nothing else."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from app.offer import Offer
from app.schemas import CheckpointChoice
from app.study.assembly import Item, Sound, assemble
from app.study.definition import TRUTH_KINDS, DetectorScore, Study
from app.study.mastering import low_passed
from app.study.preflight import require_fit
from app.study.presets import CODEC, CONTINUATION, LOW_PASS, Version
from app.study.recipe import Recipe
from audiolm.audio import files
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioTooShortError
from audiolm.events import Progress, Result
from audiolm.pipeline import Pipeline
from audiolm.receipt import derive_seed, hash_waveform
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform
from audiolm.watermark import NAME, mark

Rendering = Generator[Progress, None, Sound]


@dataclass(frozen=True)
class Rendered:
    """The end: a definition that passed the pre-flight, its clips as WAV files by id, and the owner's secret."""

    study: Study
    clips: dict[str, bytes] = field(repr=False)
    owner_token: str = field(repr=False)


def render(offer: Offer, recipe: Recipe) -> Iterator[Progress | Rendered]:
    """Yields Progress, at last one Rendered; `Library.add` keeps it.

    Raises RequestError, AudioError, CheckpointError, PreflightError, DeviceMemoryError, WatermarkError.
    """
    preset, recipe = recipe.resolved()
    total = len(recipe.prompts) * len(recipe.versions)
    items: list[Item] = []
    for item, path in enumerate(recipe.prompts):
        recording = _read(path, recipe.clip_s)
        made: list[Sound] = []
        for version in recipe.versions:
            done = item * len(recipe.versions) + len(made)
            yield Progress("clips", done, total, 0.0)
            pipeline = _pipeline(offer, version.checkpoint or recipe.checkpoint)
            work = _render(pipeline, recording, version, recipe, item)
            made.append((yield from _counted(work, done, total)))
        items.append(Item(f"{item + 1:03d} {path.stem}"[:100], tuple(made)))
    watermark = ""
    if recipe.watermark and any(version.source == CONTINUATION for version in recipe.versions):
        items, watermark = yield from _marked(items, total)
    judge = None
    if preset.kind in TRUTH_KINDS:
        judge = _Judge(_pipeline(offer, recipe.checkpoint), round(recipe.prompt_s * SAMPLE_RATE_HZ))
    study, clips, owner_token = assemble(preset, recipe, items, judge, watermark)
    require_fit(study, clips)
    yield Progress("clips", total, total, 0.0)
    yield Rendered(study, clips, owner_token)


class _Judge:
    """The detector of the recipe's checkpoint, on what comes after the prompt."""

    def __init__(self, pipeline: Pipeline, start: int) -> None:
        self._pipeline, self._start = pipeline, start

    def __call__(self, samples: Tensor) -> DetectorScore | None:
        """samples [T] as they are heard -> the score; None where the checkpoint has no detector."""
        if self._pipeline.models.detector is None:
            return None
        verdict = self._pipeline.detect(Waveform(samples[self._start :].float()))
        sha256 = self._pipeline.models.info.components["detector"].hash
        return DetectorScore(
            verdict.label, verdict.probability, verdict.threshold, verdict.reason[:500], verdict.scope[:500], sha256
        )


def _read(path: Path, clip_s: float) -> Waveform:
    recording = files.read_waveform(path, max_s=clip_s)
    if recording.samples.shape[0] < round(clip_s * SAMPLE_RATE_HZ):
        raise AudioTooShortError(f"{path.name}: {clip_s:g} s are needed, found {recording.duration_s:.2f} s")
    return recording


def _pipeline(offer: Offer, checkpoint: str) -> Pipeline:
    return offer.load(CheckpointChoice.parse(checkpoint))[1]


def _counted(work: Rendering, done: int, total: int) -> Rendering:
    """The work's own progress, told as that of the whole: often enough to be stopped."""
    try:
        while True:
            next(work)
            yield Progress("clips", done, total, 0.0)
    except StopIteration as end:
        return end.value


def _marked(items: list[Item], total: int) -> Generator[Progress, None, tuple[list[Item], str]]:
    """Every sound with the watermark, and its name; where one cannot carry it, all as they are, and ""."""
    marked = []
    for item in items:
        sounds = []
        for sound in item.sounds:
            yield Progress("clips", total, total, 0.0)
            samples = mark(Waveform(sound.samples)).samples
            if torch.equal(samples, sound.samples):
                return items, ""
            sounds.append(replace(sound, samples=samples))
        marked.append(replace(item, sounds=tuple(sounds)))
    return marked, NAME


def _render(pipeline: Pipeline, recording: Waveform, version: Version, recipe: Recipe, item: int) -> Rendering:
    info = pipeline.models.info
    origin = {"source": version.source, "recording_sha256": hash_waveform(recording)}
    if version.source in (CODEC, CONTINUATION):
        origin |= {"checkpoint": info.name, "checkpoint_sha256": info.sha256}
    samples = recording.samples
    if version.source == CODEC:
        levels = version.levels or pipeline.num_levels
        origin["levels"] = str(levels)
        samples = pipeline.reconstruct(recording, levels).samples
    elif version.source == CONTINUATION:
        samples = yield from _continued(pipeline, recording, version, recipe, derive_seed(recipe.seed, "item", item))
        origin |= {"seed": str(derive_seed(recipe.seed, "item", item)), "ablation": version.ablation}
        origin["prompt_s"] = f"{recipe.prompt_s:g}"
    elif version.source == LOW_PASS:
        origin["cutoff_hz"] = f"{version.cutoff_hz:g}"
        samples = low_passed(samples, version.cutoff_hz)
    yield Progress(version.source, 1, 1, 0.0)
    return Sound(
        version, samples, version.source == CONTINUATION, {name: text for name, text in origin.items() if text}
    )


def _continued(
    pipeline: Pipeline, recording: Waveform, version: Version, recipe: Recipe, seed: int
) -> Generator[Progress, None, Tensor]:
    """Samples [T] of `clip_s`: the prompt through the codec and its continuation, as originals go through the codec."""
    request = ContinuationRequest(
        prompt_s=recipe.prompt_s,
        continuation_s=recipe.clip_s - recipe.prompt_s,
        num_continuations=1,
        seed=seed,
        **pipeline.models.info.sampling,
    )
    unmarked = Pipeline(pipeline.models, watermark=False)  # all clips are marked alike, or none
    for event in unmarked.continue_prompt(recording, request, version.ablation):
        if isinstance(event, Result):
            return event.continuations[0].waveform.samples
        yield Progress("continuation", 0, 1, 0.0)
    raise AssertionError("a run ends with its result")
