"""The named endpoints, over the same service as the page.

from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
print(client.predict(api_name="/checkpoints"))

summary, files = client.predict(
    audio=handle_file("prompt.wav"),
    checkpoint="speech-small",
    continuation_s=5,
    num_continuations=2,
    seed=3,
    api_name="/continue",
)
print(summary["continuations"][0]["verdict"])
print(files)  # for each continuation: WAV, WAV of the continuation alone, tokens, receipt

summary, files = client.predict(handle_file("prompt.wav"), "speech-small", [12, 4, 1], api_name="/reconstruct")
verdict = client.predict(handle_file("clip.wav"), "speech-small", api_name="/detect")

job = client.submit(audio=handle_file("prompt.wav"), checkpoint="speech-small", api_name="/continue")
for summary, files in job:  # {"status": "running", "stage": "coarse", "done": 120, "total": 250, ...}
    print(summary)
# job.cancel() stops a run that still goes on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import presenters
from app.results import Course, Finished, Judged, Reconstructed
from app.schemas import (
    BOUNDS,
    MAX_CLIP_S,
    PROMPT_PARTS,
    RECONSTRUCTION_LEVELS,
    STAGES,
    CheckpointChoice,
    ClipRequest,
    ContinueRequest,
    checked_levels,
)
from app.service import Service
from app.ui.media import uploaded_audio
from app.ui.plain import MODEL_EVENTS, plain_errors
from audiolm.events import Chunk

EXAMPLE = (__doc__ or "").partition("\n\n")[2].strip()
"""The example above, for the page."""

CONTINUE = (
    "Continues the start of a recording. Yields progress as {status: running, ...}; the last value is "
    "{status: done, checkpoint, seconds, continuations: [{verdict, receipt, ...}]} and, for each continuation, four "
    "files: WAV, WAV of the continuation alone, tokens (safetensors), receipt (JSON). All of it is generated "
    "audio and labelled so."
)
RECONSTRUCT = (
    f"The first {MAX_CLIP_S:g} s of a recording through the codec from its first k quantizer levels: a summary, then "
    "the original at 16 kHz and one WAV for each number of levels, most levels first."
)
DETECT = (
    f"The detector's verdict on the first {MAX_CLIP_S:g} s of a recording, with its threshold, its error rates and, "
    "under checkpoint, its hash. It holds only for audio of the checkpoint, as `scope` says."
)
CHECKPOINTS = "The checkpoints offered by this server: name, domain, summary, hash, components with theirs."


class Endpoints:
    """What the endpoints do: the service's events as JSON values and file paths."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def continue_prompt(
        self, audio: str | None, checkpoint: str, prompt_part: str, **fields: Any
    ) -> Iterator[tuple[Any, Any]]:
        def events() -> Iterator[Any]:
            choice = CheckpointChoice.parse(checkpoint)
            return self._service.continue_prompt(ContinueRequest.from_fields(audio, choice, fields, prompt_part))

        def answer(done: Finished) -> tuple[Any, Any]:
            row = presenters.finished_row(done.checkpoint, done.result, done.elapsed_s)
            return row, [str(path) for saved in done.saved for path in saved.paths]

        yield from _answers(audio, events, answer)

    def reconstruct(self, audio: str | None, checkpoint: str, levels: Any) -> Iterator[tuple[Any, Any]]:
        def answer(done: Reconstructed) -> tuple[Any, Any]:
            row = {"checkpoint": presenters.checkpoint_row(done.checkpoint), "levels": list(done.by_levels)}
            return row, [str(done.original), *(str(path) for path in done.by_levels.values())]

        def events() -> Iterator[Any]:
            return self._service.reconstruct(ClipRequest.of(audio, checkpoint), checked_levels(levels))

        yield from _answers(audio, events, answer)

    def detect(self, audio: str | None, checkpoint: str) -> Iterator[Any]:
        def answer(done: Judged) -> tuple[Any, None]:
            return {"checkpoint": presenters.checkpoint_row(done.checkpoint), **done.verdict.to_dict()}, None

        with closing(
            _answers(audio, lambda: self._service.detect(ClipRequest.of(audio, checkpoint)), answer)
        ) as answers:
            for row, _ in answers:
                yield row

    def checkpoints(self) -> list[dict[str, Any]]:
        return [presenters.checkpoint_row(info) for info in self._service.offer.infos()]


def _answers(
    audio: str | None, events: Callable[[], Iterator[Any]], answer: Callable[[Any], tuple[Any, Any]]
) -> Iterator[tuple[Any, Any]]:
    """(row, files) of a run: its course as {status: running, ...} without files, at last its result's `answer`."""
    with plain_errors(audio), closing(events()) as run:
        for event in run:
            if not isinstance(event, Course):
                yield answer(event)
            elif not isinstance(event, Chunk):
                yield presenters.event_row(event), None


def add_endpoints(service: Service) -> None:
    """Adds /continue, /reconstruct, /detect and /checkpoints. Their inputs and outputs are on no screen."""
    names = service.offer.names()
    with gr.Column(visible=False):
        audio = uploaded_audio("Recording")
        checkpoint = gr.Textbox(names[0] if names else "", label="Checkpoint: name, folder or org/name@revision")
        numbers = {name: gr.Number(bound.default, label=_label(name)) for name, bound in BOUNDS.items()}
        prompt_part = gr.Textbox(PROMPT_PARTS[0], label=f"The prompt is heard as: {' or '.join(PROMPT_PARTS)}")
        levels = gr.JSON(list(RECONSTRUCTION_LEVELS), label="Numbers of quantizer levels")
        summary, files = gr.JSON(label="Summary"), gr.File(file_count="multiple", label="Files")
        trigger = gr.Button()
    calls = Endpoints(service)
    trigger.click(
        calls.continue_prompt,
        [audio, checkpoint, prompt_part],
        [summary, files],
        inputs_kwargs=numbers,
        api_name="continue",
        api_description=CONTINUE,
        **MODEL_EVENTS,
    )
    trigger.click(
        calls.reconstruct,
        [audio, checkpoint, levels],
        [summary, files],
        api_name="reconstruct",
        api_description=RECONSTRUCT,
        **MODEL_EVENTS,
    )
    trigger.click(calls.detect, [audio, checkpoint], summary, api_name="detect", api_description=DETECT, **MODEL_EVENTS)
    trigger.click(calls.checkpoints, None, summary, api_name="checkpoints", api_description=CHECKPOINTS, queue=False)


def _label(name: str) -> str:
    """A field's name and limits, for the API's own documentation."""
    bound = BOUNDS[name]
    stage = f"{name.partition('_')[0]} " if name.partition("_")[0] in STAGES else ""
    unit = f" {bound.unit}" if bound.unit else ""
    return f"{stage}{bound.label.lower()}, {bound.minimum:g} to {bound.maximum:.0f}{unit}"
