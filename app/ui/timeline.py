"""The timeline component: a custom element of our own (assets/timeline) inside `gr.HTML`.

`timeline_head` goes to `launch(head=…)`, so that script and style are loaded once a page, however many timelines it
has. The template is fixed text: what a value holds reaches the page through the element's `show`, never as markup.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.settings import ASSETS
from app.timeline_payload import payload
from audiolm.inspection.timeline import Timeline

TEMPLATE = "<audiolm-timeline></audiolm-timeline>"
# Gradio runs this whenever it puts the component on the page, which may be before the module is there.
ON_LOAD = """
const timeline = element.querySelector("audiolm-timeline");
timeline.setAttribute("aria-label", props.label);
timeline.addEventListener("choose", (event) => trigger("select", event.detail));
customElements.whenDefined("audiolm-timeline").then(() => timeline.show(props.value));
watch("value", () => timeline.show(props.value));
"""


def timeline_head() -> str:
    """Style and script of every timeline, as markup for the page's head; the two files are one module."""
    folder = ASSETS / "timeline"
    style, *script = (folder / name for name in ("timeline.css", "lanes.js", "timeline.js"))
    code = "\n".join(path.read_text(encoding="utf-8") for path in script)
    return f'<style>{style.read_text(encoding="utf-8")}</style>\n<script type="module">{code}</script>'


def timeline_view(label: str, elem_id: str) -> gr.HTML:
    """A timeline to be given `timeline_value`s, or None for nothing.

    `view.select(handler, …, trigger_mode="always_last")` hears of chosen tokens: the handler takes a `gr.EventData`
    and reads it with `parse_selection(event._data)`. (Gradio's own mode drops choices while one is being answered.)
    """
    return gr.HTML(
        value=None,
        html_template=TEMPLATE,
        js_on_load=ON_LOAD,
        apply_default_css=False,
        label=label,
        elem_id=elem_id,
        elem_classes="timeline-view",
    )


def timeline_value(timeline: Timeline, audio: Path | str) -> dict[str, Any]:
    """Value of a view: the timeline, and the file of its sound, which Gradio copies into its cache."""
    file = gr.FileData(path=str(audio), mime_type="audio/wav")
    return {"timeline": payload(timeline), "audio": file.model_dump()}
