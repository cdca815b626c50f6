"""The inspected clip on its timeline, with how much the model doubted it and a dictionary of its tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app import inspect_presenters as presenters
from app.dictionary import LookedUp, OpenClip, look_up, with_opened
from app.results import Inspected
from app.schemas import ClipRequest
from app.service import Service
from app.timeline_payload import parse_selection
from app.ui.plain import QUIET, refusal
from app.ui.runner import Updates, build_run_controls, follow, wire
from app.ui.switch import snippets_value, snippets_view
from app.ui.timeline import timeline_value, timeline_view
from app.verdict_presenters import verdict_html

NO_ENTRY = (
    '<div class="entry empty">Click a token in the timeline, or move to it with the arrow keys and press Enter: how '
    "often it occurs in the open clips, how long, beside what, what it sounds like, and where to hear it.</div>"
)
DOWNLOADS = {
    "png": "Picture (PNG)",
    "svg": "Picture (SVG)",
    "table": "Tokens (CSV)",
    "tokens": "Tokens (safetensors)",
    "numbers": "Numbers (JSON)",
    "audio": "Sound (WAV)",
}


@dataclass(frozen=True)
class Findings:
    """What an inspection fills. `opened` are the visitor's OpenClips, the one on the timeline first."""

    heading: gr.HTML
    timeline: gr.HTML
    figures: gr.HTML
    entry: gr.HTML
    snippets: gr.HTML
    opened: gr.State
    shown: gr.Column

    def components(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


def build_timeline_tab(
    service: Service,
    audio: gr.Audio,
    checkpoint: gr.Dropdown,
    kept: gr.State,
    after: Sequence[Dependency],
) -> None:
    """Called inside the tab. `kept` are the OpenClips of the last run; the events `after` begin an inspection."""
    controls = build_run_controls("Inspect", "inspect")
    found, downloads = _build_findings(service)

    def run(
        audio: str | None, checkpoint: str | None, kept: tuple[OpenClip, ...], opened: tuple[OpenClip, ...]
    ) -> Iterator[Updates]:
        def events() -> Iterator[Any]:
            known = [clip.continuation for clip in (*kept, *opened) if clip.continuation is not None]
            return service.inspect(ClipRequest.of(audio, checkpoint), known)

        def show(inspected: Inspected) -> Generator[Updates, None, str]:
            name = presenters.clip_name(inspected, Path(audio or "clip").stem)
            clip = OpenClip(name, inspected.checkpoint, inspected.timeline, inspected.made)
            yield {**_shown(inspected, found, downloads), found.opened: with_opened(opened, clip)}
            return presenters.inspected_text(inspected)

        cleared = {found.shown: gr.update(visible=False), found.timeline: None}
        yield from follow(controls, events, show, cleared, audio=audio)

    outputs = [*found.components(), *downloads.values()]
    wire(controls, run, [audio, checkpoint, kept, found.opened], outputs, after)
    found.timeline.select(
        _look_up(found),
        [found.opened, kept],
        [found.entry, found.snippets],
        concurrency_id="dictionary",
        concurrency_limit=4,
        **QUIET,
    )


def _build_findings(service: Service) -> tuple[Findings, dict[str, gr.DownloadButton]]:
    with gr.Column(visible=False, elem_id="findings") as shown:
        heading = gr.HTML(elem_id="inspect-heading")
        timeline = timeline_view("Timeline of the inspected clip", "inspect-timeline")
        with gr.Row(elem_classes="downloads"):
            downloads = {
                name: gr.DownloadButton(label, size="sm", elem_id=f"inspect-{name}", min_width=110)
                for name, label in DOWNLOADS.items()
            }
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320):
                entry = gr.HTML(NO_ENTRY, elem_id="dictionary")
                snippets = snippets_view("Where it occurs", "occurrences")
            with gr.Column(scale=6, min_width=320):
                figures = gr.HTML(elem_id="inspect-figures")
    opened = gr.State((), time_to_live=service.settings.cache_age_s)
    return Findings(heading, timeline, figures, entry, snippets, opened, shown), downloads


def _shown(inspected: Inspected, found: Findings, downloads: dict[str, gr.DownloadButton]) -> Updates:
    timeline = inspected.timeline
    figures = presenters.seam_html(timeline.seam) + verdict_html(timeline.verdict) + presenters.doubt_html(timeline)
    return {
        found.shown: gr.update(visible=True),
        found.heading: presenters.inspected_heading(inspected),
        found.timeline: timeline_value(timeline, inspected.files.audio),
        found.figures: figures,
        found.entry: NO_ENTRY,
        found.snippets: None,
        **{button: str(getattr(inspected.files, name)) for name, button in downloads.items()},
    }


def _look_up(found: Findings) -> Any:
    """The handler of a token chosen in the timeline."""

    def look(opened: tuple[OpenClip, ...], kept: tuple[OpenClip, ...], event: gr.EventData) -> Iterator[Updates]:
        try:
            selection = parse_selection(event._data)
            with tempfile.TemporaryDirectory(prefix="audiolm-token-") as folder:
                known = [clip.continuation.receipt for clip in opened if clip.continuation is not None]
                others = [clip for clip in kept if clip.continuation is None or clip.continuation.receipt not in known]
                result = look_up([*opened, *others], selection, Path(folder))
                yield {found.entry: _entry_html(result), found.snippets: _stretches(result)}
        except Exception as error:
            yield {found.entry: refusal(error), found.snippets: None}

    return look


def _entry_html(result: LookedUp) -> str:
    return presenters.entry_html(result.entry, len(result.clips), result.clips[0].checkpoint.domain)


def _stretches(result: LookedUp) -> dict[str, Any]:
    several = len({heard.name for heard in result.heard}) > 1
    stretches = [(presenters.occurrence_label(heard, several), heard.start_s, heard.end_s) for heard in result.heard]
    return snippets_value(result.audio, stretches)
