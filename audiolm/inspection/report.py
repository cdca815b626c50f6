"""An inspection of a clip as a folder: the files of its timeline, and of what else was asked for, with all numbers.

FOLDER holds the timeline's files (see `inspection.files`); FOLDER/ladder, voices and ablations the rest. All generated
sound has its receipt inside and beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiolm.audio.files import write_wav
from audiolm.errors import RequestError
from audiolm.events import Event
from audiolm.inspection import figures, variants
from audiolm.inspection.files import write_timeline
from audiolm.inspection.timeline import of_continuation, of_recording, summary
from audiolm.inspection.variants import Rung, result_of
from audiolm.outputs import write_continuation
from audiolm.pipeline import Pipeline
from audiolm.receipt import versions
from audiolm.request import MAX_CONTINUATION_S, ContinuationRequest
from audiolm.streams import Waveform

RUNG_FIELDS = ("label", "num_levels", "draw", "mel_distance", "si_sdr_db", "generated")

Numbers = dict[str, Any]
Work = Generator[Event, None, Numbers]


@dataclass(frozen=True)
class Plan:
    """What is made of a clip besides its timeline.

    `continued`: the clip's start is a prompt, and the timeline that of its continuation. `num_voices` acoustic
    generations follow the whole clip's semantic tokens, in the voice of `voice`, or each in one that the model chooses.

    Raises RequestError for ablations of a clip that is not continued, and for a voice that nothing is made in.
    """

    continued: bool = False
    ladder: bool = False
    num_voices: int = 0
    voice: Waveform | None = None
    ablations: bool = False

    def __post_init__(self) -> None:
        if self.ablations and not self.continued:
            raise RequestError("ablations are of a continuation: say how many seconds to continue")
        if self.voice is not None and not self.num_voices:
            raise RequestError("a voice needs at least 1 output to be heard in, found 0")


def inspect(pipeline: Pipeline, clip: Waveform, request: ContinuationRequest, plan: Plan, folder: Path) -> Work:
    """Writes the folder; returns what numbers.json holds.

    All runs have the request's seed and sampling; draws of the ladder have the checkpoint's sampling.

    Raises RequestError, AudioTooShortError, AudioSilentError, DeviceMemoryError.
    """
    info = pipeline.models.info
    numbers: Numbers = {"checkpoint": info.name, "checkpoint_sha256": info.sha256, "versions": versions()}
    numbers |= yield from (_continued if plan.continued else _recorded)(pipeline, clip, request, folder)
    if plan.ladder:
        numbers["ladder"] = yield from _ladder(pipeline, clip, request.seed, folder)
    if plan.num_voices:
        numbers["voices"] = yield from _voices(pipeline, clip, request, plan, folder)
    if plan.ablations:
        numbers["ablations"] = yield from _ablations(pipeline, clip, request, folder)
    text = json.dumps(_finite(numbers), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "numbers.json").write_text(text + "\n", encoding="utf-8")
    return numbers


def _recorded(pipeline: Pipeline, clip: Waveform, request: ContinuationRequest, folder: Path) -> Work:
    timeline = yield from of_recording(pipeline, clip, with_scores=True)
    write_timeline(timeline, folder)
    return summary(timeline)


def _continued(pipeline: Pipeline, clip: Waveform, request: ContinuationRequest, folder: Path) -> Work:
    result = yield from result_of(pipeline.continue_prompt(clip, replace(request, num_continuations=1)))
    continuation = result.continuations[0]
    timeline = yield from of_continuation(pipeline, continuation, with_scores=True)
    files = write_timeline(timeline, folder, continuation.receipt.to_json())
    _write_text(files.audio.with_suffix(".receipt.json"), continuation.receipt.to_json(indent=1))
    return {"seed": request.seed, **summary(timeline)}


def _ladder(pipeline: Pipeline, clip: Waveform, seed: int, folder: Path) -> Generator[Event, None, list[Numbers]]:
    rungs = yield from variants.ladder(pipeline, clip, seed)
    (folder / "ladder").mkdir(exist_ok=True)
    shown = {f"{rung.label}, generated" if rung.generated else rung.label: rung.waveform for rung in rungs}
    figures.save(figures.ladder_figure(shown), folder / "ladder/ladder.png")
    return [_write_rung(rung, pipeline.models.info.name, folder) for rung in rungs]


def _write_rung(rung: Rung, checkpoint: str, folder: Path) -> Numbers:
    path = folder / "ladder" / f"{_file_name(rung.label)}.wav"
    if rung.receipt is None:
        note = {"label": "through the codec", "checkpoint": checkpoint, "levels": rung.num_levels}
        write_wav(path, rung.waveform, json.dumps(note) if rung.num_levels else "")
    else:
        write_wav(path, rung.waveform, rung.receipt.to_json())
        _write_text(path.with_suffix(".receipt.json"), rung.receipt.to_json(indent=1))
    return {"file": path.relative_to(folder).as_posix(), **{name: getattr(rung, name) for name in RUNG_FIELDS}}


def _voices(
    pipeline: Pipeline, clip: Waveform, request: ContinuationRequest, plan: Plan, folder: Path
) -> Generator[Event, None, list[Numbers]]:
    request = replace(request, num_continuations=plan.num_voices, continuation_s=MAX_CONTINUATION_S)
    result = yield from result_of(pipeline.acoustic(clip, request, plan.voice))
    numbers = []
    for number, one in enumerate(result.continuations, start=1):
        written = write_continuation(one, folder / "voices", f"voice_{number}")
        verdict = one.verdict and one.verdict.to_dict()
        file = written.whole.relative_to(folder).as_posix()
        numbers.append({"file": file, "prompt_s": one.prompt_s, "generated": True, "verdict": verdict})
    return numbers


def _ablations(pipeline: Pipeline, clip: Waveform, request: ContinuationRequest, folder: Path) -> Work:
    """A picture of each run, and its numbers without scores."""
    made = yield from variants.ablate(pipeline, clip, request)
    numbers = {}
    for name, one in made.items():
        written = write_continuation(one, folder / "ablations", _file_name(name))
        timeline = yield from of_continuation(pipeline, one, with_scores=False)
        figures.save(figures.timeline_figure(timeline), written.whole.with_suffix(".png"))
        numbers[name] = {"file": written.whole.relative_to(folder).as_posix(), **summary(timeline)}
    return numbers


def _file_name(label: str) -> str:
    """ "semantic only, draw 1" -> "semantic_only_draw_1"."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON has no infinities (the SI-SDR of silence) and no NaN: null stands for them."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
