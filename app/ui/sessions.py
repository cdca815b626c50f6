"""What waits to be told to each session of the page."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.utils import LRUCache

MAX_SESSIONS = 20_000  # whoever reads looks every 10 s: in that time nobody begins so many


class Recent(LRUCache):
    """Forgets what was not used for longest. Gradio's own forgets what was added first, also while somebody waits for
    its result: whoever begins 2,000 sessions would end all the others."""

    def __getitem__(self, session: str) -> Any:
        found = super().__getitem__(session)
        self.move_to_end(session)
        return found


def keep_sessions_in_use(page: gr.Blocks) -> None:
    """To be called once the page has its queue."""
    page._queue.pending_messages_per_session = Recent(MAX_SESSIONS)
