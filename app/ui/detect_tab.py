"""Any recording in; out come the detector's verdict with what it holds for, the watermark, and the codec's control."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from app import verdict_presenters as presenters
from app.results import Judged
from app.schemas import MAX_CLIP_S, ClipRequest
from app.service import Service
from app.ui.examples import build_examples
from app.ui.media import uploaded_audio
from app.ui.picker import Picker
from app.ui.runner import Updates, build_run_controls, follow, wire
from app.ui.switch import switch_value, switch_view
from audiolm.inspection.figures import save, score_figure

PURPOSE = (
    "Did this checkpoint make it? Its detector knows its own continuations and no other synthesiser's: a low score "
    "says only that a recording does not sound like this checkpoint. Where it does not know, it says so. "
    f"The first {MAX_CLIP_S:g} s are judged."
)


@dataclass(frozen=True)
class Findings:
    """What a verdict fills: the recording's card beside that of the same through the codec, and both to be heard."""

    shown: gr.Column
    recording: gr.HTML
    control: gr.HTML
    versions: gr.HTML
    picture: gr.DownloadButton
    numbers: gr.DownloadButton

    def components(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


def build_detect_tab(service: Service, picker: Picker) -> None:
    """Called inside the tab."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            audio = uploaded_audio("Recording", "detect-audio")
        with gr.Column(scale=6, min_width=320):
            gr.Markdown(PURPOSE, elem_classes="note")
            build_examples(service, audio, picker, "detect-")
    controls = build_run_controls("Detect", "detect")
    found = _build_findings()

    def run(audio: str | None, checkpoint: str | None) -> Iterator[Updates]:
        def show(judged: Judged) -> Generator[Updates, None, str]:
            yield _shown(judged, found)
            return presenters.judged_text(judged)

        cleared = {found.shown: gr.update(visible=False), found.versions: None}
        yield from follow(
            controls, lambda: service.detect(ClipRequest.of(audio, checkpoint)), show, cleared, audio=audio
        )

    wire(controls, run, [audio, picker.dropdown], found.components())


def _build_findings() -> Findings:
    with gr.Column(visible=False, elem_id="detect-findings") as shown:
        with gr.Row(elem_classes="columns"):
            with gr.Column(min_width=320, elem_classes="card"):
                recording = gr.HTML(elem_id="detect-recording")
            with gr.Column(min_width=320, elem_classes="card"):
                control = gr.HTML(elem_id="detect-control")
        versions = switch_view("The recording, and what the codec makes of it", "detect-versions")
        with gr.Row(elem_classes="downloads"):
            picture = gr.DownloadButton("Picture (PNG)", size="sm", elem_id="detect-picture", min_width=110)
            numbers = gr.DownloadButton("Numbers (JSON)", size="sm", elem_id="detect-numbers", min_width=110)
    return Findings(shown, recording, control, versions, picture, numbers)


def _shown(judged: Judged, found: Findings) -> Updates:
    heard = judged.recording
    picture = save(score_figure(heard.waveform, heard.verdict, heard.saliency), judged.folder / "verdict.png")
    numbers = judged.folder / "verdict.json"
    numbers.write_text(json.dumps(presenters.judged_row(judged), indent=1), encoding="utf-8")
    return {
        found.shown: gr.update(visible=True),
        found.recording: presenters.recording_html(judged),
        found.control: presenters.control_html(judged),
        found.versions: switch_value(judged.versions),
        found.picture: str(picture),
        found.numbers: str(numbers),
    }
