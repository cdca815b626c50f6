"""A run in the page: buttons that start and stop it, a line that says how it goes, its result or why there is none.

Every tab that runs a model does it through `build_run_controls`, `wire` and `follow`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import gradio as gr
from gradio.events import Dependency

from app import presenters
from app.results import Course, Loading, Started, Waiting
from app.ui.plain import MODEL_EVENTS, NOT_TAKEN, QUIET, refusal
from audiolm.events import Progress

SHOW_EVERY_S = 0.45
STOP, STOPPING = "Stop", "Stopping…"
STOPPED = "Stopped. Your inputs are as they were."

Updates = dict[Any, Any]
"""Component -> its new value."""


class Live(Protocol):
    """What a tab shows of a run besides the status line."""

    def take(self, event: Course) -> bool:
        """Whether it must be shown at once."""

    def updates(self) -> Updates:
        """What has changed."""


@dataclass(frozen=True)
class RunControls:
    """Start and Stop, of which one can be pressed at a time, and the status line."""

    start: gr.Button
    stop: gr.Button
    status: gr.HTML

    def components(self) -> list[Any]:
        return [self.start, self.stop, self.status]

    def busy(self, status: str) -> Updates:
        return {
            self.start: gr.update(interactive=False),
            self.stop: gr.update(value=STOP, interactive=True),
            self.status: status,
        }

    def at_rest(self, status: str) -> Updates:
        return {
            self.start: gr.update(interactive=True),
            self.stop: gr.update(value=STOP, interactive=False),
            self.status: status,
        }


def build_run_controls(label: str, elem_id: str) -> RunControls:
    """Buttons `elem_id` and `elem_id`-stop beside each other, and under them the line `elem_id`-status."""
    with gr.Row(elem_classes="actions"):
        start = gr.Button(label, variant="primary", elem_id=elem_id, size="lg")
        stop = gr.Button(STOP, variant="stop", interactive=False, elem_id=f"{elem_id}-stop", size="lg")
    return RunControls(start, stop, gr.HTML("", elem_id=f"{elem_id}-status"))


def wire(
    controls: RunControls,
    run: Callable[..., Iterator[Updates]],
    inputs: list[Any],
    outputs: list[Any],
    after: Sequence[Dependency] = (),
    emptied: Sequence[Any] = (),
) -> None:
    """Start, or the end of one of the events `after`, begins `run`; Stop cancels it. Until the run has ended, Stop's
    label says that it was pressed. `outputs` are what `run` updates besides the controls; those `emptied` show nothing
    once it was stopped."""
    runs = []
    for begin in (controls.start.click, *(event.then for event in after)):
        begun = begin(
            lambda: controls.busy(presenters.busy_html("Waiting for a turn")),
            None,
            controls.components(),
            queue=False,
            **QUIET,
        )
        runs.append(begun.then(run, inputs, [*controls.components(), *outputs], **QUIET, **MODEL_EVENTS))
    controls.stop.click(
        None,
        None,
        controls.stop,
        js=f"() => ({{ __type__: 'update', value: '{STOPPING}', interactive: false }})",
        cancels=runs,
        **QUIET,
    )
    # Gradio counts a cancelled run as a failed one, once the server has really let go of it.
    for running in runs:
        running.failure(
            lambda label: {**controls.at_rest(ended(stopped=label == STOPPING)), **dict.fromkeys(emptied)},
            controls.stop,
            [*controls.components(), *emptied],
            queue=False,
            **QUIET,
        )


def ended(stopped: bool) -> str:
    """What to say of a run that ended outside `follow`: at the visitor's wish, or refused by Gradio itself."""
    return presenters.notice_html(STOPPED, "stopped") if stopped else presenters.notice_html(NOT_TAKEN, "error")


def follow(
    controls: RunControls,
    events: Callable[[], Iterator[Any]],
    on_result: Callable[[Any], Generator[Updates, None, str]],
    cleared: Updates,
    live: Live | None = None,
    audio: str | None = None,
    stages: Sequence[str] = (),
) -> Iterator[Updates]:
    """One run as page updates; several a second, so that Stop is never far away.

    `events` checks what is asked for and begins the run; only then are the results of the run before `cleared`.
    `on_result` yields updates that show the result and returns the last line. Whatever is raised is refused in the
    page; `audio` is the upload whose place on the server the refusal leaves out. `stages` are the run's, in order.

    Every update repeats what the ones before showed. Gradio sends differences, and its client works them into the very
    object that the page was given: where a component is left out, its value is taken from a page too busy to have
    shown it yet. What is repeated is sent again with the last message alone.
    """
    shown: Updates = {}
    with closing(_updates(controls, events, on_result, cleared, live, audio, stages)) as updates:
        for update in updates:
            shown.update(update)
            yield dict(shown)


def _updates(
    controls: RunControls,
    events: Callable[[], Iterator[Any]],
    on_result: Callable[[Any], Generator[Updates, None, str]],
    cleared: Updates,
    live: Live | None,
    audio: str | None,
    stages: Sequence[str],
) -> Generator[Updates]:
    """What changes with each update of `follow`."""
    status = _Status(stages)
    try:
        with closing(events()) as run:
            yield {controls.status: presenters.busy_html("Starting"), **cleared}
            for event in run:
                if isinstance(event, Course):
                    status.take(event)
                    at_once = live is not None and live.take(event)
                    if at_once or status.due():
                        yield {controls.status: status.html(), **(live.updates() if live else {})}
                else:
                    done = yield from on_result(event)
                    yield controls.at_rest(presenters.notice_html(done, "done"))
    except Exception as error:
        yield controls.at_rest(refusal(error, audio))


class _Status:
    """The status line of a run that goes on."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._stages = stages
        self._began = time.monotonic()
        self._shown = 0.0
        self._text = "Starting"
        self._going: dict[str, Progress] = {}  # stages that overlap
        self._progress: Progress | None = None

    def take(self, event: Course) -> None:
        if isinstance(event, Progress):
            self._going[event.stage] = event
            if event.done >= event.total:
                del self._going[event.stage]
            self._progress = min(self._going.values(), key=self._place, default=event)
        elif isinstance(event, Loading | Started) or (isinstance(event, Waiting) and event.ahead):
            self._text, self._progress = presenters.event_text(event), None
            self._going.clear()
        elif isinstance(event, Waiting) and event.again:
            self._text = presenters.event_text(event)

    def _place(self, progress: Progress) -> int:
        """Of those that go on at once the first in the run's order is shown."""
        return self._stages.index(progress.stage) if progress.stage in self._stages else 0

    def due(self) -> bool:
        """True about twice a second."""
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY_S:
            return False
        self._shown = now
        return True

    def html(self) -> str:
        elapsed_s = time.monotonic() - self._began
        if self._progress is None:
            return presenters.busy_html(self._text, elapsed_s)
        return presenters.progress_html(self._progress, elapsed_s, self._stages)
