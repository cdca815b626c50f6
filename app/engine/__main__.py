"""The engine process: `python -m app.engine FD`, started by the application with one end of a socket pair."""

from __future__ import annotations

import logging
import os
import signal
import sys
from multiprocessing.connection import Connection

from app.engine import wire
from app.engine.serving import serve


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the application decides, and its end closes the connection
    connection = Connection(int(sys.argv[1]))
    serve(connection, wire.unpack(connection.recv_bytes()), warm=True)
    os._exit(0)  # a step in hand is not waited for


if __name__ == "__main__":
    main()
