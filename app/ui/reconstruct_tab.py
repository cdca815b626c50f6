"""A recording through the codec, from fewer and fewer quantizer levels: what each level adds."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import gradio as gr

from app import figures, presenters
from app.results import Reconstructed
from app.schemas import MAX_CLIP_S, RECONSTRUCTION_LEVELS, ClipRequest
from app.service import Service
from app.ui.media import player, timeline, uploaded_audio
from app.ui.picker import Picker
from app.ui.runner import Updates, build_run_controls, follow, wire

PURPOSE = (
    "The codec turns sound into up to 12 numbers a frame, 50 frames a second. The first levels carry what is said or "
    f"played, the later ones the detail. The first {MAX_CLIP_S:g} s of the recording are used."
)


def build_reconstruct_tab(service: Service, picker: Picker) -> None:
    """Called inside the tab."""
    gr.Markdown(PURPOSE, elem_classes="note")
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            audio = uploaded_audio("Recording", "reconstruct-audio")
            controls = build_run_controls("Reconstruct", "reconstruct")
        with gr.Column(scale=7, min_width=320):
            original = player("Original, 16 kHz", "reconstruct-original")
            with gr.Row():
                rungs = [
                    player(presenters.levels_name(levels), f"reconstruct-{levels}") for levels in RECONSTRUCTION_LEVELS
                ]
            picture = timeline("Spectrograms", "reconstruct-picture")

    def run(audio: str | None, checkpoint: str | None) -> Iterator[Updates]:
        def show(done: Reconstructed) -> Generator[Updates, None, str]:
            yield _show(done, original, rungs, picture)
            return f"Through the codec of {done.checkpoint.name}"

        def events() -> Iterator[Any]:
            return service.reconstruct(ClipRequest.of(audio, checkpoint))

        yield from follow(controls, events, show, dict.fromkeys([original, *rungs, picture]), audio=audio)

    wire(controls, run, [audio, picker.dropdown], [original, *rungs, picture])


def _show(done: Reconstructed, original: gr.Audio, rungs: list[gr.Audio], picture: gr.Image) -> dict[Any, Any]:
    rungs_heard = {presenters.levels_name(levels): waveform for levels, waveform in done.waveforms.items()}
    path = figures.save(figures.ladder_figure(rungs_heard), done.folder / "levels.png")
    names = ", ".join(rungs_heard)
    updates: dict[Any, Any] = {
        original: str(done.original),
        picture: gr.update(value=str(path), alt_text=f"Mel spectrograms, one above the other: {names}"),
    }
    shown = list(done.by_levels.items())
    for number, rung in enumerate(rungs):
        if number < len(shown):
            levels, file = shown[number]
            label = presenters.levels_name(levels)
            updates[rung] = gr.update(value=str(file), label=label, visible=True)
        else:
            updates[rung] = gr.update(value=None, visible=False)
    return updates
