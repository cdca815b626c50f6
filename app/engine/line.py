"""The line in front of the engine: bounded, and fair to visitors rather than to requests.

Visitors take turns: each one's oldest run is a turn, and whoever was served longest ago goes first, so that ten runs of
one visitor do not stand before the only one of another.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from audiolm.errors import BusyError

T = TypeVar("T")


class Line(Generic[T]):
    """Of hashable tickets. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._again: deque[T] = deque()
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()  # in the order of their turns

    def __len__(self) -> int:
        return len(self._again) + sum(len(tickets) for tickets in self._waiting.values())

    def join(self, ticket: T, visitor: str) -> None:
        """Raises BusyError where `most` wait already."""
        if len(self) >= self.most:
            raise BusyError(f"{len(self)} runs are waiting already, which is the most that this server takes")
        self._waiting.setdefault(visitor, deque()).append(ticket)

    def put_back(self, ticket: T) -> None:
        """Before all others: one that was served already and must be served again. Never refused."""
        self._again.append(ticket)

    def first(self) -> T | None:
        """Whose turn it is, without serving it."""
        return next(iter(self.in_order()), None)

    def serve(self) -> T:
        """Takes out the first one; its visitor goes to the end. Raises IndexError where nobody waits."""
        if self._again:
            return self._again.popleft()
        if not self._waiting:
            raise IndexError("nobody waits")
        visitor, tickets = next(iter(self._waiting.items()))
        ticket = tickets.popleft()
        self._waiting.move_to_end(visitor)
        if not tickets:
            del self._waiting[visitor]
        return ticket

    def leave(self, ticket: T) -> bool:
        """Takes a ticket out. False where it does not wait."""
        for tickets in (self._again, *self._waiting.values()):
            if ticket in tickets:
                tickets.remove(ticket)
                self._waiting = OrderedDict((name, rest) for name, rest in self._waiting.items() if rest)
                return True
        return False

    def in_order(self) -> list[T]:
        """All of them as they would be served."""
        rounds = max((len(tickets) for tickets in self._waiting.values()), default=0)
        turns = [tickets[n] for n in range(rounds) for tickets in self._waiting.values() if n < len(tickets)]
        return [*self._again, *turns]

    def ahead(self, ticket: T) -> int:
        """How many are served before it; 0 where it does not wait."""
        order = self.in_order()
        return order.index(ticket) if ticket in order else 0
