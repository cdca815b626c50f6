"""What a visitor may ask for. BOUNDS is the one table of limits: sliders, API and validation read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiolm.config import STAGES, USUAL_SAMPLING, SamplingConfig
from audiolm.errors import RequestError
from audiolm.request import FINE_DECODERS, MAX_SEED, PROMPT_PARTS, ContinuationRequest

RECONSTRUCTION_LEVELS = (12, 8, 4, 1)
_DEFAULTS = ContinuationRequest()


@dataclass(frozen=True)
class Bound:
    """One numeric field: its label, limits (both ends allowed), step, default and, for whole numbers, `whole`."""

    label: str
    minimum: float
    maximum: float
    step: float
    default: float
    unit: str = ""
    whole: bool = False
    info: str = ""

    def check(self, name: str, value: Any) -> float | int:
        """`value` as a float, or an int where `whole`. Raises RequestError naming field, limits and value."""
        allowed = (
            f"{name} must be {self._shown(self.minimum)} to {self._shown(self.maximum)}{self.unit and ' ' + self.unit}"
        )
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (isinstance(value, float) and not math.isfinite(value)):
            raise RequestError(f"{allowed}, found {str(value)[:40]!r}")
        if self.whole and value != int(value):
            raise RequestError(f"{allowed}, a whole number, found {value}")
        if not self.minimum <= value <= self.maximum:
            raise RequestError(f"{allowed}, found {self._shown(value)[:40]}")
        return int(value) if self.whole else float(value)

    def _shown(self, value: float) -> str:
        return str(int(value)) if value == int(value) else f"{value:g}"


def _sampling_bounds() -> dict[str, Bound]:
    bounds: dict[str, Bound] = {}
    for stage, default in USUAL_SAMPLING.items():
        bounds |= {
            f"{stage}_temperature": Bound(
                "Temperature", 0.0, 2.0, 0.05, default.temperature, info="0 takes the likeliest"
            ),
            f"{stage}_top_k": Bound("Top-k", 0, 1024, 1, default.top_k, whole=True, info="0 keeps every token"),
            f"{stage}_top_p": Bound("Top-p", 0.05, 1.0, 0.01, default.top_p, info="1 keeps every token"),
        }
    return bounds


SAMPLING_BOUNDS = _sampling_bounds()
"""stage_temperature, stage_top_k, stage_top_p -> Bound. The defaults are the paper's; a checkpoint may bring others."""

BOUNDS: dict[str, Bound] = {
    "prompt_s": Bound(
        "Prompt length", 0.5, 10.0, 0.1, _DEFAULTS.prompt_s, "s", info="Taken from the start of the recording"
    ),
    "continuation_s": Bound("Continuation length", 1.0, 30.0, 0.5, _DEFAULTS.continuation_s, "s"),
    "num_continuations": Bound("Continuations", 1, 4, 1, _DEFAULTS.num_continuations, whole=True),
    "seed": Bound("Seed", 0, MAX_SEED, 1, _DEFAULTS.seed, whole=True, info="The same seed gives the same tokens again"),
    **SAMPLING_BOUNDS,
    "num_draws": Bound("Draws from semantic tokens alone", 1, 4, 1, 2, whole=True),
    "num_voices": Bound("Voices", 1, 4, 1, 3, whole=True),
    "clip_s": Bound("Clip length", 2.0, 30.0, 0.5, 10.0, "s", info="Every recording must be at least this long"),
    "num_practice": Bound("Recordings for practice", 1, 10, 1, 1, whole=True, info="The last ones; never scored"),
    "target_sessions": Bound("Participants", 1, 5000, 1, 60, whole=True),
    "trials_per_session": Bound("Trials a participant", 1, 200, 1, 20, whole=True, info="Checks come on top"),
}
"""Field -> Bound. Lengths in seconds."""

CONTINUE_FIELDS = ("prompt_s", "continuation_s", "num_continuations", "seed", *SAMPLING_BOUNDS)
LADDER_FIELDS = ("seed", "num_draws")
VOICES_FIELDS = ("prompt_s", "num_voices", "seed")
ABLATE_FIELDS = ("prompt_s", "continuation_s", "seed")
STUDY_FIELDS = ("clip_s", "prompt_s", "num_practice", "target_sessions", "trials_per_session", "seed")

MAX_CLIP_S = 30.0
"""What looks at a recording (all but the continuation of a prompt) reads this much of it, from its start."""


def checked(fields: Mapping[str, Any], names: Sequence[str], defaults: Mapping[str, float]) -> dict[str, Any]:
    """`names` of BOUNDS -> numbers within their limits; a missing or None one takes `defaults`, then the bound's own.

    Raises RequestError naming the field, the limit and the value, or an unknown field.
    """
    if unknown := sorted(set(fields) - set(names)):
        raise RequestError(f"unknown field(s) {', '.join(unknown)}")
    usual = {name: defaults.get(name, BOUNDS[name].default) for name in names}
    return {name: BOUNDS[name].check(name, usual[name] if fields.get(name) is None else fields[name]) for name in names}


def sampling_fields(sampling: Mapping[str, SamplingConfig]) -> dict[str, float]:
    """The sampling of each stage as fields of SAMPLING_BOUNDS, within their limits."""
    numbers: dict[str, float] = {}
    for name, bound in SAMPLING_BOUNDS.items():
        stage, _, setting = name.partition("_")
        numbers[name] = min(max(getattr(sampling[stage], setting), bound.minimum), bound.maximum)
    return numbers


@dataclass(frozen=True)
class CheckpointChoice:
    """Which checkpoint: an embedded name, a folder or a Hub id, and for the Hub a revision."""

    source: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise RequestError("checkpoint must be a name, a folder or a Hub id, found nothing")
        if len(self.source) > 500:
            raise RequestError(f"checkpoint must have at most 500 characters, found {len(self.source)}")

    @classmethod
    def parse(cls, text: str | None) -> CheckpointChoice:
        """`source` or `source@revision`. Raises RequestError where there is nothing."""
        if text is None or not isinstance(text, str):
            raise RequestError(f"checkpoint must be a name, a folder or a Hub id, found {text!r}")
        source, _, revision = text.strip().partition("@")
        return cls(source, revision or None)

    @property
    def text(self) -> str:
        """What `parse` reads back."""
        return self.source if self.revision is None else f"{self.source}@{self.revision}"


@dataclass(frozen=True)
class ClipRequest:
    """A recording, and the checkpoint that is to read it."""

    audio: Path
    checkpoint: CheckpointChoice

    @classmethod
    def of(cls, audio: str | Path | None, checkpoint: str | None) -> ClipRequest:
        """Raises RequestError where there is no recording or no checkpoint."""
        return cls(recording(audio), CheckpointChoice.parse(checkpoint))


@dataclass(frozen=True)
class ContinueRequest:
    """A validated request for continuations of the recording at `audio`."""

    audio: Path
    checkpoint: CheckpointChoice
    options: ContinuationRequest

    @classmethod
    def from_fields(
        cls,
        audio: str | Path | None,
        checkpoint: CheckpointChoice,
        fields: Mapping[str, Any],
        prompt_part: str = "codec",
        sampling: Mapping[str, SamplingConfig] = USUAL_SAMPLING,
        fine_decoder: str = FINE_DECODERS[0],
    ) -> ContinueRequest:
        """`fields` maps CONTINUE_FIELDS to numbers; a missing or None one takes its default, which for sampling is the
        checkpoint's own, `sampling`.

        Raises RequestError as `checked`; or that there is no recording.
        """
        if prompt_part not in PROMPT_PARTS:
            raise RequestError(f"prompt_part must be one of {', '.join(PROMPT_PARTS)}, found {str(prompt_part)[:40]!r}")
        if fine_decoder not in FINE_DECODERS:
            found = str(fine_decoder)[:40]
            raise RequestError(f"fine_decoder must be one of {', '.join(FINE_DECODERS)}, found {found!r}")
        numbers = checked(fields, CONTINUE_FIELDS, sampling_fields(sampling))
        settings = {name: numbers.pop(name) for name in SAMPLING_BOUNDS}
        stages = {
            stage: SamplingConfig(*(settings[f"{stage}_{name}"] for name in ("temperature", "top_k", "top_p")))
            for stage in STAGES
        }
        parts = {"prompt_part": prompt_part, "fine_decoder": fine_decoder}
        return cls(recording(audio), checkpoint, ContinuationRequest(**parts, **numbers, **stages))


@dataclass(frozen=True)
class LadderRequest:
    """The resynthesis ladder of a clip; `num_draws` of its rungs follow the semantic tokens alone."""

    clip: ClipRequest
    seed: int
    num_draws: int

    @classmethod
    def from_fields(cls, clip: ClipRequest, fields: Mapping[str, Any]) -> LadderRequest:
        """Raises RequestError as `checked`."""
        return cls(clip, **checked(fields, LADDER_FIELDS, {}))


@dataclass(frozen=True)
class VoicesRequest:
    """What a clip says or plays, in several voices: the model's own, or that of the start of `voice`."""

    clip: ClipRequest
    voice: Path | None
    prompt_s: float  # of `voice`
    num_voices: int
    seed: int

    @classmethod
    def from_fields(cls, clip: ClipRequest, voice: str | Path | None, fields: Mapping[str, Any]) -> VoicesRequest:
        """Raises RequestError as `checked`."""
        return cls(clip, Path(voice) if voice else None, **checked(fields, VOICES_FIELDS, {}))


@dataclass(frozen=True)
class AblateRequest:
    """A clip's start continued by the whole model and by parts of it, with one seed."""

    clip: ClipRequest
    prompt_s: float
    continuation_s: float
    seed: int

    @classmethod
    def from_fields(cls, clip: ClipRequest, fields: Mapping[str, Any]) -> AblateRequest:
        """Raises RequestError as `checked`."""
        return cls(clip, **checked(fields, ABLATE_FIELDS, {}))


def recording(audio: str | Path | None) -> Path:
    """The path of an upload. Raises RequestError where there is none."""
    if audio is None or not str(audio):
        raise RequestError("there is no recording: record or upload one, or take an example")
    return Path(audio)


def checked_levels(levels: Any) -> tuple[int, ...]:
    """Numbers of quantizer levels to reconstruct from. Raises RequestError naming the limit and the value."""
    most = max(RECONSTRUCTION_LEVELS)
    numbers = list(levels) if isinstance(levels, list | tuple) else []
    if not 1 <= len(numbers) <= most:
        raise RequestError(f"levels must be a list of 1 to {most} whole numbers, found {str(levels)[:60]}")
    bound = Bound("Levels", 1, most, 1, most, whole=True)
    return tuple(int(bound.check("levels", number)) for number in numbers)
