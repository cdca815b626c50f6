"""The page's main tab: a prompt in, continuations out, with their tokens, pictures, score and receipt."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from app import figures, presenters
from app.schemas import BOUNDS, PROMPT_PARTS, STAGES, CheckpointChoice, ContinueRequest
from app.service import Finished, Loading, SavedContinuation, Service, ServiceEvent, Started, Waiting
from app.ui.media import player, timeline, uploaded_audio
from app.ui.picker import Picker, describe
from app.ui.plain import MODEL_EVENTS, NOT_TAKEN, QUIET, refusal
from audiolm.events import Chunk, Progress

PICTURE_EVERY_S = 0.45
NEW_SEED_BELOW = 2**31
STOP, STOPPING = "Stop", "Stopping…"
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


@dataclass(frozen=True)
class Outcome:
    """Everything on the right-hand side of the tab."""

    generate: gr.Button
    stop: gr.Button
    status: gr.HTML
    live: gr.HTML
    empty: gr.HTML
    cards: list[Card]

    def components(self) -> list[Any]:
        own = [self.generate, self.stop, self.status, self.live, self.empty]
        return [*own, *(component for card in self.cards for component in card.components())]

    def busy(self, status: str) -> dict[Any, Any]:
        return {
            self.generate: gr.update(interactive=False),
            self.stop: gr.update(value=STOP, interactive=True),
            self.status: status,
        }

    def at_rest(self, status: str | None = None) -> dict[Any, Any]:
        update = {self.generate: gr.update(interactive=True), self.stop: gr.update(value=STOP, interactive=False)}
        return update if status is None else {**update, self.status: status}


def build_continue_tab(service: Service, picker: Picker) -> None:
    """Called inside the tab."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            audio = uploaded_audio("Prompt", "prompt")
            _build_examples(service, audio, picker)
            gr.Markdown(MICROPHONE_NOTE, elem_classes="note")
            controls = _build_controls()
        with gr.Column(scale=7, min_width=320):
            outcome = _build_outcome()

    inputs = [audio, picker.dropdown, controls.pop("prompt_part"), *controls.values()]
    names = tuple(controls)

    def run(audio: str | None, checkpoint: str | None, prompt_part: str, *numbers: float) -> Iterator[dict[Any, Any]]:
        values = dict(zip(names, numbers, strict=True))
        yield from _run(service, outcome, audio, checkpoint, prompt_part, values)

    _wire(outcome, run, inputs)


def _wire(outcome: Outcome, run: Callable[..., Iterator[dict[Any, Any]]], inputs: list[Any]) -> None:
    """Generate starts a run, Stop cancels it. Until the run has ended, Stop's label says that it was pressed."""
    started = outcome.generate.click(
        lambda: outcome.busy(presenters.busy_html("Waiting for a turn")),
        None,
        [outcome.generate, outcome.stop, outcome.status],
        queue=False,
        **QUIET,
    )
    running = started.then(run, inputs, outcome.components(), **QUIET, **MODEL_EVENTS)
    outcome.stop.click(
        None,
        None,
        outcome.stop,
        js=f"() => ({{ __type__: 'update', value: '{STOPPING}', interactive: false }})",
        cancels=[running],
        **QUIET,
    )
    # Gradio counts a cancelled run as a failed one, once the server has really let go of it.
    running.failure(
        lambda label: outcome.at_rest(_ended(stopped=label == STOPPING)),
        outcome.stop,
        [outcome.generate, outcome.stop, outcome.status],
        queue=False,
        **QUIET,
    )


def _ended(stopped: bool) -> str:
    """What to say of a run that ended outside `_run`: at the visitor's wish, or refused by Gradio itself."""
    if stopped:
        return presenters.notice_html("Stopped. Your inputs are as they were.", "stopped")
    return presenters.notice_html(NOT_TAKEN, "error")


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
            fitting = service.fitting(domain, checkpoint)
            return str(paths[index]), fitting, describe(service, fitting)

        samples.click(
            take,
            [samples, picker.dropdown],
            [audio, picker.dropdown, picker.summary],
            queue=False,
            **QUIET,
        )


def _build_controls() -> dict[str, Any]:
    """Field name -> component; every number's limits come from BOUNDS."""
    controls: dict[str, Any] = {}
    with gr.Group(elem_classes="controls"):
        for name in ("prompt_s", "continuation_s", "num_continuations"):
            controls[name] = slider(name)
        with gr.Row(elem_classes="seed"):
            bound = BOUNDS["seed"]
            controls["seed"] = gr.Number(
                bound.default,
                label=bound.label,
                info=bound.info,
                precision=0,  # no limits here: `Bound` refuses in the page, Gradio only in a toast
                elem_id="seed",
                scale=3,
            )
            new_seed = gr.Button("New seed", elem_id="new-seed", scale=1, min_width=110)
    with gr.Accordion("Sampling, stage by stage", open=False, elem_id="sampling"):
        for stage in STAGES:
            with gr.Group():
                gr.Markdown(f"**{stage.capitalize()} stage**", elem_classes=["stage", stage])
                for name in ("temperature", "top_k", "top_p"):
                    controls[f"{stage}_{name}"] = slider(f"{stage}_{name}")
        controls["prompt_part"] = gr.Radio(
            [("through the codec", PROMPT_PARTS[0]), ("as recorded", PROMPT_PARTS[1])],
            value=PROMPT_PARTS[0],
            label="The prompt is heard",
        )
    new_seed.click(
        lambda: secrets.randbelow(NEW_SEED_BELOW),
        None,
        controls["seed"],
        queue=False,
        **QUIET,
    )
    return controls


def slider(name: str) -> gr.Slider:
    """A slider with the limits of BOUNDS[name]."""
    bound = BOUNDS[name]
    return gr.Slider(
        bound.minimum,
        bound.maximum,
        value=bound.default,
        step=bound.step,
        label=f"{bound.label} ({bound.unit})" if bound.unit else bound.label,
        info=bound.info or None,
        precision=0 if bound.whole else None,
        elem_id=name.replace("_", "-"),
        buttons=[],
    )


def _build_outcome() -> Outcome:
    with gr.Row(elem_classes="actions"):
        generate = gr.Button("Generate", variant="primary", elem_id="generate", size="lg")
        stop = gr.Button(STOP, variant="stop", interactive=False, elem_id="stop", size="lg")
    status = gr.HTML("", elem_id="status")
    live = gr.HTML("", elem_id="live")
    empty = gr.HTML(EMPTY, elem_id="empty")
    cards = [_build_card(number) for number in range(1, int(BOUNDS["num_continuations"].maximum) + 1)]
    return Outcome(generate, stop, status, live, empty, cards)


def _build_card(number: int) -> Card:
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


def _run(
    service: Service,
    outcome: Outcome,
    audio: str | None,
    checkpoint: str | None,
    prompt_part: str,
    values: dict[str, float],
) -> Iterator[dict[Any, Any]]:
    """One run as page updates; several a second, so that Stop is never far away."""
    try:
        request = ContinueRequest.from_fields(audio, CheckpointChoice.parse(checkpoint), values, prompt_part)
        hidden = {key: value for card in outcome.cards for key, value in card.hide().items()}
        yield {outcome.status: presenters.busy_html("Starting"), **hidden, outcome.live: "", outcome.empty: ""}
        view = _RunView(request)
        with closing(service.continue_prompt(request)) as events:
            for event in events:
                if isinstance(event, Finished):
                    yield from _show(outcome, event, view)
                else:
                    view.take(event)
                    if view.due():
                        yield {outcome.status: view.status_html(), outcome.live: view.live_html()}
    except Exception as error:
        yield outcome.at_rest(refusal(error, audio))


def _show(outcome: Outcome, finished: Finished, view: _RunView) -> Iterator[dict[Any, Any]]:
    """All cards with their players at once, then one picture after the other, then the last line."""
    shown = list(zip(outcome.cards, finished.saved, strict=False))
    updates = {key: value for n, (card, saved) in enumerate(shown, 1) for key, value in card.show(n, saved).items()}
    yield {outcome.status: presenters.busy_html("Drawing the spectrograms"), outcome.live: "", **updates}
    for number, (card, saved) in enumerate(shown, 1):
        figure = figures.timeline_figure(saved.continuation, finished.num_coarse_levels)
        path = figures.save(figure, finished.folder / f"continuation-{number}.png")
        alt = presenters.picture_alt(number, saved.continuation)
        yield {card.picture: gr.update(value=str(path), alt_text=alt)}
    text = presenters.finished_text(finished.result, finished.elapsed_s, view.notes())
    yield outcome.at_rest(presenters.notice_html(text, "done"))


class _RunView:
    """What the page shows of a run that goes on."""

    def __init__(self, request: ContinueRequest) -> None:
        self._request = request
        self._began = time.monotonic()
        self._shown = 0.0
        self._status = "Starting"
        self._progress: Progress | None = None
        self._live: figures.LiveTokens | None = None
        self._prompt_s: float | None = None

    def take(self, event: ServiceEvent) -> None:
        if isinstance(event, Waiting) and event.for_device:
            self._status = "Waiting for the run before this one"
        elif isinstance(event, Loading):
            self._status = f"Loading {event.checkpoint}"
        elif isinstance(event, Started):
            self._status = presenters.STAGE_NAMES["encode"]
            options = self._request.options
            self._prompt_s = event.prompt_s
            self._live = figures.LiveTokens(
                options.num_continuations, event.prompt_s, options.continuation_s, event.num_levels
            )
        elif isinstance(event, Progress):
            self._progress = event
        elif isinstance(event, Chunk) and self._live is not None:
            self._live.add(event)

    def due(self) -> bool:
        """True about twice a second."""
        now = time.monotonic()
        if now - self._shown < PICTURE_EVERY_S:
            return False
        self._shown = now
        return True

    def status_html(self) -> str:
        elapsed_s = time.monotonic() - self._began
        if self._progress is None:
            return presenters.busy_html(self._status, elapsed_s)
        return presenters.progress_html(self._progress, elapsed_s)

    def live_html(self) -> str:
        return "" if self._live is None else presenters.live_html(self._live)

    def notes(self) -> list[str]:
        asked = self._request.options.prompt_s
        if self._prompt_s is None or self._prompt_s > asked - 0.1:
            return []
        return [f"the recording has {self._prompt_s:.1f} s, so all of it is the prompt (asked for {asked:g} s)"]
