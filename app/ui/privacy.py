"""How long recordings are kept, and the button that deletes them now."""

from __future__ import annotations

import gradio as gr

from app.belongings import Belongings
from app.ui.plain import QUIET
from app.ui.visitor import current_visitor

NO_COOKIE = (
    "This browser keeps no cookie for this page, so your recordings cannot be told from those of others at your "
    "address. All of them are deleted within the hour."
)


def build_privacy(belongings: Belongings, kept_s: float, num_proxies: int) -> None:
    """Called at the end of the page, whose states it empties."""
    with gr.Row(elem_classes="privacy"):
        gr.Markdown(retention_text(kept_s), elem_classes="note")
        delete = gr.Button("Delete my audio", size="sm", elem_id="delete-audio", scale=0, min_width=150)
    page = gr.context.Context.root_block
    states = [block for block in page.blocks.values() if isinstance(block, gr.State)]

    def forget() -> list[tuple[()]]:
        visitor = current_visitor(num_proxies)
        if not visitor.cookie:
            raise gr.Error(NO_COOKIE, title="Not deleted now", print_exception=False)
        belongings.forget(visitor.key)
        return [()] * len(states)

    deleted = delete.click(forget, None, states, queue=False, **QUIET)
    deleted.success(None, None, None, js="() => window.location.reload()", **QUIET)


def retention_text(kept_s: float) -> str:
    return (
        f"Recordings and results stay on this server for {kept_s / 60:.0f} minutes at most, where only this browser "
        "can fetch them; a cookie tells which are yours. They are used for nothing but your runs."
    )
