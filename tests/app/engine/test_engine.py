from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest
import torch

from app.engine.engine import Engine
from app.engine.launching import Launched
from app.engine.messages import Task
from app.engine.worker import Worker
from app.results import Waiting
from app.runs import start
from audiolm.errors import BusyError, DeviceMemoryError, EngineError

WAIT_S = 10.0


@dataclass(frozen=True)
class Work:
    """Tasks that are functions: task name -> function(folder, engine's number) -> events."""

    tasks: dict[str, Callable[[Path, int], Iterator]]
    engine: int

    def perform(self, task: Task, folder: Path) -> Iterator:
        return self.tasks[task.name](folder, self.engine)

    def help(self) -> bool:
        return False

    def active_rows(self) -> dict[str, int]:
        return {"coarse": 3}


class Launcher:
    """Engines on threads that do such work."""

    def __init__(self, **tasks: Callable[[Path, int], Iterator]) -> None:
        self.tasks, self.launched = tasks, []

    def __call__(self) -> Launched:
        ours, theirs = Pipe()
        number = len(self.launched)

        worker = Worker(theirs, Work(self.tasks, number), torch.device("cpu"), num_threads=2)
        threading.Thread(target=worker.serve, daemon=True).start()
        self.launched.append(Launched(ours, lambda: None))
        self.theirs = theirs
        return self.launched[-1]

    def crash(self) -> None:
        """The newest engine ends at once."""
        self.theirs.close()


def run(engine: Engine, name: str, visitor: str = "") -> Iterator:
    return start(engine, Task(name, ()), visitor)


def told(events: Iterator) -> list:
    return [event for event in events if not isinstance(event, Waiting)]


def until_waiting(events: Iterator) -> Waiting:
    return next(event for event in events if isinstance(event, Waiting))


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def words(*said: str):
    return lambda folder, engine: (word for word in said)


def gate(done: threading.Event, name: str = "first"):
    def steps(folder: Path, engine: int) -> Iterator[str]:
        yield name
        while not done.is_set():
            yield None
        yield f"{name} ended"

    return steps


def test_a_run_tells_its_events_in_order_and_its_folder_is_gone_afterwards():
    folders = []

    def steps(folder: Path, engine: int) -> Iterator[str]:
        folders.append(folder)
        (folder / "file").write_text("sound")
        yield from ("one", "two", "three")

    engine = Engine(Launcher(steps=steps), 1, 9)
    assert told(run(engine, "steps")) == ["one", "two", "three"]
    assert not folders[0].exists()
    assert engine.status().done == 1


def test_a_waiting_run_is_told_how_many_go_first():
    done = threading.Event()
    engine = Engine(Launcher(first=gate(done), second=words("second")), 1, 9)
    first = run(engine, "first")
    assert told([next(event for event in first if event == "first")]) == ["first"]
    second, third = run(engine, "second"), run(engine, "second")
    assert [until_waiting(events).ahead for events in (second, third)] == [1, 2]
    assert until_waiting(first).ahead == 0
    second.close()
    assert until_waiting(third).ahead == 1
    done.set()
    assert told(first) == ["first ended"]
    assert told(third) == ["second"]


def test_runs_at_once_share_the_engine_and_all_end():
    done = threading.Event()
    engine = Engine(Launcher(first=gate(done), quick=words("quick")), 2, 9)
    first = run(engine, "first")
    assert next(event for event in first if event == "first")
    assert told(run(engine, "quick")) == ["quick"]
    done.set()
    assert told(first) == ["first ended"]


def test_a_run_that_gives_up_waiting_never_starts():
    done, ran = threading.Event(), []

    def steps(folder: Path, engine: int) -> Iterator[str]:
        ran.append(folder)
        yield "never"

    engine = Engine(Launcher(first=gate(done), second=steps), 1, 9)
    first, second = run(engine, "first"), run(engine, "second")
    until_waiting(first)
    until_waiting(second)
    second.close()
    done.set()
    assert told(first)[-1] == "first ended"
    wait_for(lambda: engine.status().running == 0)
    assert ran == []
    assert engine.status().stopped == 1


def test_an_iterator_that_was_never_advanced_takes_no_place():
    engine = Engine(Launcher(alone=words("alone")), 1, 1)
    run(engine, "alone").close()
    assert engine.status().state == "off"
    assert told(run(engine, "alone")) == ["alone"]


def test_closing_a_run_ends_it_in_the_engine_and_makes_room():
    ended = threading.Event()

    def endless(folder: Path, engine: int) -> Iterator[str]:
        try:
            while True:
                yield "on"
        finally:
            ended.set()

    engine = Engine(Launcher(endless=endless, next=words("next")), 1, 9)
    events = run(engine, "endless")
    assert next(event for event in events if event == "on")
    events.close()
    assert ended.wait(WAIT_S)
    assert told(run(engine, "next")) == ["next"]


def test_what_a_run_raises_its_caller_gets_and_the_next_run_goes_on():
    def fails(folder: Path, engine: int) -> Iterator[str]:
        yield "begun"
        raise EngineError("halfway")

    engine = Engine(Launcher(fails=fails, next=words("next")), 1, 9)
    with pytest.raises(EngineError, match="halfway"):
        list(run(engine, "fails"))
    assert told(run(engine, "next")) == ["next"]
    assert (engine.status().failed, engine.status().done) == (1, 1)


def test_out_of_memory_is_a_typed_error_and_the_run_beside_it_and_the_next_one_go_on():
    done = threading.Event()

    def greedy(folder: Path, engine: int) -> Iterator[str]:
        yield "begun"
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = Engine(Launcher(beside=gate(done, "beside"), greedy=greedy, next=words("next")), 2, 9)
    beside = run(engine, "beside")
    next(event for event in beside if event == "beside")
    with pytest.raises(DeviceMemoryError, match="cpu ran out of memory"):
        list(run(engine, "greedy"))
    done.set()
    assert told(beside) == ["beside ended"]
    assert told(run(engine, "next")) == ["next"]
    assert engine.status().restarts == 0


def test_a_lost_engine_is_started_again_and_its_runs_begin_anew():
    begun = threading.Barrier(3)

    def steps(folder: Path, engine: int) -> Iterator[str]:
        assert list(folder.iterdir()) == []
        (folder / "half").write_text("")
        yield f"begun by {engine}"
        if engine == 0:
            begun.wait(WAIT_S)
            while True:
                yield None
        yield "done"

    launcher = Launcher(steps=steps)
    engine = Engine(launcher, 2, 9)
    both = [run(engine, "steps", visitor) for visitor in "ab"]
    heard = [[], []]
    threads = [threading.Thread(target=lambda n=n: heard[n].extend(told(both[n]))) for n in (0, 1)]
    for thread in threads:
        thread.start()
    begun.wait(WAIT_S)
    launcher.crash()
    for thread in threads:
        thread.join(WAIT_S)
    assert heard == [["begun by 0", "begun by 1", "done"]] * 2
    assert (engine.status().restarts, engine.status().done) == (1, 2)


def test_a_run_that_breaks_every_engine_is_given_up_and_the_others_are_kept():
    launcher = Launcher()
    met, together = [], threading.Barrier(2)

    def bad(folder: Path, engine: int) -> Iterator[str]:
        if engine == 0:
            together.wait(WAIT_S)
        yield "bad"
        met.append(launcher.innocent)
        launcher.crash()
        while True:
            yield None

    def innocent(folder: Path, engine: int) -> Iterator[str]:
        launcher.innocent = True
        try:
            if engine == 0:
                together.wait(WAIT_S)
            for _ in range(200 if engine < 2 else 1):
                time.sleep(0.005)
                yield None
            yield "kept"
        finally:
            launcher.innocent = False

    launcher.tasks = {"bad": bad, "innocent": innocent}
    launcher.innocent = False
    engine = Engine(launcher, 2, 9)
    kept = []
    thread = threading.Thread(target=lambda: kept.extend(told(run(engine, "innocent", "b"))))
    thread.start()
    with pytest.raises(EngineError, match="stopped 3 times while it worked on this run"):
        list(run(engine, "bad", "a"))
    thread.join(WAIT_S)
    assert kept == ["kept"]
    assert engine.status().restarts == 3


def test_a_run_that_takes_too_much_memory_is_given_up_and_the_next_one_succeeds(monkeypatch):
    used = [100]
    monkeypatch.setattr("app.engine.memory.used_bytes", lambda: used[0])
    monkeypatch.setattr("app.engine.worker.FIGURES_EVERY_S", 0.02)

    def greedy(folder: Path, engine: int) -> Iterator[str]:
        try:
            used[0] = 1001
            while True:
                yield None
        finally:
            used[0] = 100

    engine = Engine(Launcher(greedy=greedy, next=words("next")), 1, 9, most_bytes=1000)
    with pytest.raises(EngineError, match="stopped 3 times"):
        list(run(engine, "greedy"))
    used[0] = 100
    assert told(run(engine, "next")) == ["next"]
    assert engine.status().memory_bytes <= 1001


@dataclass(frozen=True)
class Foreign:
    """No class of the application's: it can be sent, and not be read."""


def test_what_cannot_be_read_costs_its_own_run_and_not_the_engine_for_ever():
    def strange(folder: Path, engine: int) -> Iterator[Foreign]:
        yield Foreign()

    engine = Engine(Launcher(strange=strange, next=words("next")), 1, 9)
    with pytest.raises(EngineError, match="stopped 3 times"):
        list(run(engine, "strange"))
    assert told(run(engine, "next")) == ["next"]


def test_a_full_line_refuses_at_once():
    done = threading.Event()
    engine = Engine(Launcher(first=gate(done)), 1, 1)
    first, second, third = (run(engine, "first") for _ in range(3))
    next(event for event in first if event == "first")
    until_waiting(second)
    with pytest.raises(BusyError, match="1 runs are waiting already"):
        next(third)
    done.set()
    assert told(second) == ["first", "first ended"]


def test_an_engine_that_cannot_start_says_so_and_is_tried_again_by_the_next_run():
    launcher = Launcher(alone=words("alone"))
    fails = [True]

    def launch() -> Launched:
        if fails[0]:
            raise OSError("no such program")
        return launcher()

    engine = Engine(launch, 1, 9)
    with pytest.raises(EngineError, match="cannot be started"):
        list(run(engine, "alone"))
    assert engine.status().state == "failed"
    fails[0] = False
    assert told(run(engine, "alone")) == ["alone"]


def test_an_engine_that_nobody_holds_any_more_is_ended():
    launcher = Launcher(alone=words("alone"))
    engine = Engine(launcher, 1, 9)
    assert told(run(engine, "alone")) == ["alone"]
    del engine
    gc.collect()
    wait_for(lambda: launcher.theirs.closed or launcher.launched[0].connection.closed)
