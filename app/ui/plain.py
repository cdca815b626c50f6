"""What the page's events share: the concurrency group, and errors in plain words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.presenters import notice_html
from app.study.errors import StudyError
from audiolm.errors import (
    AudioError,
    AudioLMError,
    BusyError,
    CheckpointError,
    DeviceMemoryError,
    EngineError,
    RequestError,
    WatermarkError,
)

MODEL_EVENTS: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 16}
"""Every event that runs a model: the same group and the same explicit limit (Gradio takes the lowest it meets).

So many may stand in the service's own line, which lets one at a time to the device and knows who goes first; further
ones wait in Gradio's queue, until that is full."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Events of the page itself: no spinner of Gradio's, no place in the API's documentation."""

TITLES: tuple[tuple[type[AudioLMError], str], ...] = (
    (AudioError, "This recording cannot be used"),
    (CheckpointError, "This checkpoint cannot be used"),
    (DeviceMemoryError, "Not enough memory"),
    (BusyError, "Too many are waiting"),
    (EngineError, "The engine failed"),
    (RequestError, "This cannot be done as asked"),
    (StudyError, "This study cannot be made"),
    (WatermarkError, "The watermark cannot be used"),
)
NOT_TAKEN = (
    "The server did not take this run: too many others may be waiting, or a number is beyond its limits. "
    "Nothing that you entered is lost."
)
"""After a failure outside the page's own code, which Gradio tells the reason of in a toast."""
UNEXPECTED = "Something went wrong on the server, and its log says what. Nothing that you entered is lost."

logger = logging.getLogger(__name__)


def refusal(error: Exception, audio: Path | str | None = None) -> str:
    """Says in a toast what went wrong, and returns the same as a notice that stays in the page (HTML)."""
    title, message = _worded(error, audio)
    gr.Warning(escape(f"{title}: {message}", quote=False))
    return notice_html(f"{title}: {message}", "error")


@contextmanager
def plain_errors(audio: Path | str | None = None) -> Iterator[None]:
    """Turns what is raised inside into an error of the API's client (in the page: a toast)."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        title, message = _worded(error, audio)
        raise gr.Error(escape(message, quote=False), title=title, print_exception=False) from error


def _worded(error: Exception, audio: Path | str | None) -> tuple[str, str]:
    """(title, message) for the reader. The server's place of an upload is left out; bugs go to the log."""
    if not isinstance(error, AudioLMError):
        logger.error("unexpected error in an event", exc_info=error)
        return "Error", UNEXPECTED
    title = next((title for kind, title in TITLES if isinstance(error, kind)), "Error")
    message = str(error)
    if audio is not None:
        message = message.replace(f"{Path(audio).parent}/", "")
    return title, message
