from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from app.limits import WorkLimits
from app.settings import Settings
from app.site import Site
from app.ui import build_ui, launch_options
from app.visitors import COOKIE, new_token
from tests.app.conftest import Service, write_tone
from tests.journeys.conftest import free_port

TINY = "tiny-speech"


@dataclass(frozen=True)
class Running:
    """The application, served over HTTP by this process."""

    url: str
    site: Site
    page: gr.Blocks
    settings: Settings

    def visitor(self, **headers: str) -> httpx.Client:
        """A browser of its own: with a cookie."""
        return httpx.Client(base_url=self.url, cookies={COOKIE: new_token()}, headers=headers, timeout=60)

    def program(self, **headers: str) -> httpx.Client:
        """A client without cookies."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@pytest.fixture(scope="session")
def app(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    own = replace(
        settings,
        port=free_port(),
        cache_folder=tmp_path_factory.mktemp("cache"),
        metrics=True,
        work=WorkLimits(max_runs=2),
    )
    service = Service(own)
    site = Site(own, service)
    page = build_ui(service, own, site)
    options = launch_options(own)
    page.launch(**options, app_kwargs=site.app_kwargs(options["head"]), prevent_thread_lock=True, quiet=True)
    yield Running(f"http://127.0.0.1:{own.port}", site, page, own)
    page.close(verbose=False)


@pytest.fixture
def own_recording(tmp_path: Path) -> Path:
    """One that nobody else has uploaded."""
    path = write_tone(tmp_path / "own.wav")
    path.write_bytes(path.read_bytes() + secrets.token_bytes(32))
    return path


def upload(client: httpx.Client, file: Path) -> str:
    """The path under which the server keeps it."""
    answer = client.post("/gradio_api/upload", files={"files": (file.name, file.read_bytes())})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def call(client: httpx.Client, endpoint: str, values: list[Any]) -> tuple[str, Any]:
    """(last event's kind, its data) of a call of the API."""
    begun = client.post(f"/gradio_api/call/{endpoint}", json={"data": values})
    if begun.status_code != 200:
        return str(begun.status_code), begun.json()
    kind, data = "", None
    with client.stream("GET", f"/gradio_api/call/{endpoint}/{begun.json()['event_id']}") as events:
        for line in events.iter_lines():
            name, _, value = line.partition(": ")
            kind, data = (value, data) if name == "event" else (kind, json.loads(value) if name == "data" else data)
            if name == "data" and kind in ("complete", "error"):
                break
    return kind, data


def recorded(path: str) -> dict[str, Any]:
    """An upload as an input."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
