"""The service as visitors meet it: with a place in the line, a time limit, and a note of how long everything took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.limits import Admission, RunLimitError
from app.metrics import Metrics
from app.results import Course, Loading, Waiting
from app.service import Service
from app.visitors import Visitor
from audiolm.errors import AudioLMError, BusyError
from audiolm.events import Progress

RUNS = ("continue_prompt", "reconstruct", "detect", "inspect", "ladder", "voices", "ablate", "make_study")
"""The methods of the service that begin a run."""

logger = logging.getLogger(__name__)


class Guard:
    """Admission, metrics and the end of everything, shared by all runs of a process."""

    def __init__(self, admission: Admission, metrics: Metrics) -> None:
        self.admission = admission
        self.metrics = metrics
        self.stopping = ""
        metrics.gauge("audiolm_runs_in_line", lambda: admission.num_in_line)

    def stop(self, reason: str) -> None:
        """Ends what still runs: its visitors are told the reason."""
        self.stopping = reason


class GuardedService:
    """Everything of the service; its runs pass the guard. `visitor` says whose event is being answered."""

    def __init__(self, service: Service, guard: Guard, visitor: Callable[[], Visitor]) -> None:
        self._service = service
        self._guard = guard
        self._visitor = visitor

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)
        if name not in RUNS:
            return found
        visitor = self._visitor()

        def begin(*arguments: Any, **named: Any) -> GuardedRun:
            return GuardedRun(name, self._guard, visitor, lambda: found(*arguments, **named, visitor=visitor.key))

        return begin


class GuardedRun:
    """The events of one run; made only where there is a place for it, given back by `close`.

    Raises BusyError when made; while it runs RunLimitError, BusyError where the server is stopped, and what the run
    itself raises.
    """

    def __init__(self, kind: str, guard: Guard, visitor: Visitor, begin: Callable[[], Iterator[Any]]) -> None:
        try:
            guard.admission.enter(visitor)
        except BusyError:
            guard.metrics.count("audiolm_refused_total")
            raise
        self._kind, self._guard, self._visitor = kind, guard, visitor
        self._open = True
        self._clock = _Clock()
        self._outcome = "stopped"
        try:
            self._events = begin()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> GuardedRun:
        return self

    def __next__(self) -> Any:
        try:
            self._check()
            event = next(self._events)
            while self._outcome == "done" and isinstance(event, Course):  # a heartbeat behind the result
                event = next(self._events)
        except StopIteration:
            self.close()
            raise
        except Exception as error:
            self._outcome = "refused" if isinstance(error, AudioLMError) else "failed"
            self.close()
            raise
        self._clock.take(event)
        if not isinstance(event, Course):
            self._outcome = "done"
        return event

    def close(self) -> None:
        """Stops the run where it still goes on."""
        if not self._open:
            return
        self._open = False
        close = getattr(getattr(self, "_events", None), "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._guard.admission.leave(self._visitor, self._outcome == "done")
            self._note()

    def _check(self) -> None:
        if self._guard.stopping:
            raise BusyError(self._guard.stopping)
        limit_s = self._guard.admission.limits.max_run_s
        if self._clock.run_s > limit_s:
            raise RunLimitError(f"the run took {self._clock.run_s:.0f} s; at most {limit_s:g} s are given to one")

    def _note(self) -> None:
        metrics, clock = self._guard.metrics, self._clock
        metrics.count("audiolm_runs_total", kind=self._kind, outcome=self._outcome)
        stages = clock.stages_s()
        if self._outcome == "done":
            metrics.observe("audiolm_wait_seconds", clock.wait_s)
            metrics.observe("audiolm_run_seconds", clock.run_s, kind=self._kind)
            for stage, seconds in stages.items():
                metrics.observe("audiolm_stage_seconds", seconds, stage=stage)
        told = {"kind": self._kind, "outcome": self._outcome, "wait_s": clock.wait_s, "run_s": clock.run_s, **stages}
        fields = {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}
        logger.info("run ended", extra={"fields": fields})


class _Clock:
    """How long a run waited, and how long each stage of it took, told from its events."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._began: float | None = None
        self._stages: dict[str, float] = {}
        self._stage, self._since = "", self._asked

    @property
    def wait_s(self) -> float:
        return (self._began or time.monotonic()) - self._asked

    @property
    def run_s(self) -> float:
        """0 while it waits."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def take(self, event: Any) -> None:
        if isinstance(event, Waiting):
            return
        now = time.monotonic()
        if self._began is None:
            self._began = self._since = now
        stage = event.stage if isinstance(event, Progress) else "loading" if isinstance(event, Loading) else self._stage
        if stage != self._stage:
            self._leave(now)
            self._stage = stage

    def stages_s(self) -> dict[str, float]:
        """Seconds by stage; what came before the first is left out."""
        self._leave(time.monotonic())
        return dict(self._stages)

    def _leave(self, now: float) -> None:
        if self._stage:
            self._stages[self._stage] = self._stages.get(self._stage, 0.0) + now - self._since
        self._since = now
