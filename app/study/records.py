"""What is stored of a study, as values: the input of analysis and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.study.definition import Study


@dataclass(frozen=True)
class SessionRecord:
    """`excluded` says why the analysis leaves the session out ("" where it is in): not complete, or failed checks."""

    id: str
    cell: int
    state: str
    consented_utc: str
    finished_utc: str
    headphones_correct: int
    failed_checks: int
    num_answers: int
    total: int
    excluded: str
    code_version: str
    external_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerRecord:
    """One answered step. `value` is the chosen option, the comment or ""; `scores` those of mushra, by clip id.

    `correct` is None where no answer is right. `plays` and `listened_s`: in the order of `clips`, then the reference.
    `response_s` is as the page measured it, `elapsed_s` from the server's first presentation to the answer.
    """

    session: str
    index: int
    trial: str
    role: str
    side: str
    clips: tuple[str, ...]
    clip_sha256: tuple[str, ...]
    value: str
    scores: tuple[float, ...]
    correct: bool | None
    plays: tuple[int, ...]
    listened_s: tuple[float, ...]
    response_s: float
    elapsed_s: float
    presented_utc: str
    answered_utc: str
    presentations: int


@dataclass(frozen=True)
class StudyRecords:
    """Sessions in order of consent; answers in order of session and step. Comments are answers of role "comment"."""

    study: Study
    sessions: tuple[SessionRecord, ...]
    answers: tuple[AnswerRecord, ...]
    num_declined: int = 0
    num_withdrawn: int = 0
    closed: bool = False
