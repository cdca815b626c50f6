"""Any clip, looked into: its timeline and tokens, and what becomes of it with levels, voices and stages changed."""

from __future__ import annotations

import gradio as gr

from app.schemas import MAX_CLIP_S
from app.service import Service
from app.ui.continue_tab import Outcome
from app.ui.examples import build_examples
from app.ui.media import uploaded_audio
from app.ui.picker import Picker
from app.ui.plain import QUIET
from app.ui.timeline_tab import build_timeline_tab
from app.ui.versions_tabs import build_ablations_tab, build_ladder_tab, build_voices_tab

PURPOSE = (
    "Record or upload any clip, or press **Inspect** on a continuation in the Continue tab. A real clip is read by the "
    "checkpoint's tokenizers, and its stages are asked at every token how much they expected it (teacher forcing). "
    f"The first {MAX_CLIP_S:g} s are used."
)
TAB = "inspect"


def build_inspect_tab(service: Service, picker: Picker, continued: Outcome, tabs: gr.Tabs) -> None:
    """Called inside the tab of id TAB of `tabs`; the cards of `continued` hand their continuations over."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            audio = uploaded_audio("Clip", "inspect-audio")
        with gr.Column(scale=6, min_width=320):
            gr.Markdown(PURPOSE, elem_classes="note")
            build_examples(service, audio, picker, "inspect-")
    with gr.Tabs() as inside:
        with gr.Tab("Timeline", id="timeline"):
            handed = [
                card.inspect.click(
                    lambda file: (gr.Tabs(selected=TAB), gr.Tabs(selected="timeline"), file),
                    card.wav,
                    [tabs, inside, audio],
                    queue=False,
                    **QUIET,
                )
                for card in continued.cards
            ]
            build_timeline_tab(service, audio, picker.dropdown, continued.kept, handed)
        with gr.Tab("Ladder", id="ladder"):
            build_ladder_tab(service, audio, picker.dropdown)
        with gr.Tab("Voices", id="voices"):
            build_voices_tab(service, audio, picker.dropdown)
        with gr.Tab("Ablations", id="ablations"):
            build_ablations_tab(service, audio, picker.dropdown)
