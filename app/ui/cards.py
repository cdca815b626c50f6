"""The card of one continuation: players, timeline, score, downloads, receipt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from app import presenters
from app.results import SavedContinuation
from app.ui.media import player, timeline


@dataclass(frozen=True)
class Card:
    """The components of one continuation's result; made once, shown when there is something to show."""

    group: gr.Group
    heading: gr.HTML
    whole: gr.Audio
    generated: gr.Audio
    picture: gr.Image
    verdict: gr.HTML
    wav: gr.DownloadButton
    tokens: gr.DownloadButton
    receipt_file: gr.DownloadButton
    receipt: gr.HTML

    def components(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    def hide(self) -> dict[Any, Any]:
        return {self.group: gr.update(visible=False)}

    def show(self, number: int, saved: SavedContinuation) -> dict[Any, Any]:
        """Everything but the picture, which takes longer to draw."""
        continuation = saved.continuation
        return {
            self.group: gr.update(visible=True),
            self.heading: presenters.heading_html(number, continuation),
            self.whole: str(saved.whole),
            self.generated: str(saved.generated),
            self.picture: None,
            self.verdict: presenters.verdict_html(
                continuation.verdict, continuation.receipt.components.get("detector", "")
            ),
            self.wav: str(saved.whole),
            self.tokens: str(saved.tokens),
            self.receipt_file: str(saved.receipt),
            self.receipt: presenters.receipt_html(continuation.receipt),
        }


def build_card(number: int) -> Card:
    with gr.Group(visible=False, elem_classes="card", elem_id=f"card-{number}") as group:
        heading = gr.HTML()
        with gr.Row():
            whole = player("Prompt and continuation", f"whole-{number}")
            generated = player("Continuation only", f"generated-{number}")
        picture = timeline("Spectrogram and tokens", f"timeline-{number}")
        verdict = gr.HTML(elem_id=f"verdict-{number}")
        with gr.Row(elem_classes="downloads"):
            wav = gr.DownloadButton("WAV", size="sm", elem_id=f"wav-{number}")
            tokens = gr.DownloadButton("Tokens", size="sm", elem_id=f"tokens-{number}")
            receipt_file = gr.DownloadButton("Receipt", size="sm", elem_id=f"receipt-{number}")
        receipt = gr.HTML()
    return Card(group, heading, whole, generated, picture, verdict, wav, tokens, receipt_file, receipt)
