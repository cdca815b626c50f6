"""From the start to the end of the server: a signal lets the runs finish, tells those that cannot, and then ends it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from app.guard import Guard

CLOSED = "the server is being restarted. Please try again in a minute"
TOLD_S = 2.0  # for the last answers to reach their visitors

logger = logging.getLogger(__name__)


def serve_until_stopped(guard: Guard, grace_s: float, close: Callable[[], None]) -> None:
    """Waits for SIGTERM or SIGINT, then takes no more runs, gives those under way `grace_s`, and calls `close`.

    A second signal ends the waiting.
    """
    asked, asked_again = threading.Event(), threading.Event()

    def heard(number: int, frame: object) -> None:
        (asked_again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)
    asked.wait()
    guard.admission.close(CLOSED)
    logger.info("stopping", extra={"fields": {"runs": guard.admission.num_in_line, "grace_s": grace_s}})
    _wait_for_runs(guard, grace_s, asked_again)
    guard.stop(CLOSED)
    _wait_for_runs(guard, TOLD_S, threading.Event())
    time.sleep(TOLD_S / 4)  # what they were told is on its way
    close()
    logger.info("stopped", extra={"fields": {"runs_left": guard.admission.num_in_line}})


def _wait_for_runs(guard: Guard, at_most_s: float, enough: threading.Event) -> None:
    deadline = time.monotonic() + at_most_s
    while guard.admission.num_in_line and time.monotonic() < deadline and not enough.wait(0.1):
        pass
