"""A listening study, made from recordings and the checkpoint's continuations of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.schemas import BOUNDS, STUDY_FIELDS, checked
from app.service import Service
from app.study.amendments import Amendments, amended, checked_amendments
from app.study.clips import Rendered
from app.study.definition import Study
from app.study.errors import StudyError
from app.study.preflight import preflight
from app.study.presets import PRESETS
from app.study.recipe import Recipe
from app.study_presenters import (
    CODE_LABELS,
    owner_path,
    participant_path,
    platform_path,
    preflight_html,
    preset_html,
    studies_html,
)
from app.ui.controls import seed_field, slider
from app.ui.media import uploaded_recordings
from app.ui.picker import Picker
from app.ui.plain import QUIET
from app.ui.runner import Updates, build_run_controls, follow, wire

EMPTY = """
<div class="empty">
  <ol>
    <li><strong>Give recordings</strong> At least two, each as long as a clip. The last ones are for practice.</li>
    <li><strong>Choose</strong> a protocol: what is compared, and what listeners are asked.</li>
    <li><strong>Make the study</strong> The checkpoint picked above makes the clips, equal in length and loudness.</li>
  </ol>
  <p>You get a link for participants, and a secret one for yourself with the results as they come in. Answers stay on
    this machine. Listeners give their consent first, can withdraw, and never learn which clip is which.</p>
</div>
"""
ELSEWHERE = (
    "This page is open to other machines, so studies are not made here. Make them on the command line, with "
    "`python -m app.study new`, or start the app with `--studies-in-page`. Those that exist are served all the same."
)
RIGHTS = "Play to others only what you may play to others."


@dataclass(frozen=True)
class Links:
    """The addresses of a new study, and what was checked."""

    participant: gr.Textbox
    platform: gr.Textbox
    owner: gr.Textbox
    empty: gr.HTML
    report: gr.HTML
    kept: gr.HTML

    def components(self) -> list[Any]:
        return [self.participant, self.platform, self.owner, self.empty, self.report, self.kept]

    def cleared(self) -> Updates:
        hidden = {box: gr.update(value="", visible=False) for box in (self.participant, self.platform, self.owner)}
        return {**hidden, self.report: "", self.empty: ""}


def build_study_tab(service: Service, picker: Picker, tab: gr.Tab) -> None:
    """Called inside the tab."""
    if not service.settings.studies_in_page:
        gr.Markdown(ELSEWHERE, elem_classes="note")
        return
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            preset = gr.Dropdown(
                [(preset.label, name) for name, preset in PRESETS.items()],
                value=next(iter(PRESETS)),
                label="Protocol",
                elem_id="study-preset",
                filterable=False,
            )
            summary = gr.HTML(preset_html(PRESETS[preset.value]), elem_classes="note")
            recordings = uploaded_recordings("Recordings", "study-recordings")
            gr.Markdown(RIGHTS, elem_classes="note")
            numbers = _build_numbers()
            words = _build_words()
        with gr.Column(scale=6, min_width=320):
            controls = build_run_controls("Make the study", "study")
            links = _build_links(service)
    _follow_preset(preset, summary, numbers, words)
    tab.select(lambda: _kept(service), None, links.kept, queue=False, **QUIET)

    def run(
        request: gr.Request, recordings: list[str] | None, checkpoint: str | None, preset: str, *values: Any
    ) -> Iterator[Updates]:
        page = _page_address(request)
        fields = dict(zip(STUDY_FIELDS, values[: len(STUDY_FIELDS)], strict=True))
        amendments = _amendments(values[len(STUDY_FIELDS) :])

        def events() -> Iterator[Any]:
            checked_amendments(amendments)
            return service.make_study(_recipe(recordings, checkpoint, preset, fields))

        def show(rendered: Rendered) -> Generator[Updates, None, str]:
            study = amended(rendered.study, amendments)
            report = preflight(study, rendered.clips)
            service.library.add(study, rendered.clips, rendered.owner_token)
            shown = _addresses(links, study, rendered.owner_token, page)
            yield {**shown, links.report: preflight_html(study, report), links.kept: _kept(service)}
            return "The study is ready. Keep the results link: whoever has it owns the study."

        yield from follow(controls, events, show, links.cleared())

    wire(controls, run, [recordings, picker.dropdown, preset, *numbers.values(), *words.values()], links.components())


WORDS = (
    *(("texts", name) for name in ("title", "consent", "contact")),
    *(("codes", name) for name in ("redirect", "complete", "screened_out", "no_consent", "full")),
)
"""(part, field) of the study file that a researcher words; what is left empty is the preset's."""


def _amendments(words: Sequence[str | None]) -> Amendments:
    parts: dict[str, dict[str, str]] = {"texts": {}, "codes": {}}
    for (part, field), text in zip(WORDS, words, strict=True):
        if text and text.strip():
            parts[part][field] = text.strip()
    return parts


def _build_numbers() -> dict[str, Any]:
    """Field of STUDY_FIELDS -> component."""
    with gr.Group(elem_classes="controls"):
        sliders = {name: slider(name, "study-") for name in STUDY_FIELDS if name != "seed"}
        return {**sliders, "seed": seed_field("study-")}


def _build_words() -> dict[tuple[str, str], gr.Textbox]:
    """In the order of WORDS."""
    first = next(iter(PRESETS.values())).texts
    title = gr.Textbox(label="Title", placeholder=first.title, elem_id="study-title", max_lines=1)
    with gr.Accordion("Consent, contact and recruiting platform", open=False, elem_id="study-words"):
        consent = gr.Textbox(label="Consent", value=first.consent, lines=8, elem_id="study-consent")
        contact = gr.Textbox(label="Contact, shown on every page", max_lines=1, elem_id="study-contact")
        redirect = gr.Textbox(
            label="Where participants go back to, with {code} in it",
            placeholder="https://app.prolific.com/submissions/complete?cc={code}",
            max_lines=1,
            elem_id="study-redirect",
        )
        with gr.Row():
            codes = [
                gr.Textbox(
                    label=label, placeholder="a random one", max_lines=1, min_width=180, elem_id=f"study-code-{name}"
                )
                for name, label in CODE_LABELS.items()
            ]
    return dict(zip(WORDS, [title, consent, contact, redirect, *codes], strict=True))


def _build_links(service: Service) -> Links:
    names = {"participant": "Participants' link", "platform": "The same for Prolific", "owner": "Results link (secret)"}
    boxes = {
        name: gr.Textbox(label=label, visible=False, interactive=False, buttons=["copy"], elem_id=f"study-{name}")
        for name, label in names.items()
    }
    parts = {"empty": gr.HTML(EMPTY), "report": gr.HTML(), "kept": gr.HTML(elem_id="study-kept")}
    return Links(**boxes, **parts)


def _follow_preset(
    preset: gr.Dropdown, summary: gr.HTML, numbers: dict[str, Any], words: dict[tuple[str, str], gr.Textbox]
) -> None:
    """The lengths, numbers, summary and texts that a protocol brings."""
    followed = ("clip_s", "prompt_s", "target_sessions", "trials_per_session")

    def take(name: str) -> list[Any]:
        chosen = PRESETS[name]
        usual = {
            "clip_s": chosen.clip_s,
            "prompt_s": chosen.prompt_s,
            "target_sessions": chosen.plan.target_sessions,
            "trials_per_session": chosen.plan.trials_per_session or BOUNDS["trials_per_session"].default,
        }
        texts = [gr.update(placeholder=chosen.texts.title), chosen.texts.consent]
        return [preset_html(chosen), *(usual[field] for field in followed), *texts]

    outputs = [summary, *(numbers[field] for field in followed), words["texts", "title"], words["texts", "consent"]]
    preset.input(take, preset, outputs, queue=False, **QUIET)


def _recipe(recordings: list[str] | None, checkpoint: str | None, preset: str, fields: dict[str, Any]) -> Recipe:
    """Raises RequestError."""
    numbers = checked(fields, STUDY_FIELDS, {})
    prompts = tuple(Path(recording) for recording in recordings or ())
    return Recipe(preset, checkpoint or "", prompts, **numbers)


def _page_address(request: gr.Request) -> str:
    """To its last slash, as its browser knows it; empty for a program, which tells none.

    The origin, since no page here tells its referrer; behind a proxy the path that Gradio was given
    (`GRADIO_ROOT_PATH`), which may be a whole address.
    """
    origin = request.headers.get("origin", "null")
    path = request.request.scope["root_path"].rstrip("/")
    if "://" in path:
        return f"{path}/"
    return "" if origin == "null" else f"{origin}{path}/"


def _addresses(links: Links, study: Study, owner_token: str, page: str) -> Updates:
    paths = {
        links.participant: participant_path(study.id),
        links.platform: platform_path(study.id),
        links.owner: owner_path(study.id, owner_token),
    }
    return {box: gr.update(value=page + path, visible=True) for box, path in paths.items()}


def _kept(service: Service) -> str:
    """Every study here whose owner's secret is here too."""
    library, found = service.library, []
    for study_id in reversed(library.store.studies()):
        try:
            found.append((library.store.study(study_id), library.owner_token(study_id)))
        except StudyError:
            continue
    return studies_html(found)
