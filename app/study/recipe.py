"""What a researcher chooses to make a study: the preset and what departs from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from app.study.definition import MUSHRA
from app.study.presets import HIDDEN_REFERENCE, LOW_ANCHOR, LOW_PASS, MID_ANCHOR, PRESETS, RECORDING, Preset, Version
from audiolm.config import FRAME_RATE_HZ, SEMANTIC_RATE_HZ
from audiolm.errors import RequestError
from audiolm.request import MAX_SEED

MAX_PROMPTS = 500
MIN_PROMPT_S, MIN_CLIP_S, MAX_CLIP_S = 0.5, 2.0, 30.0


@dataclass(frozen=True)
class Recipe:
    """Empty versions and texts, and numbers of 0, are the preset's.

    `prompts` are recordings at least `clip_s` long; the last `num_practice` of them serve practice, attention and trap
    trials and are never scored. `prompt_s` is cut to whole semantic positions (40 ms), `clip_s` to whole frames
    (20 ms). The seed is that of the continuations and of the participants' orders. With `watermark`, and where anything
    is generated, every clip carries the mark, recordings too: a mark in some would tell which they are.
    """

    preset: str
    checkpoint: str
    prompts: tuple[Path, ...]
    title: str = ""
    versions: tuple[Version, ...] = ()
    clip_s: float = 0.0
    prompt_s: float = 0.0
    seed: int = 0
    num_practice: int = 1
    target_sessions: int = 0
    trials_per_session: int = 0
    watermark: bool = True

    def resolved(self) -> tuple[Preset, Recipe]:
        """The preset, and the recipe with nothing left open. Raises RequestError."""
        if self.preset not in PRESETS:
            raise RequestError(f"preset must be one of {', '.join(PRESETS)}, found {self.preset!r:.60}")
        preset = PRESETS[self.preset]
        least = max(0, self.num_practice) + 1
        if self.num_practice < 0 or not least <= len(self.prompts) <= MAX_PROMPTS:
            raise RequestError(
                f"{least} to {MAX_PROMPTS} recordings are needed, {self.num_practice} of them for practice, "
                f"found {len(self.prompts)}"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise RequestError(f"seed must be 0..{MAX_SEED}, found {self.seed}")
        clip_s = _whole(self.clip_s or preset.clip_s, FRAME_RATE_HZ)
        prompt_s = _whole(self.prompt_s or preset.prompt_s, SEMANTIC_RATE_HZ)
        if not MIN_CLIP_S <= clip_s <= MAX_CLIP_S:
            raise RequestError(f"clips must be {MIN_CLIP_S:g} to {MAX_CLIP_S:g} s long, found {clip_s:g} s")
        if not MIN_PROMPT_S <= prompt_s <= clip_s - 1.0:
            raise RequestError(f"the prompt must be {MIN_PROMPT_S:g} to {clip_s - 1.0:g} s long, found {prompt_s:g} s")
        versions = self._versions(preset)
        return preset, replace(self, versions=versions, clip_s=clip_s, prompt_s=prompt_s)

    def _versions(self, preset: Preset) -> tuple[Version, ...]:
        versions = self.versions or preset.versions
        if preset.kind == MUSHRA:
            versions = (
                *versions,
                Version(HIDDEN_REFERENCE, RECORDING),
                Version(LOW_ANCHOR, LOW_PASS, cutoff_hz=3500.0),
                Version(MID_ANCHOR, LOW_PASS, cutoff_hz=7000.0),
            )
        names = [version.name for version in versions]
        if len(set(names)) != len(names):
            raise RequestError(f"every version needs a name of its own, found {', '.join(names)}")
        if len(versions) < preset.least_versions:
            raise RequestError(f"{preset.label} needs {preset.least_versions} versions, found {len(versions)}")
        return versions


def _whole(seconds: float, rate_hz: int) -> float:
    """Down to whole steps at a rate."""
    return int(seconds * rate_hz + 1e-6) / rate_hz
