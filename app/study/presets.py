"""The protocols to start from: texts, checks and plan of each, in `PRESETS`."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.study.definition import (
    AB,
    ABX,
    HUMAN_AGAINST_DETECTOR,
    MOS,
    MUSHRA,
    REAL_OR_SYNTHETIC,
    Checks,
    Plan,
    Texts,
)


@dataclass(frozen=True)
class Preset:
    """`clip_s` of which the first `prompt_s` are the prompt; `minutes` is about what a session takes."""

    name: str
    kind: str
    label: str
    summary: str
    texts: Texts
    checks: Checks = field(default_factory=Checks)
    plan: Plan = field(default_factory=Plan)
    clip_s: float = 10.0
    prompt_s: float = 3.0


def _preset(name: str, kind: str, label: str, summary: str) -> Preset:
    return Preset(name, kind, label, summary, Texts(title=label))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _preset("audiolm", REAL_OR_SYNTHETIC, "AudioLM replication", "Real or synthetic?"),
        _preset("ab", AB, "AB preference", "Which of two?"),
        _preset("abx", ABX, "ABX", "Is X A or B?"),
        _preset("mos", MOS, "MOS (P.808)", "How good, from 1 to 5?"),
        _preset("mushra", MUSHRA, "MUSHRA (BS.1534)", "How close to the reference, from 0 to 100?"),
        _preset("duel", HUMAN_AGAINST_DETECTOR, "Human against detector", "Guess, then see the detector's score"),
    )
}
