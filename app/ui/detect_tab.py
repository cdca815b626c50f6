"""Any recording in, the detector's verdict out, with what it holds for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import gradio as gr

from app import presenters
from app.results import Judged
from app.schemas import MAX_CLIP_S, ClipRequest
from app.service import Service
from app.ui.media import picture_view, uploaded_audio
from app.ui.picker import Picker
from app.ui.runner import Updates, build_run_controls, follow, wire
from audiolm.inspection.figures import save, score_figure

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
            controls = build_run_controls("Detect", "detect")
        with gr.Column(scale=7, min_width=320):
            verdict = gr.HTML(elem_id="detect-verdict")
            picture = picture_view("Spectrogram and score", "detect-picture")

    def run(audio: str | None, checkpoint: str | None) -> Iterator[Updates]:
        def show(judged: Judged) -> Generator[Updates, None, str]:
            yield _show(judged, verdict, picture)
            return f"Judged by the detector of {judged.checkpoint.name}"

        cleared = {verdict: "", picture: None}
        yield from follow(
            controls,
            lambda: service.detect(ClipRequest.of(audio, checkpoint)),
            show,
            cleared,
            audio=audio,
        )

    wire(controls, run, [audio, picker.dropdown], [verdict, picture])


def _show(judged: Judged, verdict: gr.HTML, picture: gr.Image) -> dict[Any, Any]:
    path = save(score_figure(judged.waveform, judged.verdict), judged.folder / "score.png")
    alt = "Mel spectrogram of the recording above the detector's score over time"
    detector = judged.checkpoint.components["detector"].hash
    return {
        verdict: presenters.verdict_html(judged.verdict, detector),
        picture: gr.update(value=str(path), alt_text=alt),
    }
