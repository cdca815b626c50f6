"""Any recording in, the detector's verdict out, with what it holds for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import figures, presenters
from app.schemas import MAX_CLIP_S, CheckpointChoice, recording
from app.service import Judged, Service
from app.ui.media import timeline, uploaded_audio
from app.ui.picker import Picker
from app.ui.plain import MODEL_EVENTS, NOT_TAKEN, QUIET, refusal

PURPOSE = (
    "Each checkpoint brings a detector of its own continuations. It knows nothing of other synthesisers: a low score "
    f"says only that a recording does not sound like this checkpoint. The first {MAX_CLIP_S:g} s are judged."
)


def build_detect_tab(service: Service, picker: Picker) -> None:
    """Called inside the tab."""
    gr.Markdown(PURPOSE, elem_classes="note")
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            audio = uploaded_audio("Recording", "detect-audio")
            button = gr.Button("Detect", variant="primary", elem_id="detect")
            status = gr.HTML("", elem_id="detect-status")
        with gr.Column(scale=7, min_width=320):
            verdict = gr.HTML(elem_id="detect-verdict")
            picture = timeline("Spectrogram and score", "detect-picture")

    def run(audio: str | None, checkpoint: str | None) -> Iterator[dict[Any, Any]]:
        yield {verdict: "", picture: None}  # whatever comes, it is not of this recording
        try:
            choice = CheckpointChoice.parse(checkpoint)
            with closing(service.detect(recording(audio), choice)) as events:
                for event in events:
                    if isinstance(event, Judged):
                        yield {status: "", **_show(event, verdict, picture)}
                    else:
                        yield {status: presenters.event_html(event)}
        except Exception as error:
            yield {status: refusal(error, audio)}

    running = button.click(run, [audio, picker.dropdown], [status, verdict, picture], **QUIET, **MODEL_EVENTS)
    running.failure(lambda: presenters.notice_html(NOT_TAKEN, "error"), None, status, queue=False, **QUIET)


def _show(judged: Judged, verdict: gr.HTML, picture: gr.Image) -> dict[Any, Any]:
    path = figures.save(figures.score_figure(judged.waveform, judged.verdict), judged.folder / "score.png")
    alt = "Mel spectrogram of the recording above the detector's score over time"
    detector = judged.checkpoint.components["detector"].hash
    return {
        verdict: presenters.verdict_html(judged.verdict, detector),
        picture: gr.update(value=str(path), alt_text=alt),
    }
