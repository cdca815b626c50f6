"""Renders a study's clips: continuations and recordings, equal in length and loudness; the files hold nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.offer import Offer
from app.study.definition import Checked, Study
from audiolm.events import Progress

SOURCES = ("recording", "codec", "continuation")


@dataclass(frozen=True)
class Version(Checked):
    """A condition: what is made of a prompt. `levels` are those of "codec" (0: all), `ablation` of "continuation"."""

    name: str
    source: str
    checkpoint: str = ""
    ablation: str = ""
    levels: int = 0


@dataclass(frozen=True)
class Recipe:
    """What a researcher chooses. Empty `versions` and lengths of 0 are the preset's. `prompts` are recordings at least
    `clip_s` long; the last `num_practice` of them serve practice, attention and trap trials and are never scored."""

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


@dataclass(frozen=True)
class Rendered:
    """The end: a definition that passed the pre-flight, its clips as WAV files by id, and the owner's secret."""

    study: Study
    clips: dict[str, bytes] = field(repr=False)
    owner_token: str = field(repr=False)


def render(offer: Offer, recipe: Recipe) -> Iterator[Progress | Rendered]:
    """Yields Progress, at last one Rendered; `Library.add` keeps it. Behind `Service.make_study`, which takes turns.

    Raises RequestError, AudioError, CheckpointError, PreflightError, DeviceMemoryError.
    """
    raise NotImplementedError
