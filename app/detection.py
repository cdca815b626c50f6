"""A recording before the detector: as it is, searched for a watermark, and once more through the codec. As files."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

from app.clips import Clip
from app.results import Hearing, Judged
from audiolm.audio import files
from audiolm.errors import AudioError, WatermarkError
from audiolm.events import Progress
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform
from audiolm.watermark import MarkResult

STEPS = ("detect", "watermark", "reconstruct", "detect")


def judge(pipeline: Pipeline, clip: Clip, folder: Path) -> Generator[Progress, None, Judged]:
    """Raises CheckpointError where the checkpoint has no detector; DeviceMemoryError."""
    began = time.monotonic()
    steps = (Progress(step, done, len(STEPS), 0.0) for done, step in enumerate(STEPS))
    yield next(steps)
    own = "" if clip.receipt is None else clip.receipt.to_json()
    recording = _heard(pipeline, clip.waveform, folder / "recording.wav", own)
    yield next(steps)
    mark = _looked_for(pipeline, clip.waveform)
    yield next(steps)
    control, reason = None, ""
    try:
        through_codec = pipeline.reconstruct(clip.waveform)
    except AudioError as error:
        reason = str(error)
    else:
        yield next(steps)
        note = json.dumps({"label": "through the codec", "checkpoint": pipeline.models.info.name})
        control = _heard(pipeline, through_codec, folder / "through-the-codec.wav", note)
    elapsed_s = time.monotonic() - began
    return Judged(pipeline.models.info, recording, mark, clip.receipt, control, reason, folder, elapsed_s)


def _heard(pipeline: Pipeline, waveform: Waveform, path: Path, comment: str) -> Hearing:
    files.write_wav(path, waveform, comment)
    verdict = pipeline.detect(waveform)
    saliency = None if verdict.probability is None else pipeline.saliency(waveform, verdict.judged_from_s)
    return Hearing(waveform, path, verdict, saliency)


def _looked_for(pipeline: Pipeline, waveform: Waveform) -> MarkResult:
    """Also where the watermark's package is missing, which is no reason to keep the verdict back."""
    try:
        return pipeline.check_watermark(waveform)
    except WatermarkError as error:
        return MarkResult(False, 0.0, str(error))
