"""The engine process: `python -m app.engine FD`, started by the application with one end of a socket pair."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from app import logs
from app.engine import wire
from app.engine.serving import serve
from audiolm.audio import isolation
from audiolm.errors import AudioFormatError

NICENESS = 5  # the server answers, and refuses, promptly however many runs there are


def main() -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    for number in (signal.SIGINT, signal.SIGTERM):  # often sent to all processes of a group, or of a service
        signal.signal(number, signal.SIG_IGN)  # the application decides, and its end closes the connection
    connection = Connection(int(sys.argv[1]))
    settings = wire.unpack(connection.recv_bytes())
    logs.set_up(settings.log_json, settings.cache_folder)
    with suppress(AudioFormatError):  # which the first recording is refused with, if it is still so
        isolation.prepare()
    serve(connection, settings, warm=True)
    os._exit(0)  # a step in hand is not waited for


if __name__ == "__main__":
    main()
