"""Versions of the inspected clip beside each other: the resynthesis ladder, other voices, ablations. One tab each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import gradio as gr

from app.inspect_presenters import compared_text
from app.results import Compared
from app.schemas import (
    ABLATE_FIELDS,
    LADDER_FIELDS,
    VOICES_FIELDS,
    AblateRequest,
    ClipRequest,
    LadderRequest,
    VoicesRequest,
)
from app.service import Service
from app.ui.controls import seed_field, slider
from app.ui.media import uploaded_audio
from app.ui.runner import RunControls, Updates, build_run_controls, follow, wire
from app.ui.switch import switch_value, switch_view

LADDER = (
    "What each layer carries: the clip from 12 codec levels down to 1, then made anew from its semantic tokens alone, "
    "which hold what is said or played but not who or what it sounds like. All at equal loudness."
)
VOICES = (
    "The clip's semantic tokens again, in other voices: the model draws a voice for each, or all follow a recording "
    "that you give, of which the start is taken. All at equal loudness."
)
ABLATIONS = (
    "The clip's start continued by the whole model and by parts of it, with one seed: what is lost without the fine "
    "stage, without the semantic stage, and with its tokens shuffled."
)

Ask = Callable[..., Iterator[Any]]
"""Begins a run, given the values of the inputs; raises what is wrong with them."""


def build_ladder_tab(service: Service, audio: gr.Audio, checkpoint: gr.Dropdown) -> None:
    """Called inside the tab."""

    def ask(audio: str | None, checkpoint: str | None, *numbers: float) -> Iterator[Any]:
        fields = dict(zip(LADDER_FIELDS, numbers, strict=True))
        return service.ladder(LadderRequest.from_fields(ClipRequest.of(audio, checkpoint), fields))

    gr.Markdown(LADDER, elem_classes="note")
    with gr.Row(elem_classes="columns"):
        numbers = _numbers(LADDER_FIELDS, "ladder-")
    controls = build_run_controls("Build the ladder", "ladder")
    _wire(controls, ask, [audio, checkpoint, *numbers], switch_view("Resynthesis ladder", "ladder-versions"))


def build_voices_tab(service: Service, audio: gr.Audio, checkpoint: gr.Dropdown) -> None:
    """Called inside the tab."""

    def ask(audio: str | None, checkpoint: str | None, voice: str | None, *numbers: float) -> Iterator[Any]:
        fields = dict(zip(VOICES_FIELDS, numbers, strict=True))
        return service.voices(VoicesRequest.from_fields(ClipRequest.of(audio, checkpoint), voice, fields))

    gr.Markdown(VOICES, elem_classes="note")
    with gr.Row(elem_classes="columns"):
        with gr.Column(min_width=320):
            voice = uploaded_audio("Voice to follow (optional)", "voices-voice")
        with gr.Column(min_width=320):
            numbers = _numbers(VOICES_FIELDS, "voices-")
    controls = build_run_controls("Make voices", "voices")
    _wire(controls, ask, [audio, checkpoint, voice, *numbers], switch_view("Voices", "voices-versions"))


def build_ablations_tab(service: Service, audio: gr.Audio, checkpoint: gr.Dropdown) -> None:
    """Called inside the tab."""

    def ask(audio: str | None, checkpoint: str | None, *numbers: float) -> Iterator[Any]:
        fields = dict(zip(ABLATE_FIELDS, numbers, strict=True))
        return service.ablate(AblateRequest.from_fields(ClipRequest.of(audio, checkpoint), fields))

    gr.Markdown(ABLATIONS, elem_classes="note")
    with gr.Row(elem_classes="columns"):
        numbers = _numbers(ABLATE_FIELDS, "ablate-")
    controls = build_run_controls("Leave parts out", "ablate")
    _wire(controls, ask, [audio, checkpoint, *numbers], switch_view("Ablations", "ablate-versions"))


def _numbers(names: tuple[str, ...], prefix: str) -> list[Any]:
    return [_field(name, prefix) for name in names]


def _field(name: str, prefix: str) -> Any:
    with gr.Group(elem_classes="controls"):
        return seed_field(prefix) if name == "seed" else slider(name, prefix)


def _wire(controls: RunControls, ask: Ask, inputs: list[Any], view: gr.HTML) -> None:
    def show(compared: Compared) -> Generator[Updates, None, str]:
        yield {view: switch_value(compared)}
        return compared_text(compared)

    def run(*values: Any) -> Iterator[Updates]:
        yield from follow(controls, lambda: ask(*values), show, {view: None}, audio=values[0])

    wire(controls, run, inputs, [view])
