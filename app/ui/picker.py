"""The checkpoint picker: one for the whole page."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.presenters import checkpoint_html, notice_html
from app.schemas import CheckpointChoice
from app.service import Service
from app.ui.plain import QUIET, plain_errors


@dataclass(frozen=True)
class Picker:
    """The dropdown holds `CheckpointChoice.parse`-able text; `summary` says what was picked."""

    dropdown: gr.Dropdown
    summary: gr.HTML


def build_picker(service: Service) -> Picker:
    """Dropdown, summary and, where the settings allow it, fields for a folder or Hub id."""
    names = service.offer.names()
    dropdown = gr.Dropdown(
        choices=names,
        value=names[0] if names else None,
        label="Checkpoint",
        elem_id="checkpoint",
        filterable=False,
    )
    summary = gr.HTML(describe(service, names[0] if names else None), elem_id="checkpoint-summary")
    dropdown.input(
        lambda name: describe(service, name),
        dropdown,
        summary,
        queue=False,
        **QUIET,
    )
    if service.settings.other_checkpoints:
        _other_checkpoint(service, dropdown, summary)
    return Picker(dropdown, summary)


def describe(service: Service, name: str | None) -> str:
    """The summary under the picker."""
    if not name:
        return notice_html("No checkpoint is offered here: start the app with --checkpoints FOLDER.", "error")
    with plain_errors():
        return checkpoint_html(service.offer.describe(CheckpointChoice.parse(name)))


def _other_checkpoint(service: Service, dropdown: gr.Dropdown, summary: gr.HTML) -> None:
    with gr.Accordion("Another checkpoint", open=False, elem_id="other-checkpoint"):
        source = gr.Textbox(
            label="Folder or Hugging Face Hub id", placeholder="runs/my-checkpoint or org/name", max_lines=1
        )
        revision = gr.Textbox(label="Revision (Hub only)", placeholder="main", max_lines=1)
        use = gr.Button("Use it", size="sm")

    def take(source: str, revision: str) -> tuple[dict, str]:
        with plain_errors():
            choice = CheckpointChoice(source.strip(), revision.strip() or None)
            info = service.offer.describe(choice)
            names = service.offer.names()
            name = choice.text
            return gr.update(choices=names if name in names else [*names, name], value=name), checkpoint_html(info)

    gr.on(
        [use.click, source.submit, revision.submit],
        take,
        [source, revision],
        [dropdown, summary],
        show_progress="minimal",
        show_progress_on=summary,
        concurrency_id="describe",
        concurrency_limit=2,
        api_visibility="private",
    )
