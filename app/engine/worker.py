"""Inside the engine process: runs that take turns on its threads, a step at a time."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from app.engine import memory, wire
from app.engine.messages import Begin, Ended, Figures, Happened, Ready, Stop, Task
from audiolm.device import is_out_of_memory
from audiolm.errors import AudioLMError, DeviceMemoryError

FIGURES_EVERY_S = 1.0
OWN_RUN = 0

logger = logging.getLogger(__name__)

IDLE_S = 0.01  # of a thread that finds nothing to do while runs go on


class Work(Protocol):
    """What the engine does."""

    def perform(self, task: Task, folder: Path) -> Generator[Any]:
        """The events of a task; None where it waits for other runs."""

    def help(self) -> bool:
        """A little of what some run will need next. False where there is nothing."""

    def active_rows(self) -> dict[str, int]:
        """Rows that are being decoded, by stage."""


@dataclass(eq=False)
class _Run:
    number: int
    folder: Path
    events: Generator[Any]
    stopped: bool = False


class Worker:
    """Serves one connection until it is closed from the other side."""

    def __init__(self, connection: Connection, work: Work, device: torch.device, num_threads: int = 1) -> None:
        self._connection, self._tasks, self._device = connection, work, device
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._turns: deque[_Run] = deque()
        self._runs: dict[int, _Run] = {}
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"audiolm-engine-{n}", daemon=True) for n in range(num_threads)
        ]

    def serve(self, first: Task | None = None) -> None:
        """Returns once the application is gone; runs in hand are dropped at their next step. `first` is a task of the
        engine's own."""
        if first is not None:
            self._take(Begin(OWN_RUN, first, Path()))
        for thread in self._threads:
            thread.start()
        self._send(Ready(os.getpid(), str(self._device)))
        told = 0.0
        with suppress(EOFError, OSError):
            while True:
                if self._connection.poll(FIGURES_EVERY_S):
                    self._take(wire.unpack(self._connection.recv_bytes()))
                if time.monotonic() - told >= FIGURES_EVERY_S:
                    told = time.monotonic()
                    self._send(self._figures())
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, message: Begin | Stop) -> None:
        with self._changed:
            if isinstance(message, Begin):
                run = _Run(message.run, message.folder, self._tasks.perform(message.task, message.folder))
                self._runs[run.number] = run
                self._turns.append(run)
                self._changed.notify()
            elif message.run in self._runs:
                self._runs[message.run].stopped = True

    def _work(self) -> None:
        try:
            self._take_turns()
        except BaseException:  # of this module itself: an engine that is short of a thread had better start anew
            logger.exception("the engine ends")
            self._connection.close()

    def _take_turns(self) -> None:
        idle = False
        while True:
            with self._changed:
                if idle or not self._runs:
                    self._changed.wait_for(lambda: self._turns or self._closed, IDLE_S if self._runs else None)
                if self._closed:
                    return
                run = self._turns.popleft() if self._turns else None
            idle = run is None and not self._tasks.help()
            if run is not None and self._goes_on(run):
                with self._changed:
                    self._turns.append(run)
                    self._changed.notify()
            del run

    def _goes_on(self, run: _Run) -> bool:
        """One step of the run. False when that was its last."""
        error: Exception | None = None
        try:
            if not run.stopped:
                event = next(run.events)
                if event is not None and run.number != OWN_RUN:
                    self._send(Happened(run.number, event))
                return True
        except StopIteration:
            pass
        except OSError as raised:
            if self._closed:
                return False
            error = raised
        except Exception as raised:
            error = raised
            if is_out_of_memory(raised):
                error = DeviceMemoryError(f"{self._device} ran out of memory: ask for fewer or shorter outputs")
                error.__cause__ = raised
        self._end(run, error)
        return False

    def _end(self, run: _Run, error: Exception | None) -> None:
        with self._changed:
            del self._runs[run.number]
        run.events.close()
        if error is not None and not isinstance(error, AudioLMError):
            logger.error("a run failed", exc_info=error)
        if isinstance(error, DeviceMemoryError):
            _let_go(error)
        if run.stopped:  # the last step may have made again what the application has cleared
            shutil.rmtree(run.folder, ignore_errors=True)
        if run.number != OWN_RUN:
            with suppress(OSError):
                self._send(Ended(run.number, error))

    def _send(self, message: Any) -> None:
        data = wire.pack(message)
        with self._sending:
            self._connection.send_bytes(data)

    def _figures(self) -> Figures:
        on_device = torch.cuda.memory_reserved() if self._device.type == "cuda" else 0
        return Figures(memory.used_bytes(), on_device, self._tasks.active_rows())


def _let_go(error: BaseException) -> None:
    """Frees what a run out of memory held: its frames would keep the tensors."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
