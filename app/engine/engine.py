"""The engine as the application sees it: runs go in, events come out; a process that is lost is started again.

A run that the lost process was working on is begun anew: its request gives the same tokens. After a second loss the
runs concerned are tried one at a time, so that the one that breaks the engine takes nobody with it, and after a third
that one is given up.
"""

from __future__ import annotations

import itertools
import logging
import queue
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.engine import wire
from app.engine.launching import Launched
from app.engine.line import Line
from app.engine.memory import usable_bytes
from app.engine.messages import Begin, Ended, Figures, Happened, Ready, Stop, Task
from app.results import Finished
from audiolm.errors import EngineError

MAX_ATTEMPTS = 3
ALONE_FROM_ATTEMPT = 3
MAX_FAILED_STARTS = 3
SILENCE_S = 60.0  # of an engine that says no figures: it hangs
SMOOTHING = 0.2  # of running means

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """A run on its way. `events` yields Happened and at last one Ended."""

    number: int
    task: Task
    folder: Path
    events: queue.SimpleQueue[Happened | Ended] = field(default_factory=queue.SimpleQueue)
    attempts: int = 1
    stopped: bool = False
    began: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether nothing else may be lost with it."""
        return self.attempts >= ALONE_FROM_ATTEMPT


@dataclass(frozen=True)
class EngineStatus:
    """For health checks and metrics. `seconds` are running means: of whole runs, and of a continuation's stages."""

    state: str  # "off", "starting", "ready" or "failed"
    process: int  # its id; 0 before there is one
    waiting: int
    running: int
    restarts: int
    done: int
    failed: int
    stopped: int
    seconds: dict[str, float]
    memory_bytes: int
    device_memory_bytes: int
    active_rows: dict[str, int]


class Engine:
    """One engine process at a time. Thread-safe."""

    def __init__(
        self, launch: Callable[[], Launched], runs_at_once: int, line_size: int, most_bytes: int | None = None
    ) -> None:
        """At most `runs_at_once` are worked on, at most `line_size` wait. A process of more than `most_bytes` (None:
        three quarters of the machine's memory) is ended as if it were lost."""
        self._launch, self._runs_at_once = launch, runs_at_once
        self._most_bytes = usable_bytes() if most_bytes is None else most_bytes
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._line: Line[Run] = Line(line_size)
        self._running: dict[int, Run] = {}
        self._launched: Launched | None = None
        self._state, self._failed_starts, self._generation = "off", 0, 0
        self._counts = {"restarts": 0, "done": 0, "failed": 0, "stopped": 0}
        self._seconds: dict[str, float] = {}
        self._figures = Figures(0)
        self._heard, self._process = 0.0, 0

    # ---- for callers

    def start(self) -> None:
        """Starts the process where there is none; returns at once."""
        with self._lock:
            if self._state in ("off", "failed"):
                self._state, self._failed_starts = "starting", 0
                self._generation += 1
                keeper = threading.Thread(
                    target=_keep, args=(weakref.ref(self), self._generation), name="audiolm-keeper", daemon=True
                )
                keeper.start()

    def submit(self, task: Task, folder: Path, visitor: str) -> Run:
        """Raises BusyError, with an estimate, where too many wait."""
        with self._lock:
            run = Run(next(self._numbers), task, folder)
            self._line.join(run, visitor)
            self.start()
            self._serve()
            return run

    def stop(self, run: Run) -> None:
        """Nobody waits for the run any more. One that waits never starts; one that runs ends at its next step."""
        with self._lock:
            if run.stopped:
                return
            run.stopped = True
            waited = self._line.leave(run)
            if run.number in self._running:
                self._send(Stop(run.number))
            self._counts["stopped"] += waited or run.number in self._running
            self._serve()

    def place(self, run: Run) -> tuple[int, float | None]:
        """How many runs go first, and for about how many seconds (None: not known yet)."""
        with self._lock:
            if run.number in self._running:
                return 0, None
            ahead = self._line.ahead(run) + len(self._running)
            return ahead, self._estimate_s(ahead)

    def status(self) -> EngineStatus:
        with self._lock:
            figures = self._figures
            return EngineStatus(
                self._state,
                self._process,
                len(self._line),
                len(self._running),
                **self._counts,
                seconds=dict(self._seconds),
                memory_bytes=figures.memory_bytes,
                device_memory_bytes=figures.device_memory_bytes,
                active_rows=figures.active_rows,
            )

    def close(self) -> None:
        """Ends the process; every run ends with an EngineError."""
        with self._lock:
            self._generation += 1
            self._state = "off"
            if self._launched is not None:
                self._launched.kill()
            self._give_up(EngineError("the engine was closed"))

    def __del__(self) -> None:
        if getattr(self, "_launched", None) is not None:
            self._launched.kill()

    # ---- the line

    def _estimate_s(self, ahead: int) -> float | None:
        mean = self._seconds.get("run")
        return None if mean is None else mean * ahead / self._runs_at_once

    def _serve(self) -> None:
        """Hands runs to the engine while it has room. A run that must be alone has the engine to itself."""
        while self._state == "ready" and len(self._running) < self._runs_at_once:
            run = self._line.first()
            if run is None or any(other.alone for other in self._running.values()) or (run.alone and self._running):
                return
            self._line.serve()
            run.began = time.monotonic()
            self._running[run.number] = run
            self._send(Begin(run.number, run.task, run.folder))

    def _send(self, message: Begin | Stop) -> None:
        try:
            data = wire.pack(message)
            with suppress(OSError):  # a lost engine: its keeper sees to it
                self._launched.connection.send_bytes(data)
        except TypeError as error:
            self._end(Ended(message.run, EngineError(str(error))))

    # ---- what the engine says; called by its keeper

    def _hear(self, message: Ready | Happened | Ended | Figures) -> None:
        with self._lock:
            self._heard = time.monotonic()
            if isinstance(message, Happened):
                if run := self._running.get(message.run):
                    self._note(message.event)
                    run.events.put(message)
            elif isinstance(message, Ended):
                self._end(message)
            elif isinstance(message, Figures):
                self._figures = message
                if message.memory_bytes > self._most_bytes:
                    logger.error("the engine has %d bytes, more than %d", message.memory_bytes, self._most_bytes)
                    self._launched.kill()
            else:
                self._state, self._failed_starts, self._process = "ready", 0, message.process
                self._serve()

    def _end(self, message: Ended) -> None:
        run = self._running.pop(message.run, None)
        if run is None:  # before any run: the engine cannot start
            self._give_up(message.error)
            return
        if not run.stopped:
            self._counts["done" if message.error is None else "failed"] += 1
            self._average("run", time.monotonic() - run.began)
        run.events.put(message)
        self._serve()

    def _note(self, event: Any) -> None:
        if isinstance(event, Finished):
            for stage, timing in event.result.timings.items():
                self._average(stage, timing.seconds)

    def _average(self, name: str, seconds: float) -> None:
        before = self._seconds.get(name, seconds)
        self._seconds[name] = before + SMOOTHING * (seconds - before)

    # ---- losses

    def _lost(self) -> None:
        """The process has ended, nobody knows why. Its runs begin anew, or are given up."""
        was_ready, self._state = self._state == "ready", "starting"
        self._counts["restarts"] += was_ready
        self._failed_starts += not was_ready
        runs, self._running = list(self._running.values()), {}
        if was_ready:
            logger.error("the engine was lost with %d run(s) in hand; it is started again", len(runs))
        for run in runs:
            if run.stopped:
                continue
            if run.attempts >= MAX_ATTEMPTS:
                self._counts["failed"] += 1
                run.events.put(Ended(run.number, EngineError(_GIVEN_UP.format(MAX_ATTEMPTS))))
                continue
            run.attempts += 1
            _empty(run.folder)
            self._line.put_back(run)
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._give_up(EngineError("the engine cannot be started; the server's log says why"))

    def _give_up(self, error: Exception) -> None:
        """Ends every run that waits or runs; the next one that is submitted starts the engine again."""
        self._state = "failed" if self._state != "off" else "off"
        runs = [*self._running.values(), *self._line.in_order()]
        self._running = {}
        for run in runs:
            self._line.leave(run)
            self._counts["failed"] += 1
            run.events.put(Ended(run.number, error))


_GIVEN_UP = "the engine stopped {} times while it worked on this run, which is lost; others are not concerned"


def _empty(folder: Path) -> None:
    """What a lost run has written."""
    for path in folder.glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _keep(engine_of: Callable[[], Engine | None], generation: int) -> None:
    """The keeper's thread: starts the process, hears it, starts the next one. Ends with the engine it is kept for."""
    while (engine := engine_of()) is not None:
        with engine._lock:
            if engine._generation != generation or engine._state != "starting":
                return
        try:
            launched = engine._launch()
        except OSError as error:
            logger.error("the engine's process cannot be started: %s", error)
            launched = None
        with engine._lock:
            engine._launched, engine._heard = launched, time.monotonic()
        del engine
        if launched is not None:
            try:
                _hear_out(engine_of, launched)
            except Exception:  # without a keeper nobody would hear the engine again
                logger.exception("what the engine says makes no sense; it is ended")
            launched.kill()
        if (engine := engine_of()) is not None:
            with engine._lock:
                if engine._generation == generation and engine._state != "failed":
                    engine._lost()
            del engine


def _hear_out(engine_of: Callable[[], Engine | None], launched: Launched) -> None:
    """Until the process has ended, or hangs, or nobody has the engine any more."""
    with suppress(EOFError, OSError):
        while True:
            heard = launched.connection.poll(1.0)
            message = wire.unpack(launched.connection.recv_bytes()) if heard else None
            engine = engine_of()
            if engine is None:
                return
            if message is not None:
                engine._hear(message)
            elif time.monotonic() - engine._heard > SILENCE_S:
                logger.error("the engine has said nothing for %g s; it is ended", SILENCE_S)
                return
            del engine
