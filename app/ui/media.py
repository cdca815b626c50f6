"""Recordings in."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import gradio as gr
from gradio import route_utils

Upload = TypeVar("Upload", bound=gr.components.Component)
MAX_FIELD_BYTES = 1024  # of an upload's fields that are no files: the clients send none


class _Parser(route_utils.GradioMultiPartParser):
    """Gradio's, which holds fields that are no files in memory, however long they are."""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is None and len(part.data) + end - start > MAX_FIELD_BYTES:
            raise route_utils.MultiPartException(f"fields beside files have at most {MAX_FIELD_BYTES} bytes")
        super().on_part_data(data, start, end)


def bound_fields() -> None:
    """From now on uploads of this process take no memory but for what is on its way to the disk."""
    route_utils.GradioMultiPartParser = _Parser


def uploaded_audio(label: str, elem_id: str | None = None) -> gr.Audio:
    """An audio input that takes uploads and recordings only."""
    audio = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label=label,
        elem_id=elem_id,
        elem_classes="upload",
        buttons=[],
    )
    return _without_addresses(audio)


def uploaded_recordings(label: str, elem_id: str) -> gr.File:
    """An input of several sound files, uploads only."""
    files = gr.File(file_count="multiple", file_types=["audio"], type="filepath", label=label, elem_id=elem_id)
    return _without_addresses(files)


def _without_addresses(component: Upload) -> Upload:
    """Gradio would also download any address that a client sends in place of a file: that is refused here.

    On the instance, since Gradio writes a stub file beside the source of every subclass of a component.
    """
    inherited = component.async_move_resource_to_block_cache

    async def refuse_addresses(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).lower().startswith(("http:", "https:")):
            message = "the recording must be uploaded, found an address"
            raise gr.Error(message, print_exception=False)
        return await inherited(url_or_file_path)

    component.async_move_resource_to_block_cache = refuse_addresses
    return component
