"""The SQLite file of the listening studies: connection, schema, transactions, and erasing so that nothing is left."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.study.errors import StoreError

SCHEMA_VERSION = 1
BUSY_S = 30.0
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE studies (
    id TEXT PRIMARY KEY, definition TEXT NOT NULL, registered_s REAL NOT NULL, closed INTEGER NOT NULL DEFAULT 0,
    declined INTEGER NOT NULL DEFAULT 0, withdrawn INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, study TEXT NOT NULL REFERENCES studies (id), birth TEXT NOT NULL, external TEXT NOT NULL,
    cell INTEGER NOT NULL, plan TEXT NOT NULL, state TEXT NOT NULL, consented_s REAL NOT NULL, seen_s REAL NOT NULL,
    finished_s REAL, code_version TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_of_study ON sessions (study, cell, state);
CREATE TABLE presentations (
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, step INTEGER NOT NULL, first_s REAL NOT NULL,
    times INTEGER NOT NULL, PRIMARY KEY (session, step)
) WITHOUT ROWID;
CREATE TABLE answers (
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, step INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL, answer TEXT NOT NULL, digest TEXT NOT NULL, answered_s REAL NOT NULL,
    PRIMARY KEY (session, step), UNIQUE (session, idempotency_key)
) WITHOUT ROWID;
CREATE TABLE erased (birth TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_REFUSALS = "CREATE TABLE IF NOT EXISTS refusals (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)"
"""Not in the databases and copies that earlier programs made."""


class Database:
    """One connection behind a lock. A transaction that ends without an error is on disk."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises StoreError: not a database, damaged, of another version."""
        self.path = path
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            path.touch(mode=0o600)  # log and index get the same rights
            self._connection = _connect(path)
            self._prepare()
            self.secret = self._read_secret()
            self._scrubbed = self._value("unscrubbed") is None
            if not self._scrubbed:
                self.scrub()
        except (sqlite3.DatabaseError, OSError) as error:
            raise StoreError(f"{path}: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other writer, in this process or elsewhere, can come between."""
        with self._lock:
            if not self._scrubbed:
                self.scrub()
            with self._transaction("IMMEDIATE"):
                yield self._connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view; that of the transaction it is called in, where there is one."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
            else:
                with self._transaction("DEFERRED"):
                    yield self._connection

    @contextmanager
    def second_reader(self) -> Iterator[sqlite3.Connection]:
        """Another connection, which sees what is committed and nothing else."""
        with closing(_connect(self.path, read_only=True)) as connection:
            yield connection

    @contextmanager
    def erasing(self) -> Iterator[sqlite3.Connection]:
        """A transaction after which what it deleted is neither in the file nor in the log.

        Where the process dies in between, or another one is reading the log, that is made up for before the next
        transaction or at the next start.
        """
        with self.writing() as connection:
            yield connection
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('unscrubbed', '1')")
            self._scrubbed = False
        self.scrub()

    def scrub(self) -> None:
        """Rewrites the file without its free pages and empties the log."""
        with self._lock:
            self._connection.execute("VACUUM")
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy:
                self._connection.execute("DELETE FROM meta WHERE name = 'unscrubbed'")
            self._scrubbed = not busy

    def copy_to(self, target: Path) -> None:
        """A consistent copy, as one file without a log. Raises StoreError where the target exists."""
        if target.exists():
            raise StoreError(f"{target} exists already")
        target.touch(mode=0o600)
        with self._lock, closing(sqlite3.connect(target)) as copy:
            self._connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")

    def replace_by(self, source: Path) -> None:
        """Takes over a copy's content, less what was erased here since. Raises StoreError: none of ours, damaged.

        What was erased is taken out of the copy in memory: it is in the file at no time, wherever the process dies.
        """
        with self.reading() as connection:
            erased = connection.execute("SELECT birth FROM erased").fetchall()
        with self._lock, closing(_checked_copy(source)) as copy, closing(sqlite3.connect(":memory:")) as staged:
            copy.backup(staged)
            staged.execute("PRAGMA foreign_keys = ON")
            staged.executemany("INSERT OR IGNORE INTO erased VALUES (?)", erased)
            staged.execute("DELETE FROM sessions WHERE birth IN (SELECT birth FROM erased)")
            staged.execute("INSERT OR REPLACE INTO meta VALUES ('unscrubbed', '1')")
            staged.execute(_REFUSALS)
            staged.commit()
            staged.execute("VACUUM")
            staged.backup(self._connection)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self.secret = self._read_secret()
            self._scrubbed = False
        self.scrub()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a failed COMMIT may have ended it already
                self._connection.execute("ROLLBACK")
            raise

    def _read_secret(self) -> bytes:
        """What tokens and handles are made with."""
        return bytes.fromhex(self._value("secret") or "")

    def _value(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _prepare(self) -> None:
        with self._transaction("IMMEDIATE"):
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO meta VALUES ('secret', ?)", (secrets.token_hex(32),))
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise StoreError(f"{self.path} has schema version {version}; this program knows {SCHEMA_VERSION}")
            self._connection.execute(_REFUSALS)


def _connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # VACUUM leaves no copy in a temporary file
    return connection


def _checked_copy(source: Path) -> sqlite3.Connection:
    if not source.is_file():
        raise StoreError(f"{source}: no such file")
    try:
        copy = _connect(source, read_only=True)
        version = copy.execute("PRAGMA user_version").fetchone()[0]
        names = {row[0] for row in copy.execute("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')")}
        sound = copy.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{source}: {error}") from error
    if version != SCHEMA_VERSION or sound != "ok" or names:
        copy.close()
        raise StoreError(f"{source}: schema version {version} (known: {SCHEMA_VERSION}), integrity {sound!r:.100}")
    return copy
