"""Sessions and answers in SQLite: what is acknowledged is on disk, once, and what is withdrawn is gone.

Write-ahead log, `synchronous=FULL`, one writing connection a process behind a lock. A call that returns has committed.
Thread-safe. Errors: `app.study.errors`; each method names the ones it raises beside StoreError.

A session's id follows from the study's seed and the participant's id, and the order from the session's id and its cell.
Cells are given out by places: a cell has as many as completed sessions are wanted of it; a completed session holds its
place for good, a running one as long as it is not idle. So no cell ever has more completed sessions than wanted, and
when the last place is filled all have as many as they should.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.study import protocol
from app.study.answers import COMMENT, Answer, read_answer, sounds
from app.study.database import Database
from app.study.definition import HEADPHONES, SCORED, Study
from app.study.errors import (
    AnswerError,
    ConflictError,
    IncompleteError,
    LapsedError,
    NoSessionError,
    StoreError,
    StudyFullError,
    UnknownStudyError,
)
from app.study.presentation import feedback, study_page, trial_view
from app.study.protocol import PlannedTrial
from app.study.records import StudyRecords, read_records
from app.study.version import code_version
from app.study.views import (
    COMPLETE,
    CONSENT,
    DECLINED,
    LAPSED,
    RUNNING,
    SCREENED_OUT,
    Finish,
    Receipt,
    Session,
    StudyPage,
    TrialView,
)

PARTICIPANT_IDS = ("PROLIFIC_PID", "workerId", "participant")
"""Parameters of the link that name a participant, the first one found counts."""

EXTERNAL_IDS = (*PARTICIPANT_IDS, "STUDY_ID", "SESSION_ID", "assignmentId", "hitId")
MAX_ID = 128
MIN_KEY, MAX_KEY = 8, 128  # idempotency keys, in characters
KEPT_REFUSALS = 10_000  # the latest, so that one that is sent again counts once


class Store:
    """One database of any number of studies."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates it. `clock` gives seconds since 1970."""
        self._database = Database(path)
        self._clock = clock
        self._studies: dict[str, Study] = {}

    def close(self) -> None:
        self._database.close()

    # studies

    def create_study(self, study: Study) -> None:
        """Registers a definition; the same again is no error. Raises ConflictError where it differs from the kept."""
        with self._database.writing() as db:
            row = db.execute("SELECT definition FROM studies WHERE id = ?", (study.id,)).fetchone()
            if row is None:
                values = (study.id, study.to_json(), self._clock())
                db.execute("INSERT INTO studies (id, definition, registered_s) VALUES (?, ?, ?)", values)
            elif Study.from_json(row["definition"]) != study:
                raise ConflictError(f"study {study.id} is registered already, with another definition")

    def studies(self) -> tuple[str, ...]:
        """Ids, oldest first."""
        with self._database.reading() as db:
            return tuple(row["id"] for row in db.execute("SELECT id FROM studies ORDER BY registered_s, id"))

    def study(self, study_id: str) -> Study:
        """Raises UnknownStudyError."""
        if study_id not in self._studies:
            with self._database.reading() as db:
                row = db.execute("SELECT definition FROM studies WHERE id = ?", (study_id,)).fetchone()
            if row is None:
                raise UnknownStudyError(f"there is no study {study_id!r:.80} here")
            self._studies[study_id] = Study.from_json(row["definition"])
        return self._studies[study_id]

    def page(self, study_id: str) -> StudyPage:
        """What is shown before consent. Raises UnknownStudyError."""
        return study_page(self.study(study_id))

    def is_owner(self, study_id: str, token: str) -> bool:
        """Whether this is the study's owner token. Raises UnknownStudyError."""
        kept = self.study(study_id).owner_token_sha256
        return bool(kept) and hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), kept)

    def close_study(self, study_id: str, closed: bool = True) -> None:
        """A closed study takes no new participants; running sessions go on. Raises UnknownStudyError."""
        self.study(study_id)
        with self._database.writing() as db:
            db.execute("UPDATE studies SET closed = ? WHERE id = ?", (int(closed), study_id))

    # participants, in the order of the calls

    def enrol(self, study_id: str, external_ids: Mapping[str, str], token: str = "") -> Session:
        """Who is this? By token first, then by participant id. Nothing is written of someone unknown.

        `external_ids` are the parameters of the link, of which EXTERNAL_IDS are read. A known participant gets the
        session with its token, in any browser; an unknown one a Session in state "consent".

        Raises UnknownStudyError, AnswerError for an id that is none; StudyFullError where there is no place left.
        """
        study, ids = self.study(study_id), _external(external_ids)
        name = _participant(ids)
        with self._database.writing() as db:
            row = self._of_token(db, token)
            if (row is None or row["study"] != study_id) and name:
                row = _session_row(db, _session_id(study, name))
            if row is not None and row["study"] == study_id:
                return self._view(db, self._refreshed(db, row))
            self._require_place(db, study, name)
        return Session(study_id, CONSENT)

    def consent(
        self,
        study_id: str,
        external_ids: Mapping[str, str],
        agreed: bool,
        idempotency_key: str = "",
        token: str = "",
    ) -> Session:
        """With `agreed` the first that is stored of a participant: cell, order, ids. Asked twice: the same session.

        Who comes without an id is told from others by the idempotency key (needed then): a random text of the page's.
        Without `agreed` only the number of refusals is kept (and the key's digest, so that a retry is not counted), and
        the answer carries the code and redirect for it; who has a `token` of the study cannot decline, but withdraw.

        Raises UnknownStudyError, StudyFullError, AnswerError, ConflictError.
        """
        study, ids = self.study(study_id), _external(external_ids)
        if not agreed:
            return self._declined(study, _checked_key(idempotency_key), token)
        name = _participant(ids) or f"key={_checked_key(idempotency_key)}"
        with self._database.writing() as db:
            row = _session_row(db, _session_id(study, name))
            if row is None:
                row = self._new_session(db, study, name, ids)
            return self._view(db, self._refreshed(db, row))

    def _declined(self, study: Study, idempotency_key: str, token: str) -> Session:
        with self._database.writing() as db:
            row = self._of_token(db, token)
            if row is not None and row["study"] == study.id:
                raise ConflictError("you have agreed to take part already; you may withdraw")
            digest = _digest(f"{study.id}/{idempotency_key}")
            new = db.execute("INSERT OR IGNORE INTO refusals (key) VALUES (?)", (digest,)).rowcount
            db.execute("DELETE FROM refusals WHERE number <= (SELECT max(number) FROM refusals) - ?", (KEPT_REFUSALS,))
            db.execute("UPDATE studies SET declined = declined + ? WHERE id = ?", (new, study.id))
        code = study.codes.no_consent
        return Session(study.id, DECLINED, code=code, redirect=study.codes.address(code))

    def session(self, token: str) -> Session:
        """Raises NoSessionError."""
        with self._database.writing() as db:
            return self._view(db, self._refreshed(db, self._by_token(db, token)))

    def next_trial(self, token: str) -> TrialView | None:
        """The first step without an answer: the same however often asked. None when all are answered, or screened out.

        Raises NoSessionError, LapsedError.
        """
        with self._database.writing() as db:
            row = self._live(db, token)
            plan, step = _plan(row), _position(db, row["id"])
            if row["state"] != RUNNING or step == len(plan):
                return None
            db.execute(
                "INSERT INTO presentations VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET times = times + 1",
                (row["id"], step, self._clock()),
            )
            study = self.study(row["study"])
            handles = self._handles(row, plan[step])
            return trial_view(study, plan[step], len(plan), self._mac(row, f"step/{step}"), handles)

    def clip(self, token: str, handle: str) -> tuple[str, str]:
        """(study id, clip id) of a handle of the step at hand.

        Raises NoSessionError: no such session, or a handle of nothing in it; ConflictError for one of a step that is
        answered already (in another tab); LapsedError.
        """
        with self._database.writing() as db:
            row = self._live(db, token)
            plan, step = _plan(row), _position(db, row["id"])
            study = self.study(row["study"])
            for planned in reversed(plan[: step + 1]):
                for own, clip in zip(self._handles(row, planned), sounds(study, planned), strict=True):
                    if hmac.compare_digest(own.encode(), handle.encode()):
                        if row["state"] == RUNNING and planned.index == step:
                            return row["study"], clip
                        raise ConflictError("this sound belongs to a step that is answered already")
        raise NoSessionError("this sound does not belong to the present step")

    def answer(self, token: str, key: str, payload: Mapping[str, Any], idempotency_key: str) -> Receipt:
        """Commits the answer to the step `key`; the same idempotency key again gives the same receipt.

        payload: {"value": "generated"} or {"scores": [80, 12, …]} or {"text": "…"} (comment; "" is fine), and
        "plays": [n, …], "listened_s": [s, …] in the order of clips then reference, "response_s": s.

        Raises NoSessionError, LapsedError, AnswerError, ConflictError.
        """
        _checked_key(idempotency_key)
        with self._database.writing() as db:
            row = self._by_token(db, token)
            repeated = self._known_answer(db, row, key, idempotency_key)
            if repeated is not None:
                return self._receipt(db, row, repeated, repeated=True)
            row = self._live(db, token)
            plan, step = _plan(row), _position(db, row["id"])
            if row["state"] != RUNNING or step == len(plan) or key != self._mac(row, f"step/{step}"):
                raise ConflictError("this step is not the one to be answered now; ask for the next one")
            self._keep_answer(db, row, plan[step], payload, idempotency_key)
            if plan[step].role == HEADPHONES:
                self._screen(db, row, plan)
            return self._receipt(db, _session_row(db, row["id"]), step)

    def finish(self, token: str) -> Finish:
        """Reads every answer back over a second connection, compares it with the plan, then gives the code.

        Raises NoSessionError, LapsedError; IncompleteError where steps are unanswered.
        """
        with self._database.writing() as db:
            row = self._live(db, token)
        study, plan = self.study(row["study"]), _plan(row)
        with self._database.second_reader() as db:
            kept = db.execute("SELECT * FROM answers WHERE session = ? ORDER BY step", (row["id"],)).fetchall()
        if [answer["step"] for answer in kept] != list(range(len(plan))):
            raise IncompleteError(f"{len(kept)} of {len(plan)} steps are answered")
        if any(answer["digest"] != _digest(answer["answer"]) for answer in kept):
            raise StoreError("an answer could not be read back")
        with self._database.writing() as db:
            db.execute(
                "UPDATE sessions SET state = ?, finished_s = ? WHERE id = ? AND state = ?",
                (COMPLETE, self._clock(), row["id"], RUNNING),
            )
            self._by_token(db, token)  # not withdrawn meanwhile
        code = study.codes.complete
        return Finish(code, study.codes.address(code), study.texts.debrief, len(kept))

    def withdraw(self, token: str) -> None:
        """Erases the session: rows, free pages, write-ahead log. Raises NoSessionError."""
        with self._database.erasing() as db:
            row = self._by_token(db, token)
            db.execute("DELETE FROM sessions WHERE id = ?", (row["id"],))
            db.execute("INSERT INTO erased VALUES (?)", (row["birth"],))
            db.execute("UPDATE studies SET withdrawn = withdrawn + 1 WHERE id = ?", (row["study"],))

    # owners

    def results(self, study_id: str) -> StudyRecords:
        """Everything stored, for analysis and export. Raises UnknownStudyError."""
        study = self.study(study_id)
        with self._database.reading() as db:
            return read_records(db, study, self._clock())

    def backup(self, target: Path) -> None:
        """A consistent copy of the database while it is in use. Raises StoreError where the target exists."""
        self._database.copy_to(target)

    def restore(self, source: Path) -> None:
        """Replaces the content by a backup's, without the sessions withdrawn since. Raises StoreError."""
        self._database.replace_by(source)
        self._studies.clear()

    # places

    def _new_session(self, db: sqlite3.Connection, study: Study, name: str, ids: Mapping[str, str]) -> sqlite3.Row:
        session_id, now = _session_id(study, name), self._clock()
        cell = self._require_place(db, study, name)
        plan = protocol.order(study, session_id, cell)
        plan = (*plan, PlannedTrial(len(plan), "", COMMENT, ()))
        values = (session_id, study.id, secrets.token_hex(16), json.dumps(dict(ids)), cell)
        values += (protocol.plan_to_json(plan), RUNNING, now, now, None, code_version())
        db.execute(f"INSERT INTO sessions VALUES ({', '.join('?' * len(values))})", values)
        return _session_row(db, session_id)

    def _require_place(self, db: sqlite3.Connection, study: Study, name: str) -> int:
        """The cell for a new participant. Raises StudyFullError."""
        complete, running = self._occupied(db, study)
        closed = db.execute("SELECT closed FROM studies WHERE id = ?", (study.id,)).fetchone()["closed"]
        cell = protocol.choose_cell(protocol.quotas(study), complete, running, name)
        if closed or cell is None:
            code = study.codes.full
            raise StudyFullError(
                "This study takes no more participants at the moment.", code, study.codes.address(code)
            )
        return cell

    def _occupied(self, db: sqlite3.Connection, study: Study, without: str = "") -> tuple[list[int], list[int]]:
        """Completed, and running sessions that are not idle, a cell."""
        found = db.execute(
            "SELECT cell, state, count(*) AS number FROM sessions WHERE study = ? AND id != ?"
            " AND (state = ? OR (state = ? AND seen_s >= ?)) GROUP BY cell, state",
            (study.id, without, COMPLETE, RUNNING, self._clock() - 60.0 * study.plan.idle_minutes),
        )
        counts = {(row["cell"], row["state"]): row["number"] for row in found}
        cells = range(protocol.num_cells(study))
        return [counts.get((cell, COMPLETE), 0) for cell in cells], [counts.get((cell, RUNNING), 0) for cell in cells]

    def _refreshed(self, db: sqlite3.Connection, row: sqlite3.Row) -> sqlite3.Row:
        """The session as seen now: one that was idle takes its place again, or lapses where it has been filled."""
        if row["state"] != RUNNING:
            return row
        study, now, state = self.study(row["study"]), self._clock(), RUNNING
        if row["seen_s"] < now - 60.0 * study.plan.idle_minutes:
            complete, running = self._occupied(db, study, without=row["id"])
            cell = row["cell"]
            state = RUNNING if complete[cell] + running[cell] < protocol.quotas(study)[cell] else LAPSED
        db.execute("UPDATE sessions SET seen_s = ?, state = ? WHERE id = ?", (now, state, row["id"]))
        return _session_row(db, row["id"])

    # sessions

    def _by_token(self, db: sqlite3.Connection, token: str) -> sqlite3.Row:
        """Raises NoSessionError."""
        row = self._of_token(db, token)
        if row is None:
            raise NoSessionError(
                "There is no such session. If you have withdrawn, maybe in another tab, everything about you is "
                "erased, and nothing that you entered since is stored."
            )
        return row

    def _of_token(self, db: sqlite3.Connection, token: str) -> sqlite3.Row | None:
        row = _session_row(db, token.partition(".")[0])
        known = row is not None and hmac.compare_digest(self._token(row).encode(), token.encode())
        return row if known else None

    def _live(self, db: sqlite3.Connection, token: str) -> sqlite3.Row:
        """Raises NoSessionError, LapsedError."""
        row = self._refreshed(db, self._by_token(db, token))
        if row["state"] == LAPSED:
            codes = self.study(row["study"]).codes
            message = "This session was idle for too long, and its place has been filled."
            raise LapsedError(message, codes.full, codes.address(codes.full))
        return row

    def _view(self, db: sqlite3.Connection, row: sqlite3.Row) -> Session:
        codes = self.study(row["study"]).codes
        code = {COMPLETE: codes.complete, SCREENED_OUT: codes.screened_out, LAPSED: codes.full}.get(row["state"], "")
        done, total = _position(db, row["id"]), len(_plan(row))
        return Session(row["study"], row["state"], row["id"], self._token(row), done, total, code, codes.address(code))

    def _token(self, row: sqlite3.Row) -> str:
        return f"{row['id']}.{self._mac(row, 'token')}"

    def _handles(self, row: sqlite3.Row, planned: PlannedTrial) -> tuple[str, ...]:
        heard = sounds(self.study(row["study"]), planned)
        return tuple(self._mac(row, f"clip/{planned.index}/{place}") for place in range(len(heard)))

    def _mac(self, row: sqlite3.Row, what: str) -> str:
        """32 hexadecimal digits that nobody else can make, and that die with the session."""
        message = f"{row['id']}/{row['birth']}/{what}".encode()
        return hmac.new(self._database.secret, message, hashlib.sha256).hexdigest()[:32]

    # answers

    def _known_answer(self, db: sqlite3.Connection, row: sqlite3.Row, key: str, idempotency_key: str) -> int | None:
        """The step that was answered with this idempotency key. Raises ConflictError where that is another step."""
        found = db.execute(
            "SELECT step FROM answers WHERE session = ? AND idempotency_key = ?", (row["id"], idempotency_key)
        ).fetchone()
        if found is None:
            return None
        if key != self._mac(row, f"step/{found['step']}"):
            raise ConflictError("this idempotency key belongs to another answer")
        return found["step"]

    def _keep_answer(
        self,
        db: sqlite3.Connection,
        row: sqlite3.Row,
        planned: PlannedTrial,
        payload: Mapping[str, Any],
        idempotency_key: str,
    ) -> None:
        """Raises AnswerError, also where the step was never presented."""
        where = (row["id"], planned.index)
        shown = db.execute("SELECT first_s FROM presentations WHERE session = ? AND step = ?", where).fetchone()
        if shown is None:
            raise AnswerError("this step has not been presented yet")
        now = self._clock()
        answer = read_answer(self.study(row["study"]), planned, payload, now - shown["first_s"])
        kept = answer.to_json()
        values = (row["id"], planned.index, idempotency_key, kept, _digest(kept), now)
        db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", values)

    def _screen(self, db: sqlite3.Connection, row: sqlite3.Row, plan: tuple[PlannedTrial, ...]) -> None:
        """After the last headphone trial: on, or screened out."""
        steps = [one.index for one in plan if one.role == HEADPHONES]
        kept = _answers(db, row["id"])
        if set(steps) <= set(kept):
            right = sum(bool(kept[step].correct) for step in steps)
            if right < self.study(row["study"]).checks.headphone_pass:
                db.execute("UPDATE sessions SET state = ? WHERE id = ?", (SCREENED_OUT, row["id"]))

    def _receipt(self, db: sqlite3.Connection, row: sqlite3.Row, step: int, repeated: bool = False) -> Receipt:
        study, plan, kept = self.study(row["study"]), _plan(row), _answers(db, row["id"])
        scored = {plan[one].clips[0]: kept[one] for one in kept if one <= step and plan[one].role == SCORED}
        return Receipt(
            self._mac(row, f"step/{step}"),
            len(kept),
            len(plan),
            row["state"],
            repeated,
            feedback(study, plan[step], kept[step], scored),
        )


def _external(ids: Mapping[str, str]) -> dict[str, str]:
    """The known parameters that are given. Raises AnswerError for one that is no id."""
    found = {name: ids[name] for name in EXTERNAL_IDS if ids.get(name)}
    for name, value in found.items():
        if not isinstance(value, str) or len(value) > MAX_ID or not value.isprintable():
            raise AnswerError(f"{name} must be a printable text of at most {MAX_ID} characters")
    return found


def _participant(ids: Mapping[str, str]) -> str:
    return next((f"{name}={ids[name]}" for name in PARTICIPANT_IDS if name in ids), "")


def _session_id(study: Study, participant: str) -> str:
    return hashlib.sha256(f"{study.id}/{study.seed}/{participant}".encode()).hexdigest()[:24]


def _checked_key(key: str) -> str:
    if not isinstance(key, str) or not MIN_KEY <= len(key) <= MAX_KEY or not key.isprintable():
        raise AnswerError(f"an idempotency key has {MIN_KEY} to {MAX_KEY} printable characters")
    return key


def _session_row(db: sqlite3.Connection, session_id: str) -> sqlite3.Row | None:
    return db.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()


def _plan(row: sqlite3.Row) -> tuple[PlannedTrial, ...]:
    return protocol.plan_from_json(row["plan"])


def _position(db: sqlite3.Connection, session_id: str) -> int:
    return db.execute("SELECT count(*) FROM answers WHERE session = ?", (session_id,)).fetchone()[0]


def _answers(db: sqlite3.Connection, session_id: str) -> dict[int, Answer]:
    found = db.execute("SELECT step, answer FROM answers WHERE session = ? ORDER BY step", (session_id,))
    return {row["step"]: Answer.from_json(row["answer"]) for row in found}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
