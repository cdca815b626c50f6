"""The player of a run that goes on: an element of our own (assets/stream)."""

from __future__ import annotations

import base64
import uuid
from collections import deque
from typing import Any

import gradio as gr

from app.ui.elements import element, head
from audiolm.events import Sound

REPEATED_UPDATES = 4  # a browser may show only the last of several updates


def stream_head() -> str:
    """Style and script of the player."""
    return head("stream", "stream.css", "stream.js")


def stream_view(label: str, elem_id: str) -> gr.HTML:
    """To be given `Stream.value`s, or None for nothing."""
    return element("audiolm-stream", label, elem_id)


class Stream:
    """A run's sound on its way to the player."""

    def __init__(self, num_rows: int) -> None:
        self._id, self._num_rows, self._num_chunks = uuid.uuid4().hex, num_rows, 0
        self._sent: deque[list[Sound]] = deque(maxlen=REPEATED_UPDATES)
        self._new: list[Sound] = []

    def add(self, sound: Sound) -> None:
        self._num_chunks = sound.num_chunks
        self._new.append(sound)

    def value(self) -> dict[str, Any] | None:
        """What is new, and once more what came with the last few; None before there is any sound."""
        if self._new:
            self._sent.append(self._new)
            self._new = []
        if not self._sent:
            return None
        chunks = [[s.row, s.chunk, s.stage, _text(s)] for sounds in self._sent for s in sounds]
        return {"run": self._id, "num_rows": self._num_rows, "num_chunks": self._num_chunks, "chunks": chunks}


def _text(sound: Sound) -> str:
    """Little-endian int16 samples in base 64."""
    return base64.b64encode(sound.samples.numpy().astype("<i2").tobytes()).decode()
