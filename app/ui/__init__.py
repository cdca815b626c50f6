"""The page. `build_ui` and `launch_options` are all that app.py needs; gradio is imported in this package only."""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import Any

import gradio as gr
from gradio import processing_utils

from app.guard import GuardedService
from app.logins import Logins
from app.service import Service
from app.settings import Settings
from app.site import Site
from app.ui.about_tab import build_about_tab
from app.ui.api import add_endpoints
from app.ui.continue_tab import build_continue_tab
from app.ui.detect_tab import build_detect_tab
from app.ui.inspect_tab import TAB, build_inspect_tab
from app.ui.media import bound_fields
from app.ui.picker import build_picker
from app.ui.plain import MODEL_EVENTS
from app.ui.privacy import build_privacy
from app.ui.sessions import keep_sessions_in_use
from app.ui.stream import stream_head
from app.ui.study_tab import build_study_tab
from app.ui.switch import switch_head
from app.ui.theme import theme
from app.ui.timeline import timeline_head
from app.ui.visitor import current_visitor
from audiolm.audio.files import LIMITS

TITLE = "AudioLM Studio"
MAX_THREADS = 96  # more than MODEL_EVENTS takes, so that the page's own events never wait for runs
HEADER = f"""
<header class="masthead">
  <h1>{TITLE}</h1>
  <p>A few seconds of speech or piano in; continuations in the same voice or style out, with their tokens in view.</p>
</header>
"""


def build_ui(unguarded: Service, settings: Settings, site: Site | None = None) -> gr.Blocks:
    """The whole page with its queue; not launched yet. Raises OSError where the folder of uploads cannot be used."""
    site = site or Site(settings, unguarded)
    service: Any = GuardedService(unguarded, site.guard, partial(current_visitor, settings.num_proxies))
    os.environ["GRADIO_TEMP_DIR"] = str(site.belongings.folder)
    bound_fields()
    processing_utils.hash_seed = secrets.token_bytes(32)  # else the names of files could be told from their contents
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(settings.cache_sweep_s, settings.cache_age_s),
        fill_width=False,
    ) as page:
        with gr.Row(elem_classes="top"):
            with gr.Column(scale=7, min_width=320):
                gr.HTML(HEADER)
            with gr.Column(scale=5, min_width=320):
                picker = build_picker(service)
        with gr.Tabs() as tabs:
            with gr.Tab("Continue", id="continue"):
                continued = build_continue_tab(service, picker)
            with gr.Tab("Inspect", id=TAB):
                build_inspect_tab(service, picker, continued, tabs)
            with gr.Tab("Detect", id="detect"):
                build_detect_tab(service, picker)
            with gr.Tab("Study", id="study") as tab:
                build_study_tab(service, picker, tab)
            with gr.Tab("About", id="about"):
                build_about_tab(service)
        add_endpoints(service)
        build_privacy(site.belongings, settings.cache_age_s + settings.cache_sweep_s, settings.num_proxies)
    for number, event in page.fns.items():
        if event.concurrency_id == MODEL_EVENTS["concurrency_id"]:
            site.run_events |= {number, event.api_name}
    page.queue(max_size=settings.queue_size, default_concurrency_limit=4, api_open=False)
    keep_sessions_in_use(page)
    return page


def launch_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `launch`: no share link, run history or monitoring, bounded uploads, least file access.

    Raises RequestError for a file of logins that cannot be used.
    """
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "max_threads": MAX_THREADS,
        "auth": None if settings.login_file is None else Logins(settings.login_file),
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": LIMITS.max_file_bytes,
        "allowed_paths": [str(settings.prompts_folder)],
        "theme": theme(),
        "css_paths": settings.css_file,
        "head": timeline_head() + switch_head() + stream_head(),
        "footer_links": ["api", "settings"],
    }
