"""Acoustic generation of hold-out items: their semantic tokens in sampled voices, made once and kept with receipts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from audiolm.audio.files import read_waveform, write_wav
from audiolm.checkpoints.format import ModelSet
from audiolm.data.corpus import Item
from audiolm.errors import AudioError, AudioSilentError, EvaluationError
from audiolm.evaluation.continuations import file_name, kept_receipt
from audiolm.evaluation.inputs import Inputs
from audiolm.pipeline import Pipeline
from audiolm.receipt import derive_seed, hash_waveform
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform

NUM_VOICES = 3

Revoice = Callable[[Item], list[Tensor | None]]


def revoicer(inputs: Inputs) -> Revoice:
    """A function from an item to `NUM_VOICES` draws [T] of acoustic generation without a voice to follow.

    Sampling is that of `inputs.request`; seeds belong to items, so that more items are more of the same. None is a
    silent draw; all are where the item is silent. That function raises EvaluationError for an unusable item.

    Raises EvaluationError without a whole checkpoint or a work folder.
    """
    models = inputs.subject.require_whole()
    if inputs.work is None:
        raise EvaluationError("needs a folder for the acoustic generation: give --work")
    folder = inputs.work / f"{models.info.name}-{models.info.sha256[:12]}" / inputs.holdout.name / "acoustic"
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(models, watermark=False)  # the figures are the models'

    def revoice(item: Item) -> list[Tensor]:
        source = Waveform(inputs.holdout.waveform(item))
        seed = derive_seed(inputs.request.seed, "revoicing", item.id)
        request = replace(
            inputs.request, num_continuations=NUM_VOICES, continuation_s=round(source.duration_s, 2), seed=seed
        )
        paths = [folder / f"{file_name(item.id)}-{row}.wav" for row in range(NUM_VOICES)]
        try:
            if not all(_is_kept(path, source, request, models) for path in paths):
                _make(pipeline, source, request, paths)
        except AudioSilentError:
            return [None] * NUM_VOICES
        except AudioError as error:
            raise EvaluationError(f"{item.id}: {error}") from error

        return [_read(path) for path in paths]

    return revoice


def _read(path: Path) -> Tensor | None:
    """[T], None for silence."""
    try:
        return read_waveform(path, trusted=True).samples
    except AudioSilentError:
        return None


def _is_kept(path: Path, source: Waveform, request: ContinuationRequest, models: ModelSet) -> bool:
    """Whether the file's receipt says that it is the run asked for."""
    receipt = kept_receipt(path, request, models)
    if receipt is None:
        return False
    return (receipt.kind, receipt.source_sha256, receipt.prompt_frames) == ("acoustic", hash_waveform(source), 0)


def _make(pipeline: Pipeline, source: Waveform, request: ContinuationRequest, paths: list[Path]) -> None:
    *_, result = pipeline.acoustic(source, request)
    for path, draw in zip(paths, result.continuations, strict=True):
        write_wav(path, draw.waveform, draw.receipt.to_json())
