"""A visitor who wants to know whether a recording was generated, in real Chromium."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gradio_client import handle_file

from tests.app.conftest import write_tone
from tests.journeys.conftest import CHROMIUM, Server, open_tab, pick_tiny

if not CHROMIUM.exists() and os.environ.get("CI", "").lower() != "true":
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

RUN_MS = 300_000


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens the Detect tab on the tiny checkpoint, at a width and in a colour scheme; no script on it may fail."""
    contexts, errors = [], []

    def open_page(width: int = 1280, look: str = "light") -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=look))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url, wait_until="load")
        expect(page.locator("#generate")).to_be_enabled()
        pick_tiny(page, server)
        open_tab(page, "Detect")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(opened) -> Page:
    return opened()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "clip.wav", 3.0)


@pytest.fixture(scope="module")
def continuation(server: Server, prompt: Path) -> Path:
    """The file of a continuation alone, by the tiny checkpoint."""
    client = server.client()
    fields = {"continuation_s": 5, "num_continuations": 1, "api_name": "/continue"}
    _, paths = client.predict(handle_file(prompt), server.tiny, **fields)
    client.close()
    return Path(paths[1])


def upload(page: Page, recording: Path) -> None:
    page.set_input_files("#detect-audio input[type=file]", recording)
    page.wait_for_selector("#detect-audio button[aria-label='Play']")


def judge(page: Page, recording: Path) -> None:
    upload(page, recording)
    page.click("#detect")
    expect(page.locator("#detect-status .notice.done")).to_be_visible(timeout=RUN_MS)


def test_a_recording_is_judged_beside_its_control(page, recording):
    judge(page, recording)
    assert "3.0 s judged in" in page.inner_text("#detect-status")
    for part in ("#detect-recording", "#detect-control"):
        said = page.inner_text(part)
        for words in ("Detector: ", "Threshold 50.0 %", "of 400 originals called generated", "Detector ", "Score "):
            assert words in said
        assert "Holds only for audio of these checkpoints." in said
        assert "GENERATED" not in said
        picture = page.locator(f"{part} .mel img").first
        assert picture.get_attribute("alt").startswith("Mel spectrogram of the recording")
        assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
    assert "Watermark: not found" in page.inner_text("#detect-recording")
    assert "The detector should hear generation and not the codec" in page.inner_text("#detect-control")


def test_the_recording_and_what_the_codec_makes_of_it_are_heard_in_turn(page, recording):
    judge(page, recording)
    switch = page.locator("#detect-versions audiolm-switch")
    expect(switch.get_by_role("radio")).to_contain_text(["the recording", "through the codec (control)"])
    switch.locator(".as-play").click()
    page.wait_for_function("shown => shown.state.timeS > 0.1", arg=switch.element_handle())
    switch.locator(".as-title").nth(1).click()
    page.wait_for_function("shown => shown.state.levels[1] === 1", arg=switch.element_handle())
    with page.expect_download() as download:
        switch.get_by_role("link", name="WAV").nth(1).click()
    assert download.value.suggested_filename == "through-the-codec.wav"


def test_saliency_can_be_taken_off_the_spectrogram(page, recording):
    judge(page, recording)
    overlay = page.locator("#detect-recording .saliency")
    expect(overlay).to_be_visible()
    page.locator("#detect-recording").get_by_role("checkbox").uncheck()
    expect(overlay).to_be_hidden()
    expect(page.locator("#detect-control .saliency")).to_be_visible()


def test_picture_and_numbers_are_for_download(page, recording):
    judge(page, recording)
    with page.expect_download() as download:
        page.click("#detect-picture")
    with Image.open(download.value.path()) as picture:
        assert picture.format == "PNG"
    with page.expect_download() as download:
        page.click("#detect-numbers")
    assert json.loads(Path(download.value.path()).read_text())["headline"] in page.inner_text("#detect-recording")


def test_a_continuation_is_told_by_its_watermark_and_its_receipt(page, continuation):
    judge(page, continuation)
    said = page.inner_text("#detect-recording")
    assert "GENERATED" in said
    assert "Watermark: found" in said
    assert "Receipt: found in the file, which says that tiny-speech generated it" in said
    assert "GENERATED" in page.inner_text("#detect-control")


def test_too_short_a_recording_gets_a_reason_and_no_number(page, tmp_path):
    judge(page, write_tone(tmp_path / "short.wav", 0.7))
    said = page.inner_text("#detect-recording")
    assert "Withheld: too short: 0.70 s" in said
    assert "Score" not in said
    assert "No score over time" in said


def test_an_example_can_be_judged(page, server):
    page.locator("#detect-examples-speech button").first.click()
    page.wait_for_selector("#detect-audio button[aria-label='Play']")
    page.click("#detect")
    expect(page.locator("#detect-status .notice.done")).to_be_visible(timeout=RUN_MS)


def test_a_bad_recording_is_refused_in_the_page_and_the_last_verdict_stays(page, recording, tmp_path):
    judge(page, recording)
    page.locator("#detect-audio button[aria-label='Clear']").click()
    page.click("#detect")
    expect(page.locator("#detect-status .notice.error")).to_contain_text("there is no recording", timeout=RUN_MS)
    expect(page.locator("#detect-recording")).to_contain_text("Detector: ")
    upload(page, write_tone(tmp_path / "tiny.wav", 0.2))
    page.click("#detect")
    refusal = page.locator("#detect-status .notice.error")
    expect(refusal).to_contain_text("0.2 s of sound; at least 0.5 s are needed", timeout=RUN_MS)
    expect(refusal).to_have_attribute("role", "alert")
    expect(page.locator("#detect")).to_be_enabled()


def test_a_judgement_that_waits_for_its_turn_can_be_stopped(page, server, prompt, recording):
    client = server.client()
    long = {"continuation_s": 30, "num_continuations": 4, "api_name": "/continue"}
    before = [client.submit(handle_file(prompt), server.tiny, **long) for _ in range(2)]  # as many as share the engine
    for job in before:
        next(iter(job))
    upload(page, recording)
    page.click("#detect")
    expect(page.locator("#detect-status")).to_contain_text("Waiting: 2 runs go first")
    page.click("#detect-stop")
    expect(page.locator("#detect-status .notice.stopped")).to_be_visible()
    expect(page.locator("#detect")).to_be_enabled()
    for job in before:
        job.cancel()
    client.close()


@pytest.mark.parametrize("look", ["light", "dark"])
def test_axe_finds_no_serious_violation(opened, recording, look):
    page = opened(look=look)
    judge(page, recording)
    found = Axe().run(page, context="#detect-findings").response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_the_tab_fits_a_telephone(opened, recording):
    page = opened(width=390)
    judge(page, recording)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for part in ("#detect-recording .mel", "#detect-recording .course", "#detect-control .mel", "#detect-versions"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["width"] >= 200
        assert box["x"] + box["width"] <= 390
