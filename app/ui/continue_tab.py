"""The page's main tab: a prompt in, continuations out, with their tokens, pictures, score and receipt."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app import figures, presenters
from app.results import Course, Finished, Started
from app.schemas import BOUNDS, PROMPT_PARTS, STAGES, CheckpointChoice, ContinueRequest
from app.service import Service
from app.ui.cards import Card, build_card
from app.ui.controls import seed_field, slider
from app.ui.media import uploaded_audio
from app.ui.picker import Picker, describe
from app.ui.plain import QUIET
from app.ui.runner import RunControls, Updates, build_run_controls, follow, wire
from audiolm.events import Chunk

MICROPHONE_NOTE = (
    "Browsers give a page the microphone only over https, or from localhost. Uploads work everywhere: "
    "WAV, FLAC, OGG or MP3. The prompt is taken from the start."
)
EMPTY = """
<div class="empty">
  <ol>
    <li><strong>Give a prompt</strong> Record or upload a few seconds of speech or piano, or take an example.</li>
    <li><strong>Choose</strong> how long, how many, and a seed: the same seed gives the same tokens again.</li>
    <li><strong>Generate</strong> and watch the tokens come; stop whenever you like.</li>
  </ol>
  <p>Each continuation comes with its players, a spectrogram with a gray line where your prompt ends,
    <span class="key semantic">semantic</span> <span class="key coarse">coarse</span> and
    <span class="key fine">fine</span> tokens, the detector's score, and a receipt that makes it again.</p>
</div>
"""


@dataclass(frozen=True)
class Outcome:
    """Everything on the right-hand side of the tab besides the run's controls."""

    live: gr.HTML
    empty: gr.HTML
    cards: list[Card]

    def components(self) -> list[Any]:
        return [self.live, self.empty, *(component for card in self.cards for component in card.components())]

    def cleared(self) -> Updates:
        hidden = {key: value for card in self.cards for key, value in card.hide().items()}
        return {self.live: "", self.empty: "", **hidden}


def build_continue_tab(service: Service, picker: Picker) -> None:
    """Called inside the tab."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            audio = uploaded_audio("Prompt", "prompt")
            _build_examples(service, audio, picker)
            gr.Markdown(MICROPHONE_NOTE, elem_classes="note")
            fields = _build_fields()
        with gr.Column(scale=7, min_width=320):
            controls = build_run_controls("Generate", "generate")
            outcome = _build_outcome()

    inputs = [audio, picker.dropdown, fields.pop("prompt_part"), *fields.values()]
    names = tuple(fields)

    def run(audio: str | None, checkpoint: str | None, prompt_part: str, *numbers: float) -> Iterator[Updates]:
        def events() -> Iterator[Any]:
            values = dict(zip(names, numbers, strict=True))
            choice = CheckpointChoice.parse(checkpoint)
            return service.continue_prompt(ContinueRequest.from_fields(audio, choice, values, prompt_part))

        live = _LiveTokens(outcome.live)

        def show(finished: Finished) -> Generator[Updates, None, str]:
            yield from _show(controls, outcome, finished)
            return presenters.finished_text(finished.result, finished.elapsed_s, live.notes())

        yield from follow(controls, events, show, outcome.cleared(), live, audio)

    wire(controls, run, inputs, outcome.components())


def _build_examples(service: Service, audio: gr.Audio, picker: Picker) -> None:
    """Example prompts a domain; taking one also picks the first checkpoint of that domain."""
    for domain, paths in service.prompts().items():
        samples = gr.Dataset(
            label=f"Example prompts: {domain}",
            components=["textbox"],
            samples=[[presenters.prompt_name(path)] for path in paths],
            type="index",
            layout="gallery",
            elem_id=f"examples-{domain}",
        )

        def take(
            index: int, checkpoint: str | None, paths: list[Path] = paths, domain: str = domain
        ) -> tuple[str, Any, Any]:
            fitting = service.offer.fitting(domain, checkpoint)
            return str(paths[index]), fitting, describe(service, fitting)

        samples.click(
            take,
            [samples, picker.dropdown],
            [audio, picker.dropdown, picker.summary],
            queue=False,
            **QUIET,
        )


def _build_fields() -> dict[str, Any]:
    """Field name -> component; every number's limits come from BOUNDS."""
    fields: dict[str, Any] = {}
    with gr.Group(elem_classes="controls"):
        for name in ("prompt_s", "continuation_s", "num_continuations"):
            fields[name] = slider(name)
        fields["seed"] = seed_field()
    with gr.Accordion("Sampling, stage by stage", open=False, elem_id="sampling"):
        for stage in STAGES:
            with gr.Group():
                gr.Markdown(f"**{stage.capitalize()} stage**", elem_classes=["stage", stage])
                for name in ("temperature", "top_k", "top_p"):
                    fields[f"{stage}_{name}"] = slider(f"{stage}_{name}")
        fields["prompt_part"] = gr.Radio(
            [("through the codec", PROMPT_PARTS[0]), ("as recorded", PROMPT_PARTS[1])],
            value=PROMPT_PARTS[0],
            label="The prompt is heard",
        )
    return fields


def _build_outcome() -> Outcome:
    live = gr.HTML("", elem_id="live")
    empty = gr.HTML(EMPTY, elem_id="empty")
    cards = [build_card(number) for number in range(1, int(BOUNDS["num_continuations"].maximum) + 1)]
    return Outcome(live, empty, cards)


def _show(controls: RunControls, outcome: Outcome, finished: Finished) -> Iterator[Updates]:
    """All cards with their players at once, then one picture after the other."""
    shown = list(zip(outcome.cards, finished.saved, strict=False))
    updates = {key: value for n, (card, saved) in enumerate(shown, 1) for key, value in card.show(n, saved).items()}
    yield {controls.status: presenters.busy_html("Drawing the spectrograms"), outcome.live: "", **updates}
    for number, (card, saved) in enumerate(shown, 1):
        figure = figures.timeline_figure(saved.continuation, finished.num_coarse_levels)
        path = figures.save(figure, finished.folder / f"continuation-{number}.png")
        alt = presenters.picture_alt(number, saved.continuation)
        yield {card.picture: gr.update(value=str(path), alt_text=alt)}


class _LiveTokens:
    """The token lanes of a run that goes on."""

    def __init__(self, component: gr.HTML) -> None:
        self._component = component
        self._started: Started | None = None
        self._lanes: figures.LiveTokens | None = None

    def take(self, event: Course) -> None:
        if isinstance(event, Started):
            self._started, options = event, event.options
            self._lanes = figures.LiveTokens(
                options.num_continuations, event.prompt_s, options.continuation_s, event.num_levels
            )
        elif isinstance(event, Chunk) and self._lanes is not None:
            self._lanes.add(event)

    def updates(self) -> Updates:
        return {} if self._lanes is None else {self._component: presenters.live_html(self._lanes)}

    def notes(self) -> list[str]:
        if self._started is None:
            return []
        found_s, asked_s = self._started.prompt_s, self._started.options.prompt_s
        if found_s > asked_s - 0.1:
            return []
        return [f"the recording has {found_s:.1f} s, so all of it is the prompt (asked for {asked_s:g} s)"]
