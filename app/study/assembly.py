"""Sounds -> a study: clips with random ids, trials, checks and codes."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from app.study import headphones, protocol
from app.study.definition import (
    AB,
    ABX,
    ATTENTION,
    HEADPHONES,
    LEVEL,
    MUSHRA,
    OPTIONS,
    PRACTICE,
    SCORED,
    TRAP,
    Clip,
    Codes,
    DetectorScore,
    Study,
    Texts,
    Trial,
)
from app.study.mastering import mastered, with_beeps
from app.study.preflight import HEADER_BYTES, loudness_of
from app.study.presets import BEEPS_NOTE, HIDDEN_REFERENCE, Preset, Version
from app.study.recipe import Recipe
from app.study.version import code_version

Judge = Callable[[Tensor], DetectorScore | None]
"""samples [T] as they are heard -> what the detector says of them."""

ATTENTION_TEXT = "This one checks whether you read. Whatever you hear, please choose: {label}"
"""The words of the expected answer are put in when it is shown: a study may word its answers otherwise."""

BEEPS_CONDITION, SCREENING_ITEM = "beeps", "screening"


@dataclass(frozen=True)
class Sound:
    """What a version made of a recording: samples [T]; `origin` goes into the study file."""

    version: Version
    samples: Tensor
    generated: bool
    origin: dict[str, str]


@dataclass(frozen=True)
class Item:
    """A recording, and what every version made of it, in the order of the versions."""

    name: str
    sounds: tuple[Sound, ...]


def assemble(
    preset: Preset, recipe: Recipe, items: Sequence[Item], judge: Judge | None, watermark: str = ""
) -> tuple[Study, dict[str, bytes], str]:
    """The study, its WAV files by clip id, and the owner's secret. Raises AudioSilentError.

    `recipe` is a resolved one; the last `recipe.num_practice` items serve practice and checks. `judge` is asked about
    every scored clip and every practice clip. `watermark` is the name of the mark that all sounds carry.
    """
    bench = _Bench(preset.kind)
    first_practice = len(items) - recipe.num_practice
    for number, item in enumerate(items):
        bench.add_item(item, SCORED if number < first_practice else PRACTICE)
    if recipe.num_practice and preset.kind != MUSHRA:
        bench.add_checks(items[-1], recipe.seed)
    files, target_lufs = mastered(bench.samples, recipe.seed)
    clips = [_clip(bench, clip_id, content, judge) for clip_id, content in files.items()]
    if preset.checks.headphone_pass:
        clips += bench.add_screening(recipe.seed, target_lufs, files)
    token = secrets.token_urlsafe(24)
    study = Study(
        id=secrets.token_hex(6),
        kind=preset.kind,
        seed=recipe.seed,
        conditions=tuple(version.name for version in recipe.versions),
        clips=tuple(clips),
        trials=tuple(bench.trials),
        texts=_texts(preset, recipe),
        checks=preset.checks,
        plan=replace(preset.plan, trials_per_session=recipe.trials_per_session or preset.plan.trials_per_session),
        codes=Codes(*(secrets.token_hex(4).upper() for _ in range(4))),
        preset=preset.name,
        watermark=watermark,
        owner_token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        code_version=code_version(),
    )
    return _with_target(study, recipe.target_sessions), files, token


def _texts(preset: Preset, recipe: Recipe) -> Texts:
    texts = preset.texts_for(recipe.versions)
    introduction = texts.introduction.replace("{prompt_s}", f"{recipe.prompt_s:g}")
    instructions = texts.instructions
    if not recipe.num_practice:  # then there is no trial with beeps
        instructions = instructions.removesuffix(BEEPS_NOTE).rstrip()
    title = recipe.title or texts.title
    return replace(texts, title=title, introduction=introduction, instructions=instructions)


def _with_target(study: Study, wanted: int) -> Study:
    """The number of sessions that was asked for, else the plan's, made a multiple of the number of lists."""
    cells = protocol.num_cells(study)
    target = wanted or cells * math.ceil(study.plan.target_sessions / cells)
    return replace(study, plan=replace(study.plan, target_sessions=target))


@dataclass
class _Bench:
    """Where the pieces lie while a study is put together."""

    kind: str
    trials: list[Trial] = field(default_factory=list)
    samples: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, tuple[str, Sound, bool]] = field(default_factory=dict)  # item, sound, whether it is judged

    def add_item(self, item: Item, role: str) -> None:
        own = [self._new(item.name, sound, judged=True) for sound in item.sounds]
        self._add_trials(item, own, role)

    def add_checks(self, item: Item, seed: int) -> None:
        """One trial that says which answer to give, and one with beeps in its sounds."""
        practice = next(trial for trial in self.trials if trial.role == PRACTICE)
        value, _ = OPTIONS[self.kind][seed % len(OPTIONS[self.kind])]
        self.trials.append(Trial(_new_id(), practice.clips, ATTENTION, expected=value, instruction=ATTENTION_TEXT))
        beeping = [
            replace(
                sound,
                version=Version(BEEPS_CONDITION, sound.version.source),
                samples=with_beeps(sound.samples),
            )
            for sound in item.sounds[: 2 if self.kind in (AB, ABX) else 1]
        ]
        self._add_trials(item, [self._new(item.name, sound, judged=False) for sound in beeping], TRAP)

    def add_screening(self, seed: int, target_lufs: float, files: dict[str, bytes]) -> list[Clip]:
        """The headphone trials and the noise for the volume; their files go into `files`."""
        made = [(HEADPHONES, samples, expected) for samples, expected in headphones.screening(seed, target_lufs)]
        made.append((LEVEL, headphones.level_noise(target_lufs), ""))
        clips = []
        for role, samples, expected in made:
            clip_id, content = _new_id(), headphones.wav(samples)
            files[clip_id] = content
            self.trials.append(Trial(_new_id(), (clip_id,), role, expected=expected))
            clips.append(
                Clip(
                    clip_id,
                    hashlib.sha256(content).hexdigest(),
                    SCREENING_ITEM,
                    role,
                    samples.shape[0],
                    loudness_of(content),
                    num_channels=samples.shape[1],
                )
            )
        return clips

    def _add_trials(self, item: Item, own: Sequence[str], role: str) -> None:
        if self.kind == MUSHRA:
            hidden = next(sound for sound in item.sounds if sound.version.name == HIDDEN_REFERENCE)
            reference = self._new(item.name, hidden, judged=False)
            self.trials.append(Trial(_new_id(), tuple(own), role, reference))
        elif self.kind == ABX:
            copies = [self._new(item.name, self.facts[clip][1], judged=False) for clip in own]
            for one, other in combinations(range(len(own)), 2):
                clips = (own[one], own[other], copies[one], copies[other])
                self.trials.append(Trial(_new_id(), clips, role))
        elif self.kind == AB:
            self.trials += [Trial(_new_id(), pair, role) for pair in combinations(own, 2)]
        else:
            self.trials += [Trial(_new_id(), (clip,), role) for clip in own]

    def _new(self, item: str, sound: Sound, judged: bool) -> str:
        clip_id = _new_id()
        self.samples[clip_id] = sound.samples
        self.facts[clip_id] = (item, sound, judged)
        return clip_id


def _clip(bench: _Bench, clip_id: str, content: bytes, judge: Judge | None) -> Clip:
    item, sound, judged = bench.facts[clip_id]
    samples = torch.from_numpy(np.frombuffer(content, "<i2", offset=HEADER_BYTES).astype(np.float32) / 32767.0)
    return Clip(
        clip_id,
        hashlib.sha256(content).hexdigest(),
        item,
        sound.version.name,
        samples.shape[0],
        loudness_of(content),
        sound.generated,
        detector=judge(samples) if judge and judged else None,
        origin=sound.origin,
    )


def _new_id() -> str:
    """Random, so that it says nothing."""
    return secrets.token_hex(8)
