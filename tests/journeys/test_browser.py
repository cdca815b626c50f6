"""A visitor's way through the page, in real Chromium."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gradio_client import handle_file

from tests.app.conftest import write_tone
from tests.journeys.conftest import CHROMIUM, open_tab, pick_tiny

if not CHROMIUM.exists() and os.environ.get("CI", "").lower() != "true":
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)

from playwright.sync_api import Page, expect

RUN_MS = 300_000


def upload(page: Page, recording: Path, where: str = "#prompt") -> None:
    page.set_input_files(f"{where} input[type=file]", recording)
    page.wait_for_selector(f"{where} button[aria-label='Play']")


def set_number(page: Page, name: str, value: float) -> None:
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


@pytest.mark.parametrize("width", [1280, 390])
def test_picking_a_checkpoint_moves_nothing_under_a_visitors_hand(page, server, width):
    if server.speech == server.tiny:
        pytest.skip("only one checkpoint is here")
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("() => document.fonts.ready")
    tab = page.get_by_role("tab", name="Inspect")
    pick_tiny(page, server)  # by then all of the page is there
    before = tab.bounding_box()
    page.locator("#checkpoint input").click()
    page.get_by_role("option", name=server.speech, exact=True).click()
    expect(page.locator("#checkpoint-summary")).not_to_contain_text("Random weights")
    assert tab.bounding_box() == pytest.approx(before)


def test_a_visitor_uploads_a_prompt_and_gets_continuations(page, server, prompt):
    upload(page, prompt)
    set_number(page, "continuation-s", 2)
    set_number(page, "seed", 12)
    page.click("#generate")
    expect(page.locator("#generate-status [role=progressbar]")).to_be_visible()
    expect(page.locator("#generate-status .notice.done")).to_be_visible(timeout=RUN_MS)
    assert "seed 12" in page.inner_text("#generate-status")
    for number in (1, 2):
        card = page.locator(f"#card-{number}").first
        expect(card.get_by_text("GENERATED", exact=True)).to_be_visible()
        timeline = page.locator(f"#timeline-{number} audiolm-timeline")
        timeline.scroll_into_view_if_needed()
        page.wait_for_function("timeline => timeline.state.ready", arg=timeline.element_handle())
        assert timeline.evaluate("timeline => timeline.state.promptS") == pytest.approx(2.96)  # 40 ms are made anew
        assert timeline.evaluate("timeline => timeline.state.durationS") == pytest.approx(5.0, abs=0.05)
        said = page.inner_text(f"#verdict-{number}")
        assert "Detector: " in said
        assert "only for audio of these checkpoints" in said
        assert "Watermark: " in said
    assert page.locator("#card-3").count() == 0
    expect(page.locator("#generate")).to_be_enabled()


def test_downloads_are_the_wav_the_tokens_and_the_receipt(page, prompt):
    upload(page, prompt)
    set_number(page, "continuation-s", 1)
    set_number(page, "num-continuations", 1)
    page.click("#generate")
    expect(page.locator("#generate-status .notice.done")).to_be_visible(timeout=RUN_MS)
    endings = {"wav": ".wav", "generated": ".wav", "picture": ".png", "tokens": ".safetensors", "receipt": ".json"}
    for button, ending in endings.items():
        with page.expect_download() as download:
            page.click(f"#{button}-1")
        assert download.value.suggested_filename.endswith(ending)
        assert Path(download.value.path()).stat().st_size > 100


def test_tokens_appear_as_they_come_and_stop_stops(page, prompt):
    upload(page, prompt)
    set_number(page, "continuation-s", 30)
    set_number(page, "num-continuations", 4)
    page.click("#generate")
    expect(page.locator("#live img")).to_be_visible(timeout=RUN_MS)
    first = page.locator("#live img").get_attribute("src")
    page.wait_for_function(
        "first => { const image = document.querySelector('#live img'); return image && image.src !== first; }",
        arg=first,
    )
    page.click("#generate-stop")
    expect(page.locator("#generate-status .notice.stopped")).to_be_visible()
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#generate-stop")).to_be_disabled()
    assert page.locator("#continuation-s input[type=number]").input_value() == "30"
    assert page.locator("#card-1").count() == 0


def test_a_closed_tab_makes_room_for_the_next_visitor(browser, server, prompt):
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url, wait_until="domcontentloaded")
    expect(page.locator("#generate")).to_be_enabled()
    upload(page, prompt)
    set_number(page, "continuation-s", 30)
    set_number(page, "num-continuations", 4)
    page.click("#generate")
    expect(page.locator("#live img")).to_be_visible(timeout=RUN_MS)
    context.close()
    client = server.client()
    verdict = client.submit(handle_file(prompt), server.tiny, api_name="/detect").result(timeout=60)
    assert verdict["label"]
    client.close()


def test_a_bad_recording_is_refused_in_the_page_and_inputs_are_kept(page, server, tmp_path, prompt):
    upload(page, write_tone(tmp_path / "short.wav", 0.2))
    set_number(page, "seed", 77)
    page.click("#generate")
    refusal = page.locator("#generate-status .notice.error")
    expect(refusal).to_contain_text("0.2 s of sound; at least 0.5 s are needed", timeout=RUN_MS)
    expect(refusal).to_have_attribute("role", "alert")
    expect(page.locator("#generate")).to_be_enabled()
    assert page.locator("#seed input").input_value() == "77"
    assert server.alive()


def test_a_seed_out_of_range_is_refused_in_the_page(page, prompt):
    upload(page, prompt)
    page.locator("#seed input").fill("-1")
    page.click("#generate")
    expect(page.locator("#generate-status .notice.error")).to_contain_text("seed must be 0 to", timeout=RUN_MS)
    expect(page.locator("#generate")).to_be_enabled()


def test_a_run_refused_by_a_full_queue_is_not_called_stopped(page, prompt):
    upload(page, prompt)
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    page.click("#generate")
    expect(page.locator("#generate-status .notice.error")).to_contain_text("did not take this run")
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#generate-stop")).to_be_disabled()


def test_a_run_that_waits_for_its_turn_can_be_stopped(page, server, prompt):
    client = server.client()
    before = [
        client.submit(handle_file(prompt), server.tiny, continuation_s=30, num_continuations=4, api_name="/continue")
        for _ in range(2)  # as many as share the engine here
    ]
    for job in before:
        next(iter(job))
    upload(page, prompt)
    page.click("#generate")
    expect(page.locator("#generate-status")).to_contain_text("Waiting: 2 runs go first")
    page.click("#generate-stop")
    expect(page.locator("#generate-status .notice.stopped")).to_be_visible()
    expect(page.locator("#generate-stop")).to_have_text("Stop")
    expect(page.locator("#generate")).to_be_enabled()
    for job in before:
        job.cancel()
    client.close()


def test_without_a_recording_the_page_says_what_is_missing(page):
    page.click("#generate")
    expect(page.locator("#generate-status .notice.error")).to_contain_text("there is no recording", timeout=RUN_MS)


def test_new_seed_draws_another_one(page):
    before = page.locator("#seed input").input_value()
    page.click("#new-seed")
    expect(page.locator("#seed input")).not_to_have_value(before)


def test_another_checkpoint_is_taken_from_a_folder(page, server):
    page.get_by_role("button", name="Another checkpoint").click()
    page.get_by_label("Folder or Hugging Face Hub id").fill(str(server.folder / "tiny-speech"))
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#checkpoint input")).to_have_value(str(server.folder / "tiny-speech"))
    expect(page.locator("#checkpoint-summary")).to_contain_text("Random weights for tests")


def test_about_shows_limits_and_the_way_without_the_page(page):
    open_tab(page, "About")
    expect(page.get_by_role("heading", name="Limits")).to_be_visible()
    expect(page.get_by_text("python -m audiolm continue").first).to_be_visible()


def test_the_page_fits_a_telephone(browser, server):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server.url, wait_until="domcontentloaded")
    expect(page.locator("#generate")).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()


def test_the_page_can_be_used_by_keyboard(page, prompt):
    upload(page, prompt)
    page.locator("#generate").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#generate-stop")).to_be_enabled()
    page.locator("#generate-stop").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#generate")).to_be_enabled()
