"""The pre-flight (acceptance S6): what is refused before anyone hears it, because it would tell a clip's condition."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from app.study import protocol
from app.study.definition import HEADPHONES, LEVEL, Clip, Study
from app.study.errors import PreflightError
from audiolm.audio.loudness import SILENCE_LUFS, integrated_loudness

MAX_LOUDNESS_LU = 0.1
HEADER_BYTES = 44
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@dataclass(frozen=True)
class Preflight:
    """`problems` is empty for a study that may be run. The ranges are over all clips but those of the screening."""

    problems: tuple[str, ...]
    num_clips: int
    num_samples: tuple[int, int]
    loudness_lufs: tuple[float, float]
    num_cells: int


def preflight(study: Study, clips: Mapping[str, bytes]) -> Preflight:
    """Checks files and definition against each other. `clips` maps clip ids to WAV files."""
    problems = [f"clip {clip.id} has no file" for clip in study.clips if clip.id not in clips]
    problems += [f"file {name} belongs to no clip" for name in clips if name not in {clip.id for clip in study.clips}]
    loudness: dict[str, float] = {}
    for clip in study.clips:
        if clip.id in clips:
            found = _file_problems(clip, clips[clip.id])
            problems += [f"clip {clip.id}: {problem}" for problem in found]
            if not found:
                loudness[clip.id] = loudness_of(clips[clip.id])
                problems += [f"clip {clip.id}: it is silent"] * (loudness[clip.id] <= SILENCE_LUFS)
    problems += _same_bytes(study)
    screening = {clip for role in (HEADPHONES, LEVEL) for trial in study.of_role(role) for clip in trial.clips}
    heard = [clip for clip in study.clips if clip.id not in screening]
    lengths, levels = [clip.num_samples for clip in heard], [loudness[clip.id] for clip in heard if clip.id in loudness]
    problems += _differences(heard, lengths, levels)
    hidden = {clip for trial in study.of_role(HEADPHONES) for clip in trial.clips}
    if len({study.clip(clip).num_samples for clip in hidden}) > 1:
        problems.append("the headphone trials differ in length")
    cells = protocol.num_cells(study)
    if study.plan.target_sessions < cells:
        problems.append(f"{cells} lists of trials, but only {study.plan.target_sessions} sessions are wanted")
    return Preflight(tuple(problems), len(study.clips), _range(lengths), _range(levels), cells)


def require_fit(study: Study, clips: Mapping[str, bytes]) -> Preflight:
    """Raises PreflightError, with every problem."""
    report = preflight(study, clips)
    if report.problems:
        raise PreflightError("; ".join(report.problems))
    return report


def loudness_of(content: bytes) -> float:
    """Integrated loudness in LUFS of a WAV file of ours (its left channel), as it will be heard."""
    num_channels, rate_hz = _HEADER.unpack(content[:HEADER_BYTES])[6:8]
    samples = np.frombuffer(content, "<i2", offset=HEADER_BYTES)[::num_channels]
    return float(integrated_loudness(torch.from_numpy(samples.astype(np.float64) / 32768.0)[None], rate_hz)[0])


def _file_problems(clip: Clip, content: bytes) -> list[str]:
    """The header has to be the plainest one there is: nothing but what is the same for all clips."""
    size = 2 * clip.num_channels * clip.num_samples
    frame, rate = 2 * clip.num_channels, clip.sample_rate_hz
    fields = (
        b"RIFF",
        36 + size,
        b"WAVE",
        b"fmt ",
        16,
        1,
        clip.num_channels,
        rate,
        rate * frame,
        frame,
        16,
        b"data",
        size,
    )
    problems = []
    if len(content) != HEADER_BYTES + size:
        problems.append(f"the file has {len(content)} bytes, not {HEADER_BYTES + size}: another length, or metadata")
    elif content[:HEADER_BYTES] != _HEADER.pack(*fields):
        problems.append("the file's header is not that of plain 16-bit samples of the stated rate and channels")
    if hashlib.sha256(content).hexdigest() != clip.sha256:
        problems.append("the file is not the one of the study (SHA-256 differs)")
    if not problems:
        samples = np.frombuffer(content, "<i2", offset=HEADER_BYTES).astype(np.int32)
        if np.abs(samples).max() >= 32767:
            problems.append("full scale is reached: it may be clipped")
    return problems


def _same_bytes(study: Study) -> Iterable[str]:
    seen: dict[str, str] = {}
    for clip in study.clips:
        other = seen.setdefault(clip.sha256, clip.id)
        if other != clip.id:
            yield f"clips {other} and {clip.id} are the same file"


def _differences(heard: list[Clip], lengths: list[int], levels: list[float]) -> Iterable[str]:
    low, high = _range(lengths)
    if low != high:
        yield f"clips differ in length: {low} to {high} samples"
    for what, values in (
        ("sample rate", {clip.sample_rate_hz for clip in heard}),
        ("channels", {clip.num_channels for clip in heard}),
    ):
        if len(values) > 1:
            yield f"clips differ in {what}: {', '.join(map(str, sorted(values)))}"
    soft, loud = _range(levels)
    if loud - soft > MAX_LOUDNESS_LU:
        yield f"clips differ in loudness: {soft:.2f} to {loud:.2f} LUFS, more than {MAX_LOUDNESS_LU} LU"


def _range(values: list) -> tuple:
    return (min(values), max(values)) if values else (0, 0)
