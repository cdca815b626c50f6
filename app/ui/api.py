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

clip = handle_file("clip.wav")
summary, files = client.predict(clip, "speech-small", [12, 4, 1], api_name="/reconstruct")
verdict = client.predict(clip, "speech-small", api_name="/detect")
print(verdict["headline"], verdict["watermark"], verdict["control"]["headline"])

# surprisal of every token, teacher forced: WAV, PNG, SVG, tokens as CSV and as safetensors, JSON
summary, files = client.predict(clip, "speech-small", api_name="/inspect")
# what each layer carries; the clip in other voices; its continuation with parts of the model left out
summary, files = client.predict(clip, "speech-small", seed=1, num_draws=2, api_name="/ladder")
summary, files = client.predict(clip, "speech-small", handle_file("voice.wav"), num_voices=3, api_name="/voices")
summary, files = client.predict(clip, "speech-small", continuation_s=5, api_name="/ablate")
print(summary["versions"][0]["label"], files[0])

job = client.submit(audio=handle_file("prompt.wav"), checkpoint="speech-small", api_name="/continue")
for summary, files in job:  # {"status": "running", "stage": "coarse", "done": 120, "total": 250, ...}
    print(summary)
# job.cancel() stops a run that still goes on
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import presenters
from app.inspect_presenters import compared_row, inspected_row
from app.results import Compared, Course, Finished, Inspected, Judged, Reconstructed
from app.schemas import (
    ABLATE_FIELDS,
    BOUNDS,
    CONTINUE_FIELDS,
    FINE_DECODERS,
    LADDER_FIELDS,
    MAX_CLIP_S,
    PROMPT_PARTS,
    RECONSTRUCTION_LEVELS,
    SAMPLING_BOUNDS,
    STAGES,
    VOICES_FIELDS,
    AblateRequest,
    CheckpointChoice,
    ClipRequest,
    ContinueRequest,
    LadderRequest,
    VoicesRequest,
    checked_levels,
)
from app.service import Service
from app.ui.media import uploaded_audio
from app.ui.plain import MODEL_EVENTS, plain_errors
from app.verdict_presenters import judged_row
from audiolm.events import Chunk, Sound

EXAMPLE = (__doc__ or "").partition("\n\n")[2].strip()
"""The example above, for the page."""

CONTINUE = (
    "Continues the start of a recording. Yields progress as {status: running, ...}; the last value is "
    "{status: done, checkpoint, seconds, continuations: [{verdict, watermark, receipt, ...}]} and, for each "
    "continuation, four files: WAV, WAV of the continuation alone, tokens (safetensors), receipt (JSON). A verdict is "
    "on what was generated, its times count from there, and segments at times below 0 are the prompt's. All of it is "
    "generated audio and labelled so."
)
RECONSTRUCT = (
    f"The first {MAX_CLIP_S:g} s of a recording through the codec from its first k quantizer levels: a summary, then "
    "the original at 16 kHz and one WAV for each number of levels, most levels first."
)
DETECT = (
    f"The detector's verdict on the first {MAX_CLIP_S:g} s of a recording: label and probability (or the reason why "
    "they are withheld), threshold, error rates with their counts, the model's hash, what it holds for (`scope`), the "
    "score over time with the likely boundary, saliency by band and time. Beside it whether a watermark was found, the "
    "receipt in the file, and, as `control`, the verdict on the same through the codec."
)
INSPECT = (
    f"The first {MAX_CLIP_S:g} s of a recording as the checkpoint hears it: surprisal, entropy and rank of every token "
    "(teacher forced), with the five likeliest. A summary in numbers, then six files: WAV, timeline as PNG and SVG, "
    "tokens as CSV and safetensors, numbers as JSON."
)
VERSIONS = "A summary with {versions: [{label, generated, receipt, ...}]}, then one WAV for each version."
LADDER = (
    f"The first {MAX_CLIP_S:g} s of a recording from 12 codec levels down to 1, then from its semantic tokens alone; "
    f"at equal loudness. {VERSIONS}"
)
VOICES = (
    f"The semantic tokens of the first {MAX_CLIP_S:g} s of a recording in other voices: the model's own, or that of "
    f"the start of `voice`; at equal loudness, with speaker similarity where it can be measured. {VERSIONS}"
)
ABLATE = (
    "The start of a recording continued by the whole model, without its fine stage, without its semantic stage, and "
    f"with shuffled semantic tokens, all with one seed. {VERSIONS}"
)
CHECKPOINTS = "The checkpoints offered by this server: name, domain, summary, hash, components with theirs."


def optional(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method whose **fields take these names too; Gradio's clients may leave out what the signature gives None."""

    def declared(method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)
        more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
        *first, fields = signature.parameters.values()
        method.__signature__ = signature.replace(parameters=[*first, *more, fields])
        return method

    return declared


class Endpoints:
    """What the endpoints do: the service's events as JSON values and file paths."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @optional(*SAMPLING_BOUNDS)
    def continue_prompt(
        self, audio: str | None, checkpoint: str, prompt_part: str, fine_decoder: str, **fields: Any
    ) -> Iterator[tuple[Any, Any]]:
        def events() -> Iterator[Any]:
            choice = CheckpointChoice.parse(checkpoint)
            own = self._service.offer.describe(choice).sampling
            request = ContinueRequest.from_fields(audio, choice, fields, prompt_part, own, fine_decoder)
            return self._service.continue_prompt(request)

        def answer(done: Finished) -> tuple[Any, Any]:
            row = presenters.finished_row(done)
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
            return judged_row(done), None

        with closing(
            _answers(audio, lambda: self._service.detect(ClipRequest.of(audio, checkpoint)), answer)
        ) as answers:
            for row, _ in answers:
                yield row

    def inspect(self, audio: str | None, checkpoint: str) -> Iterator[tuple[Any, Any]]:
        def answer(done: Inspected) -> tuple[Any, Any]:
            return inspected_row(done), [str(path) for path in done.files.paths]

        yield from _answers(audio, lambda: self._service.inspect(ClipRequest.of(audio, checkpoint)), answer)

    def ladder(self, audio: str | None, checkpoint: str, **fields: Any) -> Iterator[tuple[Any, Any]]:
        def events() -> Iterator[Any]:
            return self._service.ladder(LadderRequest.from_fields(ClipRequest.of(audio, checkpoint), fields))

        yield from _answers(audio, events, _versions)

    def voices(
        self, audio: str | None, checkpoint: str, voice: str | None = None, **fields: Any
    ) -> Iterator[tuple[Any, Any]]:
        def events() -> Iterator[Any]:
            return self._service.voices(VoicesRequest.from_fields(ClipRequest.of(audio, checkpoint), voice, fields))

        yield from _answers(audio, events, _versions)

    def ablate(self, audio: str | None, checkpoint: str, **fields: Any) -> Iterator[tuple[Any, Any]]:
        def events() -> Iterator[Any]:
            return self._service.ablate(AblateRequest.from_fields(ClipRequest.of(audio, checkpoint), fields))

        yield from _answers(audio, events, _versions)

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
            elif not isinstance(event, Chunk | Sound):
                yield presenters.event_row(event), None


def _versions(done: Compared) -> tuple[Any, Any]:
    return compared_row(done), [str(version.audio) for version in done.versions]


def add_endpoints(service: Service) -> None:
    """Adds all endpoints, by their names. Their inputs and outputs are on no screen."""
    names = service.offer.names()
    with gr.Column(visible=False):
        audio, voice = uploaded_audio("Recording"), uploaded_audio("Voice to follow, or nothing")
        checkpoint = gr.Textbox(names[0] if names else "", label="Checkpoint: name, folder or org/name@revision")
        numbers = {name: gr.Number(_default(name), label=_label(name)) for name in BOUNDS}
        prompt_part = gr.Textbox(PROMPT_PARTS[0], label=f"The prompt is heard as: {' or '.join(PROMPT_PARTS)}")
        fine_decoder = gr.Textbox(FINE_DECODERS[0], label=f"The fine stage is {' or '.join(FINE_DECODERS)}")
        levels = gr.JSON(list(RECONSTRUCTION_LEVELS), label="Numbers of quantizer levels")
        summary, files = gr.JSON(label="Summary"), gr.File(file_count="multiple", label="Files")
        trigger = gr.Button()
    calls = Endpoints(service)
    endpoints = (
        ("continue", CONTINUE, calls.continue_prompt, [prompt_part, fine_decoder], CONTINUE_FIELDS),
        ("reconstruct", RECONSTRUCT, calls.reconstruct, [levels], ()),
        ("inspect", INSPECT, calls.inspect, [], ()),
        ("ladder", LADDER, calls.ladder, [], LADDER_FIELDS),
        ("voices", VOICES, calls.voices, [voice], VOICES_FIELDS),
        ("ablate", ABLATE, calls.ablate, [], ABLATE_FIELDS),
    )
    for name, description, call, others, fields in endpoints:
        trigger.click(
            call,
            [audio, checkpoint, *others],
            [summary, files],
            inputs_kwargs={field: numbers[field] for field in fields},
            api_name=name,
            api_description=description,
            **MODEL_EVENTS,
        )
    trigger.click(calls.detect, [audio, checkpoint], summary, api_name="detect", api_description=DETECT, **MODEL_EVENTS)
    trigger.click(calls.checkpoints, None, summary, api_name="checkpoints", api_description=CHECKPOINTS, queue=False)


def _default(name: str) -> float | None:
    """None where the default is the checkpoint's own."""
    return None if name in SAMPLING_BOUNDS else BOUNDS[name].default


def _label(name: str) -> str:
    """A field's name and limits, for the API's own documentation."""
    bound = BOUNDS[name]
    stage = f"{name.partition('_')[0]} " if name.partition("_")[0] in STAGES else ""
    unit = f" {bound.unit}" if bound.unit else ""
    own = " (the checkpoint's own by default)" if name in SAMPLING_BOUNDS else ""
    return f"{stage}{bound.label.lower()}, {bound.minimum:g} to {bound.maximum:.0f}{unit}{own}"
