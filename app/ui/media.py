"""Recordings in."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import gradio as gr

Upload = TypeVar("Upload", bound=gr.components.Component)


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
