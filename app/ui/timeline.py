"""The timeline component: a custom element of our own (assets/timeline)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.timeline_payload import payload
from app.ui.elements import element, head
from audiolm.inspection.timeline import Timeline


def timeline_head() -> str:
    """Style and script of every timeline."""
    return head("timeline", "timeline.css", "lanes.js", "timeline.js")


def timeline_view(label: str, elem_id: str) -> gr.HTML:
    """A timeline to be given `timeline_value`s, or None for nothing.

    `view.select(handler, …, trigger_mode="always_last")` hears of chosen tokens: the handler takes a `gr.EventData`
    and reads it with `parse_selection(event._data)`. (Gradio's own mode drops choices while one is being answered.)
    """
    return element("audiolm-timeline", label, elem_id, elem_classes="timeline-view")


def timeline_value(timeline: Timeline, audio: Path | str) -> dict[str, Any]:
    """Value of a view: the timeline, and the file of its sound, which Gradio copies into its cache."""
    file = gr.FileData(path=str(audio), mime_type="audio/wav")
    return {"timeline": payload(timeline), "audio": file.model_dump()}
