"""The sound of a run as it reaches the page, in real Chromium."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import soundfile

from audiolm.config import SAMPLES_PER_SEMANTIC
from audiolm.streaming import CHUNK_SAMPLES
from tests.journeys.conftest import CHROMIUM, pick_tiny

if not CHROMIUM.exists() and os.environ.get("CI", "").lower() != "true":
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)

from playwright.sync_api import Page, expect

from tests.journeys.test_browser import RUN_MS, set_number, upload

RECEIVED = """player => ({
  state: player.state,
  fine: [0, 1].map((row) => [...player.received(row, "fine")].map((samples) => [...samples])),
})"""


@pytest.fixture
def tiny(page: Page, server) -> Page:
    """The page with the checkpoint of random weights, which is faster than its sound."""
    pick_tiny(page, server)
    return page


def test_chunks_of_a_second_arrive_in_full_and_are_played_without_a_gap(tiny, prompt, tmp_path):
    page = tiny
    upload(page, prompt)
    set_number(page, "continuation-s", 4)
    set_number(page, "num-continuations", 2)
    page.click("#generate")
    player = page.locator("#stream audiolm-stream")
    expect(player.get_by_text("GENERATED", exact=True)).to_be_visible(timeout=RUN_MS)
    expect(page.locator("#generate-status .notice.done")).to_be_visible(timeout=RUN_MS)
    page.wait_for_function("player => player.state.played.length === 4", arg=player.element_handle(), timeout=RUN_MS)
    received = player.evaluate(RECEIVED)
    for row, chunks in enumerate(received["fine"], 1):
        lengths = [len(chunk) for chunk in chunks]
        assert lengths == [CHUNK_SAMPLES] * 3 + [CHUNK_SAMPLES + SAMPLES_PER_SEMANTIC]  # the prompt's end is new too
        with page.expect_download() as download:
            page.click(f"#generated-{row}")
        download.value.save_as(tmp_path / "only.wav")
        heard, finished = np.concatenate(chunks), soundfile.read(tmp_path / "only.wav", dtype="float32")[0]
        noise = heard - finished  # two ways of marking the same sound
        assert np.square(noise).sum() < 1e-2 * np.square(finished).sum()
        steps, places = np.abs(np.diff(heard)), np.cumsum(lengths[:-1]) - 1
        assert steps[places].max() <= steps.max() * 1.01
    played, gaps = received["state"]["played"], received["state"]["gaps"]
    for before, after in itertools.pairwise(played):
        silence = (after["startS"] - before["startS"]) * 16_000 - before["samples"]
        assert gaps or abs(silence) < 1e-3


def test_a_stopped_run_is_silent(tiny, prompt):
    page = tiny
    upload(page, prompt)
    set_number(page, "continuation-s", 30)
    set_number(page, "num-continuations", 4)
    page.click("#generate")
    player = page.locator("#stream audiolm-stream")
    expect(player.get_by_role("button", name="Stop the sound")).to_be_visible(timeout=RUN_MS)
    page.click("#generate-stop")
    expect(page.locator("#generate-status .notice.stopped")).to_be_visible()
    expect(player.get_by_role("button")).to_have_count(0)


def test_the_sound_stops_when_it_is_told_to_and_another_continuation_can_be_chosen(tiny, prompt):
    page = tiny
    upload(page, prompt)
    set_number(page, "continuation-s", 3)
    page.click("#generate")
    expect(page.locator("#generate-status .notice.done")).to_be_visible(timeout=RUN_MS)
    player = page.locator("#stream audiolm-stream")
    page.get_by_role("button", name="Listen to continuation 2").click()
    page.wait_for_function("player => player.state.played.at(-1)?.row === 1", arg=player.element_handle())
    page.get_by_role("button", name="Stop the sound").click()
    expect(page.get_by_role("button", name="Listen as it is made")).to_be_visible()
    count = player.evaluate("player => player.state.played.length")
    page.wait_for_timeout(600)
    assert player.evaluate("player => player.state.played.length") == count
