"""How much work is taken on: a bounded line of runs, fair shares of it, and a time limit for each run."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from app.visitors import Visitor
from audiolm.errors import BusyError, RequestError

USUAL_RUN_S = 15.0  # what a run takes, until some have been seen
SEEN_RUNS = 20  # the last ones, which an estimate is made from
MAX_EXPECTED = 4  # requests at once that are let in beyond the line, to be refused in the page; more go at the door
EXPECTED_S = 5.0  # whoever was let in and did not get in line for so long is forgotten
MAX_KNOWN = 10_000  # keys of an allowance; whoever was not seen for longest is forgotten


class RunLimitError(RequestError):
    """A run took more time than one may."""


@dataclass(frozen=True)
class WorkLimits:
    """0 is "no limit" for the shares of a visitor and of an address."""

    max_runs: int = 16  # running and waiting together
    max_runs_of_visitor: int = 0  # of these, of one visitor,
    max_runs_of_address: int = 0  # and of one address: a new cookie makes a new visitor
    max_run_s: float = 1200.0  # from the first step on; waiting does not count
    per_visitor: int = 0  # runs begun in `window_s`
    per_address: int = 0
    window_s: float = 600.0


class Allowance:
    """So much in a window of time, for each of many keys. An amount of 0 is "no limit". Thread-safe."""

    def __init__(self, amount: float, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.amount, self.window_s, self._clock = amount, window_s, clock
        self._lock = threading.Lock()
        self._taken: OrderedDict[str, deque[list[float]]] = OrderedDict()  # (when, how much), a second together

    def wait_s(self, key: str, amount: float = 1) -> float:
        """How long until `amount` may be taken; 0 for now, infinite for more than is ever allowed."""
        if not self.amount:
            return 0.0
        with self._lock:
            now = self._clock()
            excess = sum(taken for _, taken in self._recent(key, now)) + amount - self.amount
            wait_s = 0.0
            for when, taken in self._recent(key, now):
                if excess <= 0:
                    break
                excess -= taken
                wait_s = when + self.window_s - now
            return math.inf if excess > 0 else wait_s

    def take(self, key: str, amount: float = 1) -> None:
        if not self.amount:
            return
        with self._lock:
            now = self._clock()
            recent = self._recent(key, now)
            if recent and now - recent[-1][0] < 1.0:
                recent[-1][1] += amount
            else:
                recent.append([now, amount])

    def _recent(self, key: str, now: float) -> deque[list[float]]:
        taken = self._taken.setdefault(key, deque())
        self._taken.move_to_end(key)
        while taken and taken[0][0] <= now - self.window_s:
            taken.popleft()
        while len(self._taken) > MAX_KNOWN:
            self._taken.popitem(last=False)
        return taken


class Admission:
    """The line of runs. Thread-safe; never blocks."""

    def __init__(self, limits: WorkLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._in_line: Counter[str] = Counter()  # by visitor
        self._in_line_by_address: Counter[str] = Counter()
        self._expected: deque[tuple[float, Visitor]] = deque()  # since when they are let in and not in line yet
        self._of_visitors = Allowance(limits.per_visitor, limits.window_s, clock)
        self._of_addresses = Allowance(limits.per_address, limits.window_s, clock)
        self._last_change = clock()
        self._pace: deque[float] = deque(maxlen=SEEN_RUNS)  # seconds between the ends of runs, while there were any
        self.closed = ""

    @property
    def num_in_line(self) -> int:
        return self._in_line.total()

    def estimate_s(self) -> float:
        """How long until the line is empty, by the pace at which runs ended lately."""
        pace = sum(self._pace) / len(self._pace) if self._pace else USUAL_RUN_S
        return pace * max(1, self.num_in_line)

    def close(self, reason: str) -> None:
        """From now on every run is refused for `reason`."""
        self.closed = reason

    def expect(self, visitor: Visitor) -> None:
        """Of a request that will ask to `enter` when the page gets to it, which under a rush takes seconds.

        Raises BusyError where so many were let in that this one would be refused then: it is told at once.
        """
        with self._lock:
            now = self._clock()
            while self._expected and self._expected[0][0] <= now - EXPECTED_S:
                self._expected.popleft()
            count = len(self._expected) + self._in_line.total()
            if len(self._expected) >= MAX_EXPECTED and count >= self.limits.max_runs:
                raise self._full(count)
            self._refuse_address(visitor, sum(other.address == visitor.address for _, other in self._expected))
            self._expected.append((now, visitor))

    def enter(self, visitor: Visitor) -> None:
        """Takes a place in the line, which `leave` must give back. Raises BusyError, which says when to come again."""
        with self._lock:
            expected = next((each for each in self._expected if each[1].key == visitor.key), None)
            if expected is not None:
                self._expected.remove(expected)
            self._refuse(visitor)
            now = self._clock()
            if not self._in_line.total():
                self._last_change = now
            self._in_line[visitor.key] += 1
            self._in_line_by_address[visitor.address] += 1
            self._of_visitors.take(visitor.key)
            self._of_addresses.take(visitor.address)

    def leave(self, visitor: Visitor, completed: bool) -> None:
        """A run that was stopped tells nothing of how long runs take."""
        with self._lock:
            now = self._clock()
            if completed:
                self._pace.append(now - self._last_change)
            self._last_change = now
            for counts, key in ((self._in_line, visitor.key), (self._in_line_by_address, visitor.address)):
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]

    def _refuse(self, visitor: Visitor) -> None:
        limits = self.limits
        if self.closed:
            raise BusyError(self.closed)
        if self._in_line.total() >= limits.max_runs:
            raise self._full(self._in_line.total())
        if 0 < limits.max_runs_of_visitor <= self._in_line[visitor.key]:
            raise BusyError(
                f"at most {limits.max_runs_of_visitor} runs of yours may be under way or waiting at once. "
                "Please wait for one of them, or stop it"
            )
        self._refuse_address(visitor)
        for share, key in ((self._of_visitors, visitor.key), (self._of_addresses, visitor.address)):
            if wait_s := share.wait_s(key):
                raise BusyError(
                    f"at most {share.amount:g} runs are taken from you in {share.window_s / 60:g} minutes. "
                    f"Please try again in {spoken(wait_s)}"
                )

    def _refuse_address(self, visitor: Visitor, num_expected: int = 0) -> None:
        most = self.limits.max_runs_of_address
        if 0 < most <= self._in_line_by_address[visitor.address] + num_expected:
            raise BusyError(
                f"at most {most} runs from your address may be under way or waiting at once. "
                f"Please try again in {spoken(self.estimate_s())}"
            )

    def _full(self, count: int) -> BusyError:
        return BusyError(
            f"{count} runs are under way or waiting, and no more are taken. "
            f"Please try again in {spoken(self.estimate_s())}"
        )


def spoken(seconds: float) -> str:
    """`about 20 s`, `about 3 minutes`: never less than it takes."""
    if seconds <= 90:
        return f"about {max(5, -(-int(seconds + 0.999) // 5) * 5)} s"
    return f"about {-(-int(seconds + 0.999) // 60)} minutes"
