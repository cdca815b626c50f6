"""A run of the engine as the iterator of events that its caller holds.

It yields at least every HEARTBEAT_S, also while a long step runs, so that closing it (which is how a run is stopped) is
never far away.
"""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.engine.engine import Engine
from app.engine.messages import Ended, Task
from app.results import Waiting

HEARTBEAT_S = 0.25


def start(engine: Engine, task: Task, visitor: str) -> Iterator[Any]:
    """The events of a task, with `Waiting` in between. Closing the iterator stops the run; files made in the run's
    folder live until the iterator is advanced past the event that names them, or closed. A run that is begun anew,
    since the engine was lost, tells its events from the start.

    Raises what the task raises; BusyError, EngineError.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="audiolm-run-", ignore_cleanup_errors=True) as folder:
        run = engine.submit(task, Path(folder), visitor)
        try:
            while True:
                try:
                    item = run.events.get(timeout=HEARTBEAT_S)
                except queue.Empty:
                    ahead, estimate_s = engine.place(run)
                    yield Waiting(ahead, time.monotonic() - began, estimate_s, again=run.attempts > 1)
                    continue
                if isinstance(item, Ended):
                    if item.error is not None:
                        raise item.error
                    return
                yield item.event
        finally:
            engine.stop(run)
