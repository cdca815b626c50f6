"""Any recording in, the detector's verdict out, with what it holds for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import figures, presenters
from app.schemas import MAX_CLIP_S, CheckpointChoice, recording
from app.service import Judged, Service
from app.ui.picker import Picker
from app.ui.plain import MODEL_EVENTS, UploadedAudio, plain_errors

PURPOSE = (
    "Each checkpoint brings a detector of its own continuations. It knows nothing of other synthesisers: a low score "
    f"says only that a recording does not sound like this checkpoint. The first {MAX_CLIP_S:g} s are judged."
)


def build_detect_tab(service: Service, picker: Picker) -> None:
    """Called inside the tab."""
    gr.Markdown(PURPOSE, elem_classes="note")
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            audio = UploadedAudio(
                sources=["upload", "microphone"],
                type="filepath",
                label="Recording",
                elem_id="detect-audio",
                buttons=[],
            )
            button = gr.Button("Detect", variant="primary", elem_id="detect")
            status = gr.HTML("", elem_id="detect-status")
        with gr.Column(scale=7, min_width=320):
            verdict = gr.HTML(elem_id="detect-verdict")
            picture = gr.Image(
                type="filepath",
                format="png",
                show_label=False,
                container=False,
                buttons=["fullscreen", "download"],
                elem_classes="timeline",
                elem_id="detect-picture",
            )

    def run(audio: str | None, checkpoint: str | None) -> Iterator[dict[Any, Any]]:
        with (
            plain_errors(audio),
            closing(service.detect(recording(audio), CheckpointChoice.parse(checkpoint))) as events,
        ):
            for event in events:
                if isinstance(event, Judged):
                    figure = figures.score_figure(event.waveform, event.verdict)
                    path = figures.save(figure, event.folder / "score.png")
                    alt = "Mel spectrogram of the recording above the detector's score over time"
                    yield {
                        status: "",
                        verdict: presenters.verdict_html(event.verdict, event.checkpoint.components["detector"].hash),
                        picture: gr.update(value=str(path), alt_text=alt),
                    }
                else:
                    yield {status: presenters.event_html(event)}

    event = button.click(
        run,
        [audio, picker.dropdown],
        [status, verdict, picture],
        show_progress="minimal",
        show_progress_on=status,
        api_visibility="private",
        **MODEL_EVENTS,
    )
    event.failure(lambda: "", None, status, queue=False, show_progress="hidden", api_visibility="private")
