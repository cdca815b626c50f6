"""What the page's events share: errors as plain words, the concurrency group, uploads that are uploads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from audiolm.errors import (
    AudioError,
    AudioLMError,
    CheckpointError,
    DeviceMemoryError,
    RequestError,
)

MODEL_EVENTS: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""Every event that runs a model: the same group and the same explicit limit (Gradio takes the lowest it meets)."""

TITLES: tuple[tuple[type[AudioLMError], str], ...] = (
    (AudioError, "This recording cannot be used"),
    (CheckpointError, "This checkpoint cannot be used"),
    (DeviceMemoryError, "Not enough memory"),
    (RequestError, "This cannot be done as asked"),
)
UNEXPECTED = "Something went wrong on the server, and its log says what. Nothing that you entered is lost."

logger = logging.getLogger(__name__)


class UploadedAudio(gr.Audio):
    """An audio input that takes uploads and recordings only.

    Gradio's own would also download any address that a client sends in place of a file: that is refused here.
    """

    is_template = True  # Gradio then shows it as the gr.Audio that it is

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).lower().startswith(("http:", "https:")):
            raise gr.Error(
                "the recording must be uploaded, found an address", title=TITLES[0][1], print_exception=False
            )
        return await super().async_move_resource_to_block_cache(url_or_file_path)


def plain_error(error: Exception, audio: Path | str | None = None) -> tuple[str, str]:
    """(title, message) for the reader. The server's place of an upload is left out of the message."""
    if not isinstance(error, AudioLMError):
        return "Error", UNEXPECTED
    title = next((title for kind, title in TITLES if isinstance(error, kind)), "Error")
    message = str(error)
    if audio is not None:
        message = message.replace(f"{Path(audio).parent}/", "")
    return title, message


@contextmanager
def plain_errors(audio: Path | str | None = None) -> Iterator[None]:
    """Turns what is raised inside into a message in the page (and an error of the client, over the API)."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        if not isinstance(error, AudioLMError):
            logger.exception("unexpected error in an event")
        title, message = plain_error(error, audio)
        raise gr.Error(escape(message, quote=False), title=title, print_exception=False) from error
