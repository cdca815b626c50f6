"""What a participant may answer. What the page sends is hostile input: everything is checked here, against the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.study.definition import (
    ABX,
    ATTENTION,
    BEEPS,
    HEADPHONES,
    LEVEL,
    MUSHRA,
    PRACTICE,
    SCORED,
    TRAP,
    TRUTH_KINDS,
    Study,
)
from app.study.errors import AnswerError
from app.study.protocol import PlannedTrial

COMMENT = "comment"
"""The role of the last step."""

MAX_COMMENT = 2000
MAX_PLAYS, MAX_SECONDS = 10_000, 86_400.0
_SWAPPED = {"first": "second", "second": "first"}
_TOLERANCE_S = 0.3  # a player's clock is coarse
_FIELDS = {"value", "scores", "text", "plays", "listened_s", "response_s"}


@dataclass(frozen=True)
class Answer:
    """A checked answer; fields as in `app.study.records.AnswerRecord`, `scores` in the order presented."""

    value: str
    scores: tuple[float, ...]
    correct: bool | None
    plays: tuple[int, ...]
    listened_s: tuple[float, ...]
    response_s: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """What `to_json` wrote."""
        return cls(**{name: tuple(one) if isinstance(one, list) else one for name, one in json.loads(text).items()})


def sounds(study: Study, planned: PlannedTrial) -> tuple[str, ...]:
    """Ids of everything to be heard in a step: the clips as presented, then the open reference."""
    reference = study.trial(planned.trial).reference if planned.trial else ""
    return (*planned.clips, *([reference] if reference else []))


def choices(study: Study, planned: PlannedTrial) -> tuple[str, ...]:
    """The values to choose from; () where scores or a text are asked for."""
    if planned.role == HEADPHONES:
        return ("1", "2", "3")
    if planned.role == LEVEL:
        return ("ok",)
    return () if planned.role == COMMENT else tuple(value for value, _ in study.options())


def right_answer(study: Study, planned: PlannedTrial) -> str:
    """ "" where no answer is right or wrong."""
    if planned.role == COMMENT:
        return ""
    if planned.role == TRAP:
        return BEEPS
    if planned.role in (HEADPHONES, ATTENTION):
        return study.trial(planned.trial).expected
    if planned.role != LEVEL:
        if study.kind in TRUTH_KINDS:
            return study.clip(planned.clips[0]).truth
        if study.kind == ABX:
            return planned.side.removeprefix("x=")
    expected = study.trial(planned.trial).expected
    return _SWAPPED.get(expected, expected) if planned.side == "other" else expected


def read_answer(study: Study, planned: PlannedTrial, payload: Mapping[str, Any], elapsed_s: float) -> Answer:
    """`elapsed_s`: since the step was first presented. Raises AnswerError naming what is wrong with the payload."""
    if not isinstance(payload, Mapping) or not set(payload) <= _FIELDS:
        raise AnswerError(f"an answer has the fields {', '.join(sorted(_FIELDS))}")
    heard = sounds(study, planned)
    plays = _numbers(payload, "plays", len(heard), MAX_PLAYS)
    if any(count != int(count) for count in plays):
        raise AnswerError("plays must be whole numbers")
    listened_s = _numbers(payload, "listened_s", len(heard), MAX_SECONDS)
    response_s = _number("response_s", payload.get("response_s", 0.0), MAX_SECONDS)
    if planned.role not in (LEVEL, COMMENT):
        _require_played(study, heard, listened_s, elapsed_s)
    value, scores = _chosen(study, planned, payload)
    right = right_answer(study, planned)
    missing = value == BEEPS and planned.role in (SCORED, PRACTICE)
    correct = value == right if right and not missing else None
    return Answer(value, scores, correct, tuple(int(count) for count in plays), listened_s, response_s)


def _chosen(study: Study, planned: PlannedTrial, payload: Mapping[str, Any]) -> tuple[str, tuple[float, ...]]:
    value = payload.get("value", "")
    if planned.role == COMMENT:
        return _comment(payload.get("text", "")), ()
    if value == BEEPS and planned.role not in (HEADPHONES, LEVEL):
        return BEEPS, ()
    if study.kind == MUSHRA and planned.role not in (HEADPHONES, LEVEL):
        return "", _numbers(payload, "scores", len(planned.clips), 100.0)
    allowed = choices(study, planned)
    if value not in allowed:
        raise AnswerError(f"value must be one of {', '.join(allowed)}, found {str(value)!r:.40}")
    return value, ()


def _comment(text: Any) -> str:
    if not isinstance(text, str) or len(text) > MAX_COMMENT:
        raise AnswerError(f"a comment is a text of at most {MAX_COMMENT} characters")
    return "".join(sign for sign in text if sign.isprintable() or sign in "\n\t").strip()


def _require_played(study: Study, heard: tuple[str, ...], listened_s: tuple[float, ...], elapsed_s: float) -> None:
    """The page says how long it played, and the server knows how long there was time for it."""
    needed_s = [study.checks.must_play * study.clip(clip).duration_s for clip in heard]
    for number, (found_s, least_s) in enumerate(zip(listened_s, needed_s, strict=True), 1):
        if found_s < least_s - _TOLERANCE_S:
            raise AnswerError(f"sound {number} must be heard for {least_s:.1f} s first, found {found_s:.1f} s")
    if elapsed_s < sum(needed_s) - _TOLERANCE_S * len(heard):
        raise AnswerError(f"an answer after {elapsed_s:.1f} s: the sounds alone last {sum(needed_s):.1f} s")


def _numbers(payload: Mapping[str, Any], name: str, count: int, most: float) -> tuple[float, ...]:
    values = payload.get(name, [0] * count if name != "scores" else None)
    if not isinstance(values, list | tuple) or len(values) != count:
        raise AnswerError(f"{name} must be a list of {count} numbers")
    return tuple(_number(name, value, most) for value in values)


def _number(name: str, value: Any, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:  # NaN fails too
        raise AnswerError(f"{name} must be 0 to {most:g}, found {str(value)!r:.40}")
    return float(value)
