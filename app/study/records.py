"""What is stored of a study, as values: the input of analysis and export."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.study.answers import Answer, sounds
from app.study.definition import ATTENTION, HEADPHONES, TRAP, Study
from app.study.protocol import PlannedTrial, plan_from_json
from app.study.views import COMPLETE, LAPSED, RUNNING


@dataclass(frozen=True)
class SessionRecord:
    """`state` is running, complete, screened_out or lapsed (also: running, but idle for longer than the plan allows).

    `excluded` says why the analysis leaves the session out, "" where it is in or MUSHRA's post-screening decides
    (`analysis.exclusions`). `headphones_correct` of the headphone trials were right; `failed_checks` counts wrong
    attention and trap trials. `num_answers` of `total` steps are answered.
    """

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
    """One answered step. `value` is the chosen option or the comment; `scores` are mushra's, in the order of `clips`.

    `correct` is None where no answer is right. `plays` and `listened_s`: in the order of `clips`, then the reference.
    `response_s` is as the page measured it, `elapsed_s` from the server's first presentation to the answer;
    `presentations` counts how often the step was shown (reloads).
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


def read_records(db: sqlite3.Connection, study: Study, now_s: float) -> StudyRecords:
    """Everything stored of a study, within the caller's transaction."""
    totals = db.execute("SELECT closed, declined, withdrawn FROM studies WHERE id = ?", (study.id,)).fetchone()
    sessions: list[SessionRecord] = []
    answers: list[AnswerRecord] = []
    for row in db.execute("SELECT * FROM sessions WHERE study = ? ORDER BY consented_s, id", (study.id,)).fetchall():
        own = _answers_of(db, study, row)
        sessions.append(_session_of(study, row, own, now_s))
        answers += own
    return StudyRecords(
        study, tuple(sessions), tuple(answers), totals["declined"], totals["withdrawn"], bool(totals["closed"])
    )


def _answers_of(db: sqlite3.Connection, study: Study, row: sqlite3.Row) -> list[AnswerRecord]:
    plan = plan_from_json(row["plan"])
    found = db.execute(
        "SELECT answers.*, first_s, times FROM answers JOIN presentations USING (session, step)"
        " WHERE session = ? ORDER BY step",
        (row["id"],),
    )
    return [_answer_of(study, row["id"], plan[kept["step"]], kept) for kept in found]


def _answer_of(study: Study, session: str, planned: PlannedTrial, kept: sqlite3.Row) -> AnswerRecord:
    answer = Answer.from_json(kept["answer"])
    return AnswerRecord(
        session=session,
        index=planned.index,
        trial=planned.trial,
        role=planned.role,
        side=planned.side,
        clips=planned.clips,
        clip_sha256=tuple(study.clip(clip).sha256 for clip in sounds(study, planned)),
        value=answer.value,
        scores=answer.scores,
        correct=answer.correct,
        plays=answer.plays,
        listened_s=answer.listened_s,
        response_s=answer.response_s,
        elapsed_s=round(kept["answered_s"] - kept["first_s"], 3),
        presented_utc=_utc(kept["first_s"]),
        answered_utc=_utc(kept["answered_s"]),
        presentations=kept["times"],
    )


def _session_of(study: Study, row: sqlite3.Row, answers: Sequence[AnswerRecord], now_s: float) -> SessionRecord:
    idle = row["state"] == RUNNING and row["seen_s"] < now_s - 60.0 * study.plan.idle_minutes
    state = LAPSED if idle else row["state"]
    failed = sum(answer.correct is False for answer in answers if answer.role in (ATTENTION, TRAP))
    excluded = "" if state == COMPLETE else state
    if not excluded and failed > study.checks.max_failed:
        excluded = "failed checks"
    return SessionRecord(
        id=row["id"],
        cell=row["cell"],
        state=state,
        consented_utc=_utc(row["consented_s"]),
        finished_utc=_utc(row["finished_s"]) if row["finished_s"] is not None else "",
        headphones_correct=sum(bool(answer.correct) for answer in answers if answer.role == HEADPHONES),
        failed_checks=failed,
        num_answers=len(answers),
        total=len(plan_from_json(row["plan"])),
        excluded=excluded,
        code_version=row["code_version"],
        external_ids=json.loads(row["external"]),
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
