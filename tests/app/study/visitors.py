"""Participants and owners over HTTP: what their browsers ask of the routes, and every trace that it leaves."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from app.study.assembly import Item, Sound, assemble
from app.study.definition import DetectorScore, Study
from app.study.presets import PRESETS
from app.study.recipe import Recipe
from audiolm.config import SAMPLE_RATE_HZ
from tests.app.study.studies import Clock

CLIP_S = 2.0
TRIAL_S = 60.0  # that a participant takes for a step


def assembled(preset: str = "audiolm", items: int = 3, seed: int = 5) -> tuple[Study, dict[str, bytes], str]:
    """A study that went through mastering, of sounds that differ as much as they can: noise, and for what counts as
    generated a loud buzz with silence in it. Returns also its files and its owner's secret."""
    generator = torch.Generator().manual_seed(seed)
    prompts = (Path("not read"),) * (items + 1)
    _, recipe = Recipe(preset, "none", prompts, clip_s=CLIP_S, prompt_s=0.52, seed=seed, target_sessions=40).resolved()
    versions = recipe.versions

    def sound(number: int) -> torch.Tensor:
        noise = torch.randn(round(CLIP_S * SAMPLE_RATE_HZ), generator=generator)
        time_s = torch.arange(len(noise)) / SAMPLE_RATE_HZ
        buzz = 0.3 * torch.sign(torch.sin(2 * torch.pi * 150 * time_s)) * (time_s < 1.5)
        return 0.01 * noise if number == 0 else buzz + 0.001 * noise

    made = [
        Item(f"{index:03d}", tuple(Sound(v, sound(n), v.source == "continuation", {}) for n, v in enumerate(versions)))
        for index in range(items + 1)
    ]
    score = DetectorScore("generated", 0.9)
    return assemble(PRESETS[preset], recipe, made, lambda samples: score)


@dataclass(frozen=True)
class Trace:
    """One answer of the server to a participant's browser, as anyone on the line, or the browser's tools, see it."""

    address: str
    status: int
    headers: tuple[tuple[str, str], ...]
    size: int
    sha256: str  # of the body: what was heard
    place: int  # among the sounds of its step
    waited_s: float  # until the headers were there
    took_s: float  # until all of it was there


class Visitor:
    """A browser with a link. Takes TRIAL_S of the clock's time for a step."""

    def __init__(self, client: httpx.Client, study_id: str, clock: Clock, **ids: str) -> None:
        self.client, self.base, self.clock, self.ids = client, f"/{study_id}/api", clock, ids
        self.token = ""
        self.traces: list[Trace] = []

    def post(self, path: str, key: str = "", **body: Any) -> httpx.Response:
        return self.client.post(
            f"{self.base}/{path}", json={**body, "key": key or secrets.token_hex(16)}, headers=self.headers
        )

    def get(self, path: str) -> httpx.Response:
        return self.client.get(f"{self.base}/{path}", headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def agree(self) -> dict[str, Any]:
        answer = self.post("consent", ids=self.ids, agreed=True)
        answer.raise_for_status()
        self.token = answer.json()["token"]
        return answer.json()

    def step(self) -> dict[str, Any]:
        return self.get("step").raise_for_status().json()

    def listen(self, trial: Mapping[str, Any]) -> list[str]:
        """Fetches every sound of a step; their SHA-256."""
        handles = [clip["handle"] for clip in (*trial["clips"], trial["reference"]) if clip]
        for place, handle in enumerate(handles):
            began_s = time.perf_counter()
            heard = self.get(f"sound/{handle}").raise_for_status()
            took_s = time.perf_counter() - began_s
            sha256 = hashlib.sha256(heard.content).hexdigest()
            headers = tuple((name, value) for name, value in heard.headers.items() if name != "date")
            self.traces.append(
                Trace(
                    str(heard.request.url),
                    heard.status_code,
                    headers,
                    len(heard.content),
                    sha256,
                    place,
                    heard.elapsed.total_seconds(),
                    took_s,
                )
            )
        return [trace.sha256 for trace in self.traces[-len(handles) :]] if handles else []

    def answer(self, trial: Mapping[str, Any], given: Mapping[str, Any], key: str = "") -> httpx.Response:
        self.clock.now_s += TRIAL_S
        count = len(trial["clips"]) + (trial["reference"] is not None)
        sounds = {"plays": [1] * count, "listened_s": [trial["duration_s"]] * count, "response_s": 9.0}
        return self.post("answer", key, trial=trial["key"], **sounds, **given)

    def go_on(self, study: Study, choose: Callable[[Mapping[str, Any], list[str]], Mapping[str, Any]], steps: int = -1):
        """Answers `steps` steps, or all and finishes. `choose` gets a scored or practice trial and its sounds."""
        while steps != 0 and (trial := self.step()["trial"]) is not None:
            heard = self.listen(trial)
            given = known_answer(study, trial, heard) or choose(trial, heard)
            self.answer(trial, given).raise_for_status()
            steps -= 1
        return self


def known_answer(study: Study, trial: Mapping[str, Any], heard: list[str]) -> dict[str, Any] | None:
    """What an attentive listener answers where there is one right answer whatever they think of the clips."""
    if trial["phase"] == "comment":
        return {"text": "=cmd|' /C calc'!A0"}
    if trial["phase"] == "level":
        return {"value": "ok"}
    if trial["phase"] == "headphones":
        clip = next(clip.id for clip in study.clips if clip.sha256 == heard[0])
        return {"value": next(one.expected for one in study.trials if one.clips == (clip,))}
    if trial["instruction"]:
        return {"value": next(one.expected for one in study.trials if one.role == "attention")}
    conditions = {clip.condition for clip in study.clips if clip.sha256 in heard}
    return {"value": "beeps"} if "beeps" in conditions else None
