"""The page's main tab: a prompt in, continuations out, with their tokens, pictures, score and receipt."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import figures, presenters
from app.dictionary import OpenClip
from app.results import Course, Finished, Started
from app.schemas import BOUNDS, FINE_DECODERS, PROMPT_PARTS, STAGES, CheckpointChoice, ContinueRequest
from app.service import Service
from app.ui.cards import Card, build_card
from app.ui.controls import seed_field, slider
from app.ui.examples import build_examples
from app.ui.media import uploaded_audio
from app.ui.picker import Picker
from app.ui.plain import QUIET
from app.ui.runner import RunControls, Updates, build_run_controls, follow, wire
from app.ui.stream import Stream, stream_view
from audiolm.events import Chunk, Sound
from audiolm.inspection.figures import save, timeline_figure

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
  <p>Each continuation comes with a timeline to play and to read: spectrogram, a gray line where your
    prompt ends, <span class="key semantic">semantic</span> <span class="key coarse">coarse</span> and
    <span class="key fine">fine</span> tokens, the detector's score. And with a receipt that makes it again.</p>
</div>
"""


@dataclass(frozen=True)
class Outcome:
    """Everything on the right-hand side of the tab besides the run's controls. `kept` are the cards' OpenClips."""

    stream: gr.HTML
    live: gr.HTML
    empty: gr.HTML
    cards: list[Card]
    kept: gr.State

    def components(self) -> list[Any]:
        cards = [component for card in self.cards for component in card.components()]
        return [self.stream, self.live, self.empty, *cards, self.kept]

    def cleared(self) -> Updates:
        hidden = {key: value for card in self.cards for key, value in card.hide().items()}
        return {self.stream: None, self.live: "", self.empty: "", **hidden}


def build_continue_tab(service: Service, picker: Picker) -> Outcome:
    """Called inside the tab."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            audio = uploaded_audio("Prompt", "prompt")
            build_examples(service, audio, picker)
            gr.Markdown(MICROPHONE_NOTE, elem_classes="note")
            fields = _build_fields(service, picker)
        with gr.Column(scale=7, min_width=320):
            controls = build_run_controls("Generate", "generate")
            outcome = _build_outcome(service)

    parts = [fields.pop(name) for name in ("prompt_part", "fine_decoder")]
    inputs = [audio, picker.dropdown, *parts, *fields.values()]
    names = tuple(fields)

    def run(
        audio: str | None, checkpoint: str | None, prompt_part: str, fine_decoder: str, *numbers: float
    ) -> Iterator[Updates]:
        def events() -> Iterator[Any]:
            values = dict(zip(names, numbers, strict=True))
            choice = CheckpointChoice.parse(checkpoint)
            request = ContinueRequest.from_fields(audio, choice, values, prompt_part, fine_decoder=fine_decoder)
            return service.continue_prompt(request)

        live = _Live(outcome)

        def show(finished: Finished) -> Generator[Updates, None, str]:
            yield from _show(controls, outcome, finished)
            return presenters.finished_text(finished.result, finished.elapsed_s, live.notes())

        yield from follow(controls, events, show, outcome.cleared(), live, audio, presenters.CONTINUE_STAGES)

    wire(controls, run, inputs, outcome.components(), emptied=[outcome.stream])
    return outcome


def _build_fields(service: Service, picker: Picker) -> dict[str, Any]:
    """Field name -> component; every number's limits come from BOUNDS."""
    fields: dict[str, Any] = {}
    usual = service.offer.sampling(picker.dropdown.value)
    with gr.Group(elem_classes="controls"):
        for name in ("prompt_s", "continuation_s", "num_continuations"):
            fields[name] = slider(name)
        fields["seed"] = seed_field()
    with gr.Accordion("Sampling, stage by stage", open=False, elem_id="sampling"):
        for stage in STAGES:
            with gr.Group():
                gr.Markdown(f"**{stage.capitalize()} stage**", elem_classes=["stage", stage])
                for name in (f"{stage}_{setting}" for setting in ("temperature", "top_k", "top_p")):
                    fields[name] = slider(name, value=usual[name])
        fields["fine_decoder"] = gr.Radio(
            [("frame by frame", FINE_DECODERS[0]), ("in parallel", FINE_DECODERS[1])],
            value=FINE_DECODERS[0],
            label="The fine stage works",
            visible=service.offer.has_masked_decoder(picker.dropdown.value),
        )
        fields["prompt_part"] = gr.Radio(
            [("through the codec", PROMPT_PARTS[0]), ("as recorded", PROMPT_PARTS[1])],
            value=PROMPT_PARTS[0],
            label="The prompt is heard",
        )
    picker.dropdown.change(
        lambda checkpoint: [
            *service.offer.sampling(checkpoint).values(),
            gr.update(value=FINE_DECODERS[0], visible=service.offer.has_masked_decoder(checkpoint)),
        ],
        picker.dropdown,
        [*(fields[name] for name in usual), fields["fine_decoder"]],
        queue=False,
        **QUIET,
    )
    return fields


def _build_outcome(service: Service) -> Outcome:
    stream = stream_view("The continuations while they are made", "stream")
    live = gr.HTML("", elem_id="live")
    empty = gr.HTML(EMPTY, elem_id="empty")
    cards = [build_card(number) for number in range(1, int(BOUNDS["num_continuations"].maximum) + 1)]
    return Outcome(stream, live, empty, cards, gr.State((), time_to_live=service.settings.cache_age_s))


def _show(controls: RunControls, outcome: Outcome, finished: Finished) -> Iterator[Updates]:
    """All cards with their timelines at once, then one picture to download after the other."""
    shown = list(zip(outcome.cards, finished.saved, strict=False))
    updates = {key: value for n, (card, saved) in enumerate(shown, 1) for key, value in card.show(n, saved).items()}
    kept = tuple(
        OpenClip(f"Continuation {n}", finished.checkpoint, saved.timeline, saved.continuation)
        for n, saved in enumerate(finished.saved, 1)
    )
    yield {controls.status: presenters.busy_html("Drawing"), outcome.live: "", outcome.kept: kept, **updates}
    for number, (card, saved) in enumerate(shown, 1):
        path = save(timeline_figure(saved.timeline), finished.folder / f"continuation-{number}.png")
        yield {card.picture: gr.update(value=str(path), interactive=True)}


class _Live:
    """The token lanes and the sound of a run that goes on."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._started: Started | None = None
        self._lanes: figures.LiveTokens | None = None
        self._stream: Stream | None = None

    def take(self, event: Course) -> bool:
        """Sound is shown at once."""
        if isinstance(event, Started):
            self._started, options = event, event.options
            self._lanes = figures.LiveTokens(
                options.num_continuations, event.prompt_frames, event.num_frames, event.num_levels
            )
            self._stream = Stream(options.num_continuations)
        elif isinstance(event, Chunk) and self._lanes is not None:
            self._lanes.add(event)
        elif isinstance(event, Sound) and self._stream is not None:
            self._stream.add(event)
        return isinstance(event, Sound)

    def updates(self) -> Updates:
        if self._lanes is None:
            return {}
        return {
            self._outcome.live: presenters.live_html(self._lanes),
            self._outcome.stream: self._stream.value(),
        }

    def notes(self) -> list[str]:
        if self._started is None:
            return []
        found_s, asked_s = self._started.recording_s, self._started.options.prompt_s
        if found_s > asked_s - 0.1:
            return []
        return [f"the recording has {found_s:.1f} s, so all of it is the prompt (asked for {asked_s:g} s)"]
