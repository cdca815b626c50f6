"""The engine on one end of a connection: in a process of its own, or for tests on a thread."""

from __future__ import annotations

import os
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from app.engine import wire
from app.engine.messages import Ended, Task
from app.engine.tasks import Tasks
from app.engine.worker import OWN_RUN, Worker
from app.settings import Settings
from audiolm.device import pick_device
from audiolm.errors import RequestError

MAX_THREADS = 2  # that work on runs: more wait for each other


def serve(connection: Connection, settings: Settings, warm: bool = False) -> None:
    """Returns once the other side has closed the connection, or at once where there is no such device. `warm`: the
    offered checkpoints are loaded before anybody asks for them."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        device = pick_device(settings.device)
    except RequestError as error:
        with suppress(OSError):
            connection.send_bytes(wire.pack(Ended(OWN_RUN, error)))
        return
    num_threads = 1 if device.type == "cuda" else min(MAX_THREADS, os.cpu_count() or 1)
    Worker(connection, Tasks(settings, device), device, num_threads).serve(Task("warm_up", ()) if warm else None)
