"""Runs that share one device: who is next, a thread a run, and the iterator of events that its caller holds.

A run happens on a thread of its own, which holds the device from its first step to its last. The caller gets an
iterator that yields at least every HEARTBEAT_S, also while a long step runs, so that closing it (which is how a run is
stopped) is never far away. The device is free again as soon as the step in hand has ended.
"""

from __future__ import annotations

import logging
import queue
import shutil
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from audiolm.errors import DeviceMemoryError

HEARTBEAT_S = 0.25
Steps = Callable[[Path], Iterator[Any]]
"""The work of a run: given a folder that is gone when the run has ended, yields its events."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """Nothing new: `ahead` runs go first. With none ahead the device is this run's, and a step is being worked on."""

    ahead: int
    elapsed_s: float


class Turns:
    """A line in front of the device: first come, first served. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    def join(self) -> object:
        """A ticket at the end of the line; whoever holds it must `leave` in the end."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
        return ticket

    def ahead(self, ticket: object) -> int:
        """How many are before the ticket, the one whose turn it is included."""
        with self._changed:
            return self._line.index(ticket) if ticket in self._line else 0

    def wait(self, ticket: object, timeout_s: float) -> bool:
        """True as soon as it is the ticket's turn, False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._line[0] is ticket, timeout_s)

    def leave(self, ticket: object) -> None:
        with self._changed:
            self._line.remove(ticket)
            self._changed.notify_all()


@dataclass
class _Run:
    """The link between a run's thread and the iterator its caller holds."""

    folder: Path
    ticket: object
    stop: threading.Event = field(default_factory=threading.Event)
    events: queue.Queue = field(default_factory=lambda: queue.Queue(maxsize=64))

    def send(self, item: object) -> bool:
        """False once the caller has gone."""
        while not self.stop.is_set():
            try:
                self.events.put(item, timeout=HEARTBEAT_S)
                return True
            except queue.Full:
                continue
        return False


class _End:
    """Last item of a run; carries what it raised."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Runs:
    """All runs of one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.turns = Turns()

    def start(self, steps: Steps) -> Iterator[Any]:
        """The events of `steps`, with `Waiting` in between. Closing the iterator stops the run; files made in the run's
        folder live until the iterator is advanced past the event that names them, or closed.

        Raises what `steps` raises; DeviceMemoryError where the device ran out of memory.
        """
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="audiolm-run-", ignore_cleanup_errors=True) as folder:
            run = _Run(Path(folder), self.turns.join())
            threading.Thread(target=self._work, args=(run, steps), name="audiolm-run", daemon=True).start()
            try:
                while True:
                    try:
                        item = run.events.get(timeout=HEARTBEAT_S)
                    except queue.Empty:
                        yield Waiting(self.turns.ahead(run.ticket), time.monotonic() - began)
                        continue
                    if isinstance(item, _End):
                        if item.error is not None:
                            raise item.error
                        return
                    yield item
            finally:
                run.stop.set()

    def _work(self, run: _Run, steps: Steps) -> None:
        """The run's thread. A run whose caller went away while it waited for its turn never starts."""
        while not self.turns.wait(run.ticket, HEARTBEAT_S):
            if run.stop.is_set():
                self.turns.leave(run.ticket)
                return
        error: BaseException | None = None
        try:
            if not run.stop.is_set():
                with closing(steps(run.folder)) as events:
                    for event in events:
                        if not run.send(event):
                            break
        except torch.OutOfMemoryError as raised:
            error = DeviceMemoryError(f"{self._device} ran out of memory: ask for fewer or shorter outputs")
            error.__cause__ = raised
        except Exception as raised:
            error = raised
        finally:
            if isinstance(error, DeviceMemoryError):
                _let_go(error)
            self.turns.leave(run.ticket)
        if run.stop.is_set():  # the caller cleared the folder, and the last step may have made it again
            shutil.rmtree(run.folder, ignore_errors=True)
            if error is not None:
                logger.info("a stopped run ended with %s", error)
        run.send(_End(error))


def _let_go(error: BaseException) -> None:
    """Frees what a run out of memory held: the error outlives it, and its frames would keep the tensors."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
