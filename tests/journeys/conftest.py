"""The application as a visitor meets it: a real server process, a real browser, a real client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.app.conftest import write_tone
from tests.tiny import make_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
EMBEDDED = ROOT / "assets/checkpoints/speech-small"
REAL_PROMPTS = ROOT.parent / "shared/prompts"
START_S = 180.0
expect.set_options(timeout=60_000)  # for all that is expected: a page's own default does not reach it
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for each module: its event loop may not stay open while other tests run theirs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Server:
    """A running application; `speech` is the checkpoint that journeys use, `tiny` one of random weights."""

    url: str
    process: subprocess.Popen
    speech: str
    tiny: str
    folder: Path

    def alive(self) -> bool:
        with urllib.request.urlopen(self.url, timeout=60) as answer:
            return answer.status == 200 and self.process.poll() is None

    def client(self) -> Client:
        """Of its API; downloads go into the server's folder."""
        return Client(self.url, verbose=False, download_files=str(self.folder / "downloads"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On the embedded checkpoint where there is one, else on a tiny one alone."""
    folder = tmp_path_factory.mktemp("server")
    tiny = make_tiny_checkpoint(folder / "tiny-speech").name
    offered = [*(["speech-small"] if (EMBEDDED / "config.json").exists() else []), str(folder / "tiny-speech")]
    port = free_port()
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder / "cache"), "GRADIO_ANALYTICS_ENABLED": "False"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "app.py", "--port", str(port), "--device", "cpu", "--studies", str(folder / "studies")]
    command += ["--runs-at-once", "2", "--checkpoints", *offered]
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(url, process, log)
        yield Server(url, process, "speech-small" if len(offered) == 2 else tiny, tiny, folder)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_it_answers(url: str, process: subprocess.Popen, log: Path | None = None) -> None:
    def said() -> str:
        return log.read_text()[-3000:] if log else ""

    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended at once:\n{said()}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no answer within {START_S:g} s:\n{said()}")


@pytest.fixture(scope="session")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real recording where the shared prompts are at hand, else a tone."""
    real = sorted(REAL_PROMPTS.glob("speech_*.flac"))
    return real[0] if real else write_tone(tmp_path_factory.mktemp("prompt") / "tone.wav", 6.0)


def pick_tiny(page: Page, server: Server) -> None:
    """Picks the checkpoint of random weights; returns when the page says so, and a click on what is below it hits."""
    page.locator("#checkpoint input").click()
    page.get_by_role("option", name=server.tiny, exact=True).click()
    expect(page.locator("#checkpoint-summary")).to_contain_text("Random weights")


def open_tab(page: Page, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    tab.click()
    expect(tab).to_have_attribute("aria-selected", "true")


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page as it opens; no script on it may fail, and none may be held back by the page's policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(server.url, wait_until="domcontentloaded")
    expect(page.locator("#generate")).to_be_enabled()
    yield page
    context.close()
    assert errors == []
