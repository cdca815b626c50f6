"""Small studies of noise for tests, and participants that answer them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from app.study import headphones
from app.study.definition import (
    AB,
    ABX,
    ATTENTION,
    HEADPHONES,
    LEVEL,
    MOS,
    MUSHRA,
    OPTIONS,
    PRACTICE,
    REAL_OR_SYNTHETIC,
    SCORED,
    TRAP,
    Checks,
    Clip,
    Codes,
    DetectorScore,
    Plan,
    Study,
    Texts,
    Trial,
)
from app.study.preflight import loudness_of
from app.study.store import Store
from app.study.views import TrialView

NUM_SAMPLES = 1600
OWNER_TOKEN = "the owner's secret"
CODES = Codes("DONE", "SCREENED", "DECLINED", "FULL", "https://example.org/done?cc={code}")
HIDDEN, MID = "hidden reference", "anchor 7 kHz"


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Maker:
    """Puts a study together clip by clip; their files are in `files`. Loudness is measured only where asked for."""

    def __init__(self, seed: int = 0, measured: bool = False) -> None:
        self.generator = np.random.default_rng(seed)
        self.measured = measured
        self.clips: list[Clip] = []
        self.trials: list[Trial] = []
        self.files: dict[str, bytes] = {}

    def clip(self, item: str, condition: str, generated: bool = False, detector: DetectorScore | None = None) -> str:
        noise = np.round(2000 * self.generator.standard_normal((NUM_SAMPLES, 1))).astype(np.int16)
        content = headphones.wav(noise)
        clip_id = f"c{len(self.clips):03d}-{self.generator.integers(2**32):08x}"
        sha256 = hashlib.sha256(content).hexdigest()
        loudness = loudness_of(content) if self.measured else -23.0
        self.clips.append(Clip(clip_id, sha256, item, condition, NUM_SAMPLES, loudness, generated, detector=detector))
        self.files[clip_id] = content
        return clip_id

    def trial(self, *clips: str, role: str = SCORED, **rest: str) -> None:
        self.trials.append(Trial(f"t{len(self.trials):03d}", clips, role, **rest))


def make_study(
    kind: str = REAL_OR_SYNTHETIC,
    items: int = 4,
    checks: Checks | None = None,
    plan: Plan | None = None,
    with_checks: bool = False,
    seed: int = 7,
    study_id: str = "a-study",
    measured: bool = False,
) -> tuple[Study, dict[str, bytes]]:
    """A study of `items` items and its files; `with_checks` adds level, headphone, practice, attention, trap trials."""
    maker = Maker(seed, measured)
    conditions = {AB: ("one", "other"), ABX: ("one", "other"), MOS: ("plain", "coded", "made")}.get(kind)
    conditions = (HIDDEN, MID, "coded") if kind == MUSHRA else conditions or ("original", "generated")
    for number in range(items):
        _add_item(maker, kind, f"item {number:03d}", conditions, SCORED)
    if with_checks:
        _add_item(maker, kind, "practice", conditions, PRACTICE)
        if kind != MUSHRA:
            practice = maker.trials[-1].clips
            maker.trial(*practice, role=ATTENTION, expected=OPTIONS[kind][0][0], instruction="Choose the first")
            maker.trial(*practice, role=TRAP)
        maker.trial(maker.clip("screening", "level"), role=LEVEL)
        for number in range(6):
            maker.trial(maker.clip("screening", "headphones"), role=HEADPHONES, expected=str(1 + number % 3))
    study = Study(
        id=study_id,
        kind=kind,
        seed=seed,
        conditions=conditions,
        clips=tuple(maker.clips),
        trials=tuple(maker.trials),
        texts=Texts(title="Test", consent="Do you agree?", question="Which?", debrief="Thank you."),
        checks=checks or Checks(must_play=0.0, headphone_pass=5 if with_checks else 0),
        plan=plan or Plan(target_sessions=24, one_version=kind != MUSHRA),
        codes=CODES,
        owner_token_sha256=hashlib.sha256(OWNER_TOKEN.encode()).hexdigest(),
    )
    return study, maker.files


def _add_item(maker: Maker, kind: str, item: str, conditions: tuple[str, ...], role: str) -> None:
    score = DetectorScore("generated", 0.9)
    own = [maker.clip(item, name, generated=name == "generated", detector=score) for name in conditions]
    if kind in (AB, ABX):
        copies = [maker.clip(item, name) for name in conditions] if kind == ABX else []
        maker.trial(*own, *copies, role=role)
    elif kind == MUSHRA:
        maker.trial(*own, role=role, reference=maker.clip(item, HIDDEN))
    else:
        for clip in own:
            maker.trial(clip, role=role)


Choose = Callable[[TrialView], Mapping[str, Any]]


def payload(view: TrialView, choose: Choose | None = None) -> dict[str, Any]:
    """A full answer: what `choose` says, else the first option, everything played once."""
    count = len(view.clips) + (view.reference is not None)
    answer: dict[str, Any] = {"plays": [1] * count, "listened_s": [view.duration_s] * count, "response_s": 2.0}
    if view.phase == "comment":
        return {**answer, "text": ""}
    if choose is not None:
        return {**answer, **choose(view)}
    return {**answer, **({"scores": [50.0] * len(view.clips)} if view.scores else {"value": view.options[0].value})}


def take_part(store: Store, study: Study, name: str, choose: Choose | None = None, steps: int | None = None) -> str:
    """Consents and answers all steps, or the first `steps`; finishes where all are answered. Returns the token."""
    token = store.consent(study.id, {"PROLIFIC_PID": name}, agreed=True).token
    answered = 0
    while answered != steps:
        view = store.next_trial(token)
        if view is None:
            if store.session(token).state == "running":
                store.finish(token)
            break
        store.answer(token, view.key, payload(view, choose), secrets.token_hex(8))
        answered += 1
    return token
