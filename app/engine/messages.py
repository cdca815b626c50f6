"""What the application and the engine process say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """The name of one of `tasks.Tasks`' methods, and what it is called with."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Begin:
    """To the engine: a run and the folder for its files."""

    run: int
    task: Task
    folder: Path


@dataclass(frozen=True)
class Stop:
    """To the engine: nobody waits for this run any more. It is answered by `Ended`."""

    run: int


@dataclass(frozen=True)
class Ready:
    """The engine has its device."""

    process: int
    device: str


@dataclass(frozen=True)
class Happened:
    """A run's next event."""

    run: int
    event: Any


@dataclass(frozen=True)
class Ended:
    """A run is over and holds nothing any more."""

    run: int
    error: Any = None


@dataclass(frozen=True)
class Figures:
    """How the engine is: sent about once a second, which also says that it lives."""

    memory_bytes: int
    device_memory_bytes: int = 0
    active_rows: dict[str, int] = field(default_factory=dict)
