"""Sessions and answers in SQLite: what is acknowledged is on disk, once, and what is withdrawn is gone.

Write-ahead log, `synchronous=FULL`, one writing connection a process behind a lock. A call that returns has committed.
Thread-safe. Errors: `app.study.errors`; each method names the ones it raises beside StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.study.definition import Study
from app.study.records import StudyRecords
from app.study.views import Finish, Receipt, Session, TrialView

SCHEMA_VERSION = 1


class Store:
    """One database of any number of studies."""

    def __init__(self, path: Path, clock: Callable[[], float] | None = None) -> None:
        """Opens or creates it. `clock` gives seconds since 1970 (default: time.time)."""

    def close(self) -> None: ...

    # studies

    def create_study(self, study: Study) -> None:
        """Registers a definition; the same again is no error. Raises ConflictError where it differs from the kept."""

    def studies(self) -> tuple[str, ...]:
        """Ids, oldest first."""

    def study(self, study_id: str) -> Study:
        """Raises UnknownStudyError."""

    def is_owner(self, study_id: str, token: str) -> bool:
        """Whether this is the study's owner token, compared in constant time."""

    def close_study(self, study_id: str, closed: bool = True) -> None:
        """A closed study takes no new participants; running sessions go on. Raises UnknownStudyError."""

    # participants, in the order of the calls

    def enrol(self, study_id: str, external_ids: Mapping[str, str], token: str = "") -> Session:
        """Who is this? By token first, then by participant id. Writes nothing.

        `external_ids` are the query parameters of the link; EXTERNAL_IDS lists those that are read. A known participant
        gets the session with a token (any browser); an unknown one a Session in state "consent".

        Raises UnknownStudyError; StudyFullError where a new participant has no place.
        """

    def consent(self, study_id: str, external_ids: Mapping[str, str], agreed: bool) -> Session:
        """With `agreed` the first that is stored of a participant: cell, order, ids. Asked twice: the same session.

        Without, only a number of refusals is counted, and the session carries the code and redirect for it.

        Raises UnknownStudyError, StudyFullError.
        """

    def session(self, token: str) -> Session:
        """Raises NoSessionError."""

    def next_trial(self, token: str) -> TrialView | None:
        """The first step without an answer: the same however often asked. None when all are answered, or screened out.

        Raises NoSessionError (also for a session that lapsed and whose place is taken).
        """

    def clip(self, token: str, handle: str) -> tuple[str, str]:
        """(study id, clip id) of a handle of the step at hand. Raises NoSessionError: unknown, or not of this step."""

    def answer(self, token: str, key: str, payload: Mapping[str, Any], idempotency_key: str) -> Receipt:
        """Commits the answer to the step `key`; the same idempotency key again gives the same receipt.

        payload: {"value": "generated"} or {"scores": [80, 12, …]} or {"text": "…"} (comment; "" is fine), and
        "plays": [n, …], "listened_s": [s, …] in the order of clips then reference, "response_s": s.

        Raises NoSessionError, AnswerError, ConflictError.
        """

    def finish(self, token: str) -> Finish:
        """Reads every answer back over a second connection, compares it with the plan, then gives the code.

        Raises NoSessionError; IncompleteError where steps are unanswered.
        """

    def withdraw(self, token: str) -> None:
        """Erases the session: rows, free pages, write-ahead log. Raises NoSessionError."""

    # owners

    def results(self, study_id: str) -> StudyRecords:
        """Everything stored, for analysis and export. Raises UnknownStudyError."""

    def backup(self, target: Path) -> None:
        """A consistent copy of the database while it is in use."""

    def restore(self, source: Path) -> None:
        """Replaces the content by a backup's, without the sessions withdrawn since. Raises StoreError."""
