"""Continuations of hold-out prompts: made once, kept as WAV files with their receipts, read again by every row."""

from __future__ import annotations

import re
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiolm.audio.files import read_comment, write_wav
from audiolm.checkpoints.format import ModelSet
from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC, SEMANTIC_RATE_HZ
from audiolm.data.corpus import Item
from audiolm.errors import AudioError, EvaluationError, ReceiptError
from audiolm.evaluation.inputs import Inputs
from audiolm.pipeline import Pipeline, kept_prompt
from audiolm.receipt import Receipt, hash_waveform
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform

PROMPT_S = {"speech": 3.0, "piano": 4.0}  # the paper's
TOTAL_S = 10.0
NUM_PROMPTS = 50
MIN_CONTINUATION_S = 2.0  # of recordings too short for the whole
_REST_S = 1.0 / SEMANTIC_RATE_HZ  # recordings are read in whole semantic positions


@dataclass(frozen=True)
class ContinuedPrompt:
    """`prompt` [P] as heard (through the codec), `continuation` [C], both of one output; 16 kHz.

    `original` [P + C] is the recording itself through the codec: what a perfect model might have said. `recording` is
    that recording as it is, and `path` the kept WAV of prompt and continuation, with its receipt in it.
    """

    id: str
    group: str
    prompt: Tensor
    continuation: Tensor
    original: Tensor
    recording: Tensor | None = None
    path: Path | None = None


def continue_prompts(inputs: Inputs, default: int = NUM_PROMPTS, watermark: bool = False) -> list[ContinuedPrompt]:
    """One continuation each of the first seconds of hold-out items, as the models make it or as visitors get it.

    Raises EvaluationError without a whole checkpoint, recordings long enough or a work folder.
    """
    models = inputs.subject.require_whole()
    if inputs.work is None:
        raise EvaluationError("needs a folder for the continuations: give --work")
    folder = inputs.work / f"{models.info.name}-{models.info.sha256[:12]}" / inputs.holdout.name
    folder /= "marked" if watermark else ""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(models, watermark)
    continued = []
    for item, own in inputs.progress(requests(inputs, default), "continuations"):
        recording = Waveform(inputs.holdout.waveform(item, own.prompt_s + own.continuation_s + _REST_S))
        path = folder / f"{file_name(item.id)}-{own.seed}.wav"
        try:
            whole, prompt_samples = _load_or_make(pipeline, recording, own, path)
            original = pipeline.reconstruct(recording).samples[: whole.shape[0]]
        except AudioError:
            continue  # a silent start: nothing to continue
        prompt, continuation = whole[:prompt_samples], whole[prompt_samples:]
        heard = recording.samples[: whole.shape[0]]
        continued.append(ContinuedPrompt(item.id, item.group, prompt, continuation, original, heard, path))
    return continued


def requests(inputs: Inputs, default: int = NUM_PROMPTS) -> list[tuple[Item, ContinuationRequest]]:
    """Items long enough to have gone on for as long as their continuation, each with a seed of its own.

    Where all recordings are too short for that, those that last at least 2 s beyond the prompt are continued to their
    end.

    Raises EvaluationError without any.
    """
    prompt_s, wanted_s = inputs.request.prompt_s, inputs.request.continuation_s
    try:
        items = inputs.holdout.items(default, min_s=prompt_s + wanted_s + _REST_S)
        lengths_s = [wanted_s] * len(items)
    except EvaluationError:
        items = inputs.holdout.items(default, min_s=prompt_s + min(MIN_CONTINUATION_S, wanted_s) + _REST_S)
        rests_s = [item.length // SAMPLES_PER_SEMANTIC / SEMANTIC_RATE_HZ - prompt_s for item in items]
        lengths_s = [min(wanted_s, round(rest_s, 2)) for rest_s in rests_s]
    own = replace(inputs.request, num_continuations=1)
    return [
        (item, replace(own, continuation_s=length_s, seed=own.seed + index))
        for index, (item, length_s) in enumerate(zip(items, lengths_s, strict=True))
    ]


def describe(samples: Sequence[ContinuedPrompt]) -> str:
    """How many continuations of what, for a row's notes."""
    if not samples:
        return "no recording could be continued"
    lengths_s = [len(one.continuation) / SAMPLE_RATE_HZ for one in samples]
    longest = f"{min(lengths_s):.3g} to {max(lengths_s):.3g} s"
    continued = f"{max(lengths_s):.3g} s" if max(lengths_s) - min(lengths_s) < _REST_S else longest
    num_groups = len({one.group for one in samples})
    return f"{len(samples)} prompts from {num_groups} speakers, pieces or files, continued for {continued}"


def read_continuation(
    path: Path, prompt: Waveform, request: ContinuationRequest, models: ModelSet
) -> tuple[Tensor, int] | None:
    """(samples [T], prompt samples) of a kept file, or None unless its receipt says that it is the run asked for.

    Raises AudioTooShortError for a prompt that cannot be continued.
    """
    receipt = kept_receipt(path, request, models)
    if receipt is None:
        return None
    kept = kept_prompt(prompt, request.prompt_s)
    if receipt.prompt_sha256 != hash_waveform(kept):
        return None
    with wave.open(str(path), "rb") as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return torch.from_numpy(pcm.astype(np.float32) / 32767.0), kept.samples.shape[0]


def kept_receipt(path: Path, request: ContinuationRequest, models: ModelSet) -> Receipt | None:
    """The receipt of a kept file, or None unless there is one, of this request to these models."""
    if not path.is_file():
        return None
    try:
        receipt = Receipt.from_json(read_comment(path))
    except (ReceiptError, AudioError):
        return None
    return receipt if (receipt.checkpoint_sha256, receipt.request) == (models.info.sha256, request) else None


def _load_or_make(
    pipeline: Pipeline, recording: Waveform, request: ContinuationRequest, path: Path
) -> tuple[Tensor, int]:
    kept = read_continuation(path, recording, request, pipeline.models)
    if kept is not None:
        return kept
    *_, result = pipeline.continue_prompt(recording, request)
    continuation = result.continuations[0]
    write_wav(path, continuation.waveform, continuation.receipt.to_json())
    # As int16 like the file, so that a second command sees the same samples.
    samples = continuation.waveform.int16().float() / 32767.0
    return samples, round(continuation.prompt_s * SAMPLE_RATE_HZ)


def file_name(item_id: str) -> str:
    """An item's id as the stem of a file."""
    return re.sub(r"[^\w.-]", "_", item_id)[-100:]
