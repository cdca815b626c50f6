"""Whose the files in the cache are, and when they go.

Gradio keeps an upload or a result in a folder of the cache that is named by a keyed hash, 256 bits that cannot be
guessed. On top of that, a folder belongs to those visitors to whom an answer has named it; nobody else may read it or
put it into a request. A folder goes when all of them had their audio deleted, and at the latest at a certain age.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

RUN_FOLDERS = ("audiolm-run-*", "audiolm-token-*")
"""Of the system's folder for temporary files; they outlive their run only where the process was killed."""

MAX_SESSIONS, MAX_SESSION_CHARACTERS = 50_000, 64

logger = logging.getLogger(__name__)


class Belongings:
    """Thread-safe. A visitor is given as `Visitor.key`."""

    def __init__(self, folder: Path, max_age_s: float, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError where the folder cannot be made, or is another user's."""
        self.folder = private_folder(folder)
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._owners: defaultdict[str, set[str]] = defaultdict(set)
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._named = re.compile(re.escape(str(self.folder)).encode() + rb"/([0-9a-f]{64})/")
        self._mentioned = re.compile(re.escape(str(self.folder)) + r"/([0-9a-f]{64})")
        self._file = re.compile(re.escape(str(self.folder)) + r"/([0-9a-f]{64})/[^/\0]+")

    def note(self, owner: str, answer: bytes) -> None:
        """Whatever an answer to `owner` names becomes theirs."""
        for name in {found.decode() for found in self._named.findall(answer)}:
            with self._lock:
                known = owner in self._owners[name]
                self._owners[name].add(owner)
            if not known:  # the same file, an example say, may have lain here for somebody else: the hour begins anew
                for path, _ in _entries(self.folder.glob(f"{name}/*")):
                    os.utime(path)

    def owns(self, owner: str, path: str) -> bool:
        """False also for everything that is no file of the cache, as written: no dots, no links, no other folder."""
        found = self._file.fullmatch(path)
        if found is None or ".." in path.split("/"):
            return False
        with self._lock:
            return owner in self._owners.get(found[1], ())

    def names_others(self, owner: str, text: str) -> bool:
        """Whether a text mentions what is not this owner's: in an answer that repeats it, it would become theirs."""
        names = set(self._mentioned.findall(text))
        with self._lock:
            return any(owner not in self._owners.get(name, ()) for name in names)

    def claims(self, owner: str, session: str) -> bool:
        """Whether a session of the page, which has its own state, is this owner's; it is whose who names it first."""
        with self._lock:
            first = self._sessions.setdefault(session[:MAX_SESSION_CHARACTERS], owner)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
            return first == owner

    def forget(self, owner: str) -> int:
        """Deletes what is this owner's alone; what others have too stays theirs. Returns the number of folders."""
        with self._lock:
            own = [name for name, owners in self._owners.items() if owner in owners]
            alone = [name for name in own if len(self._owners[name]) == 1]
            for name in own:
                self._owners[name].discard(owner)
            for name in alone:
                del self._owners[name]
        for name in alone:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return len(own)

    def num_bytes(self) -> int:
        """What lies in the cache."""
        return sum(status.st_size for _, status in _entries(self.folder.glob("**/*")) if stat.S_ISREG(status.st_mode))

    def sweep(self) -> int:
        """Deletes what is older than the limit, of this process or of one that ended badly. Returns how many."""
        mine = getattr(os, "getuid", lambda: None)()
        temporary = Path(tempfile.gettempdir())
        left = [path for pattern in RUN_FOLDERS for path in temporary.glob(pattern)]
        gone = 0
        for path, status in _entries((*self.folder.iterdir(), *left)):
            if mine not in (None, status.st_uid):
                continue
            try:
                gone += self._deleted(path, status)
            except OSError:  # the others go all the same
                logger.exception("an old file could not be deleted")
        return gone

    def _deleted(self, path: Path, status: os.stat_result) -> bool:
        """Whether an entry was so old that it was deleted."""
        newest = max((inner.st_ctime for _, inner in _entries(path.glob("*"))), default=status.st_ctime)
        if newest >= self._clock() - self._max_age_s:
            return False
        _delete(path)
        with self._lock:
            self._owners.pop(path.name, None)
        return True

    def sweep_forever(self, every_s: float) -> threading.Thread:
        """Sweeps now and then on a thread of its own."""

        def work() -> None:
            while True:
                try:
                    self.sweep()
                except Exception:  # nothing may end what promises that recordings go
                    logger.exception("old files could not be deleted")
                time.sleep(every_s)

        thread = threading.Thread(target=work, name="audiolm-sweep", daemon=True)
        thread.start()
        return thread


def private_folder(folder: Path) -> Path:
    """The folder, made if need be, readable for this user alone. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()
    if hasattr(os, "getuid"):
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        folder.chmod(0o700)
    return folder


def _entries(paths: Iterator[Path] | tuple[Path, ...]) -> Iterator[tuple[Path, os.stat_result]]:
    """Those that are still there."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.lstat()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
