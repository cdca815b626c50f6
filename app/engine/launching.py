"""How an engine is started: a process of its own with one end of a socket pair; for tests a thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from app.engine import wire
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Unless the environment or the settings say otherwise: one thread an operation, for tokens that are the same alone
and among others, and since steps are small; several runs keep several processors busy. Threads that wait sleep."""


class Launched:
    """A running engine: where to speak with it, and how to end it at once."""

    def __init__(self, connection: Connection, end: Callable[[], None]) -> None:
        self.connection = connection
        self._end: Callable[[], None] | None = end
        self._ending = threading.Lock()

    def kill(self) -> None:
        """Once; what comes later finds nothing to end."""
        with self._ending:
            end, self._end = self._end, None
            if end is not None:
                end()
                self.connection.close()


Launch = Callable[[Settings], Launched]


def in_a_process(settings: Settings) -> Launched:
    """A fresh interpreter: nothing of this process's memory, device or page goes with it.

    Raises OSError where no process can be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        environment = {**THREADS, **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        command = [sys.executable, "-m", "app.engine", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
    connection = Connection(ours.detach())
    with suppress(OSError):  # where it has ended already, reading from it says so
        connection.send_bytes(wire.pack(settings))

    def kill() -> None:
        process.kill()
        process.wait()

    return Launched(connection, kill)


def in_a_thread(settings: Settings) -> Launched:
    """For tests: no start-up, and what they patch is patched in the engine too."""
    from app.engine.serving import serve  # torch's models: not in the application's process

    ours, theirs = Pipe()
    threading.Thread(target=serve, args=(theirs, settings), name="audiolm-engine", daemon=True).start()
    return Launched(ours, lambda: None)
