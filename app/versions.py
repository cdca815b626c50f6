"""Versions of one clip to switch between while they play: the resynthesis ladder, voices, ablations. As files."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from app.clips import Clip
from app.results import Compared, Version
from app.schemas import AblateRequest, LadderRequest, VoicesRequest
from audiolm.audio import files
from audiolm.errors import EvaluationError
from audiolm.evaluation.speaker import Embed, speaker_encoder
from audiolm.events import Continuation, Progress
from audiolm.inspection.seam import measure_seam
from audiolm.inspection.variants import Rung, ablate, ladder, matched_loudness, result_of
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform

LADDER, VOICES, ABLATIONS = "ladder", "voices", "ablations"
NO_SPEAKERS = "Speaker similarity needs the package resemblyzer: pip install '.[speakers]'"

Course = Generator[Progress, None, Compared]


def climb(pipeline: Pipeline, clip: Clip, request: LadderRequest, folder: Path) -> Course:
    """The ladder's rungs; those of a clip that a model made are generated, all of them. Raises as `variants.ladder`."""
    rungs = yield from ladder(pipeline, clip.waveform, request.seed, request.num_draws)
    versions = [
        _rung(pipeline, rung, clip.generated, _path(folder, number, rung.label)) for number, rung in enumerate(rungs)
    ]
    return Compared(pipeline.models.info, LADDER, tuple(versions), folder)


def _rung(pipeline: Pipeline, rung: Rung, generated: bool, path: Path) -> Version:
    figures = {"mel_distance_nats": rung.mel_distance, "si_sdr_db": rung.si_sdr_db}
    version = Version(rung.label, rung.waveform, path, generated or rung.generated, figures, receipt=rung.receipt)
    through = f"through the codec, {rung.label}" if rung.num_levels else ""
    return _written(version, {"label": through, "checkpoint": pipeline.models.info.name} if through else None)


def revoice(pipeline: Pipeline, clip: Clip, voice: Waveform | None, request: VoicesRequest, folder: Path) -> Course:
    """The clip, then what its semantic tokens become in other voices, at equal loudness.

    With `voice`, all are in that voice; its prompt is not heard again. Raises as `Pipeline.acoustic`.
    """
    options = ContinuationRequest(
        prompt_s=request.prompt_s,
        continuation_s=clip.waveform.duration_s,
        num_continuations=request.num_voices,
        seed=request.seed,
        **pipeline.models.info.sampling,
    )
    result = yield from result_of(pipeline.acoustic(clip.waveform, options, voice))
    parts = [one.generated_part.samples for one in result.continuations]
    length = min(part.shape[0] for part in (clip.waveform.samples, *parts))
    heard = matched_loudness(torch.stack([part[:length] for part in (clip.waveform.samples, *parts)]))
    embed, notes = _embedding(pipeline)
    figures = _similarities(heard[0], heard[1:], voice, embed)
    of_voice = "given voice, draw" if voice is not None else "voice"
    versions = [_written(Version("the clip", Waveform(heard[0]), _path(folder, 0, "clip"), clip.generated))]
    for number, one in enumerate(result.continuations, 1):
        name = f"{of_voice} {number}"
        path = _path(folder, number, name)
        verdict = one.verdict and one.verdict.without_prompt()
        version = Version(name, Waveform(heard[number]), path, True, figures[number - 1], one.receipt, verdict)
        versions.append(_written(version))
    return Compared(pipeline.models.info, VOICES, tuple(versions), folder, notes=notes)


def leave_out(pipeline: Pipeline, clip: Clip, request: AblateRequest, folder: Path) -> Course:
    """The whole model's continuation of the clip's start beside those of parts of it. Raises as `variants.ablate`."""
    options = ContinuationRequest(
        prompt_s=request.prompt_s,
        continuation_s=request.continuation_s,
        num_continuations=1,
        seed=request.seed,
        **pipeline.models.info.sampling,
    )
    made = yield from ablate(pipeline, clip.waveform, options)
    versions = [
        _written(
            Version(name, one.waveform, _path(folder, n, name), True, _join_figures(one), one.receipt, one.verdict)
        )
        for n, (name, one) in enumerate(made.items())
    ]
    prompt_s = next(iter(made.values())).prompt_s
    return Compared(pipeline.models.info, ABLATIONS, tuple(versions), folder, prompt_s)


def _join_figures(one: Continuation) -> dict[str, float | None]:
    try:
        seam = measure_seam(one.waveform.samples, round(one.prompt_s * one.waveform.sample_rate_hz))
    except EvaluationError:  # too short a prompt
        return {}
    return {"seam_flux_percentile": seam.flux_percentile, "level_step_db": seam.level_step_db}


def _path(folder: Path, number: int, label: str) -> Path:
    """ "6-semantic-only-draw-1.wav"."""
    return folder / f"{number}-{re.sub('[^a-z0-9]+', '-', label.lower())}.wav"


def _written(version: Version, note: dict[str, str] | None = None) -> Version:
    """The version with its file, an int16 WAV with the receipt, or else a note, in its comment."""
    comment = version.receipt.to_json() if version.receipt is not None else json.dumps(note) if note else ""
    files.write_wav(version.audio, version.waveform, comment)
    return version


def _embedding(pipeline: Pipeline) -> tuple[Embed | None, tuple[str, ...]]:
    """The speaker encoder, for checkpoints of speech, or None and what to say of that."""
    if pipeline.models.info.domain != "speech":
        return None, ()
    try:
        return speaker_encoder(), ()
    except EvaluationError:
        return None, (NO_SPEAKERS,)


def _similarities(
    clip: torch.Tensor, versions: Sequence[torch.Tensor], voice: Waveform | None, embed: Embed | None
) -> list[dict[str, float | None]]:
    """Cosines of each version's speaker with the clip's and, where there is one, with the given voice's."""
    if embed is None:
        return [{} for _ in versions]
    references = {"speaker_similarity_to_clip": embed(clip)}
    if voice is not None:
        references["speaker_similarity_to_voice"] = embed(voice.samples)
    own = [embed(version) for version in versions]
    return [{name: float(reference @ one) for name, reference in references.items()} for one in own]
