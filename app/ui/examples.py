"""Example prompts to take with one click."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app import presenters
from app.service import Service
from app.ui.picker import Picker, describe
from app.ui.plain import QUIET


def build_examples(service: Service, audio: gr.Audio, picker: Picker, prefix: str = "") -> None:
    """Example prompts a domain; taking one also picks the first checkpoint of that domain."""
    for domain, paths in service.prompts().items():
        samples = gr.Dataset(
            label=f"Example prompts: {domain}",
            components=["textbox"],
            samples=[[presenters.prompt_name(path)] for path in paths],
            type="index",
            layout="gallery",
            elem_id=f"{prefix}examples-{domain}",
        )

        def take(
            index: int, checkpoint: str | None, paths: list[Path] = paths, domain: str = domain
        ) -> tuple[str, Any, Any]:
            fitting = service.offer.fitting(domain, checkpoint)
            return str(paths[index]), fitting, describe(service, fitting)

        samples.click(take, [samples, picker.dropdown], [audio, picker.dropdown, picker.summary], queue=False, **QUIET)
