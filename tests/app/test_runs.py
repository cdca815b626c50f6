from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.runs import Runs, Turns, Waiting
from tests.app.test_service import join_runs


def fresh() -> Runs:
    return Runs(torch.device("cpu"))


def steps_until(done: threading.Event, name: str = "first"):
    def steps(folder: Path) -> Iterator[str]:
        yield name
        assert done.wait(10)
        yield f"{name} ended"

    return steps


def until_waiting(events: Iterator) -> Waiting:
    return next(event for event in events if isinstance(event, Waiting))


def test_the_line_is_first_come_first_served():
    turns = Turns()
    first, second, third = (turns.join() for _ in range(3))
    assert [turns.ahead(ticket) for ticket in (first, second, third)] == [0, 1, 2]
    assert turns.wait(first, 0.0)
    assert not turns.wait(third, 0.0)
    turns.leave(second)
    assert turns.ahead(third) == 1
    turns.leave(first)
    assert turns.wait(third, 0.0)


def test_a_waiting_run_is_told_how_many_go_first():
    runs, done = fresh(), threading.Event()
    first = runs.start(steps_until(done))
    assert next(first) == "first"
    second, third = runs.start(steps_until(done, "second")), runs.start(steps_until(done, "third"))
    assert [until_waiting(events).ahead for events in (second, third)] == [1, 2]
    assert until_waiting(first).ahead == 0
    second.close()
    time.sleep(0.6)
    assert until_waiting(third).ahead == 1
    done.set()
    assert [event for event in first if not isinstance(event, Waiting)] == ["first ended"]
    assert [event for event in third if not isinstance(event, Waiting)] == ["third", "third ended"]


def test_a_run_that_gives_up_waiting_never_starts():
    runs, done, ran = fresh(), threading.Event(), []
    first = runs.start(steps_until(done))
    next(first)

    def steps(folder: Path) -> Iterator[str]:
        ran.append(folder)
        yield "never"

    second = runs.start(steps)
    until_waiting(second)
    second.close()
    done.set()
    assert list(first)
    join_runs()
    assert ran == []


def test_an_iterator_that_was_never_advanced_takes_no_place():
    runs = fresh()
    runs.start(steps_until(threading.Event())).close()
    assert list(runs.start(lambda folder: (name for name in ["alone"]))) == ["alone"]


def test_what_a_run_raises_its_caller_gets_and_the_next_run_goes_on():
    runs = fresh()

    def steps(folder: Path) -> Iterator[str]:
        yield "begun"
        raise ValueError("halfway")

    events = runs.start(steps)
    with pytest.raises(ValueError, match="halfway"):
        list(events)
    assert list(runs.start(lambda folder: (name for name in ["next"]))) == ["next"]
