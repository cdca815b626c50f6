"""The card of one continuation: timeline, score, downloads, receipt, and the way to the Inspect tab."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from app import presenters
from app.results import SavedContinuation
from app.ui.runner import Updates
from app.ui.timeline import timeline_value, timeline_view
from app.verdict_presenters import carried_html, verdict_html


@dataclass(frozen=True)
class Card:
    """The components of one continuation's result; made once, shown when there is something to show."""

    group: gr.Group
    heading: gr.HTML
    timeline: gr.HTML
    verdict: gr.HTML
    inspect: gr.Button
    wav: gr.DownloadButton
    generated: gr.DownloadButton
    picture: gr.DownloadButton
    tokens: gr.DownloadButton
    receipt_file: gr.DownloadButton
    receipt: gr.HTML

    def components(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    def hide(self) -> Updates:
        return {self.group: gr.update(visible=False), self.timeline: None}

    def show(self, number: int, saved: SavedContinuation) -> Updates:
        """Everything but the picture to download, which takes longer to draw."""
        continuation = saved.continuation
        return {
            self.group: gr.update(visible=True),
            self.heading: presenters.heading_html(number, continuation),
            self.timeline: timeline_value(saved.timeline, saved.whole),
            self.verdict: verdict_html(continuation.verdict) + carried_html(continuation.receipt, saved.mark),
            self.wav: str(saved.whole),
            self.generated: str(saved.generated),
            self.picture: gr.update(value=None, interactive=False),
            self.tokens: str(saved.tokens),
            self.receipt_file: str(saved.receipt),
            self.receipt: presenters.receipt_html(continuation.receipt),
        }


def build_card(number: int) -> Card:
    """Hidden until there is a continuation of this number."""
    with gr.Group(visible=False, elem_classes="card", elem_id=f"card-{number}") as group:
        heading = gr.HTML()
        timeline = timeline_view(f"Timeline of continuation {number}", f"timeline-{number}")
        verdict = gr.HTML(elem_id=f"verdict-{number}")
        with gr.Row(elem_classes="downloads"):
            inspect = gr.Button("Inspect", variant="primary", size="sm", min_width=80, elem_id=f"inspect-{number}")
            wav = _download("WAV", f"wav-{number}")
            generated = _download("Continuation only", f"generated-{number}")
            picture = _download("Picture", f"picture-{number}")
            tokens = _download("Tokens", f"tokens-{number}")
            receipt_file = _download("Receipt", f"receipt-{number}")
        receipt = gr.HTML()
    return Card(group, heading, timeline, verdict, inspect, wav, generated, picture, tokens, receipt_file, receipt)


def _download(label: str, elem_id: str) -> gr.DownloadButton:
    return gr.DownloadButton(label, size="sm", elem_id=elem_id, min_width=80)
