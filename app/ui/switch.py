"""Versions of one sound to switch between while they play, and stretches of a sound to play: elements of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.inspect_presenters import version_rows
from app.results import Compared
from app.ui.elements import element, head


def switch_head() -> str:
    """Style and script of both elements."""
    return head("switch", "switch.css", "deck.js", "switch.js")


def switch_view(label: str, elem_id: str) -> gr.HTML:
    """To be given `switch_value`s, or None for nothing."""
    return element("audiolm-switch", label, elem_id)


def switch_value(compared: Compared) -> dict[str, Any]:
    """Value of a switch; Gradio copies the files into its cache."""
    rows = [
        {**row, "audio": _file(version.audio)}
        for row, version in zip(version_rows(compared), compared.versions, strict=True)
    ]
    return {"rows": rows, "prompt_s": compared.prompt_s, "duration_s": compared.versions[0].waveform.duration_s}


def snippets_view(label: str, elem_id: str) -> gr.HTML:
    """Buttons that play stretches of one file; to be given `snippets_value`s, or None for nothing."""
    return element("audiolm-snippets", label, elem_id)


def snippets_value(audio: Path, stretches: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Value of snippets: the file, and of each stretch its label, start and end in seconds."""
    items = [{"label": label, "start_s": start_s, "end_s": end_s} for label, start_s, end_s in stretches]
    return {"audio": _file(audio), "items": items}


def _file(path: Path) -> dict[str, Any]:
    return gr.FileData(path=str(path), mime_type="audio/wav", orig_name=path.name).model_dump()
