"""Looking into a clip, in real Chromium: timeline, dictionary, hand-over, versions to switch between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.app.conftest import write_tone
from tests.journeys.conftest import CHROMIUM, Server, open_tab, pick_tiny

if not CHROMIUM.exists() and os.environ.get("CI", "").lower() != "true":
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

RUN_MS = 300_000


@pytest.fixture
def page(page: Page, server: Server) -> Page:
    """The Inspect tab on the tiny checkpoint."""
    pick_tiny(page, server)
    open_tab(page, "Inspect")
    return page


def upload(page: Page, recording: Path, where: str = "#inspect-audio") -> None:
    page.set_input_files(f"{where} input[type=file]", recording)
    page.wait_for_selector(f"{where} button[aria-label='Play']")


def run(page: Page, name: str) -> str:
    """Starts a run and waits for its last line. A run before it had one too: its timeline must go first."""
    before = page.locator(f"#{name}-timeline audiolm-timeline").element_handles()
    page.click(f"#{name}")
    for timeline in before:
        page.wait_for_function("timeline => !timeline.isConnected", arg=timeline, timeout=RUN_MS)
    return finished(page, name)


def finished(page: Page, name: str) -> str:
    expect(page.locator(f"#{name}-status .notice.done")).to_be_visible(timeout=RUN_MS)
    return page.inner_text(f"#{name}-status")


def ready(page: Page, where: str) -> Locator:
    """Its timeline, which every run puts in place of the one before."""
    name = f"{where} audiolm-timeline"
    page.wait_for_function(
        """name => {
            const timeline = document.querySelector(name);
            timeline?.scrollIntoView({ block: "center" });
            return timeline?.state?.ready;
        }""",
        arg=name,
    )
    return page.locator(name)


def choose_token(timeline: Locator) -> None:
    """Clicks the semantic lane in the middle."""
    top, left, width = timeline.evaluate(
        """timeline => {
            const { rows, plotLeft, plotWidth } = timeline.state;
            return [rows.find((row) => row.label === "semantic").top, plotLeft, plotWidth];
        }"""
    )
    timeline.locator("canvas").first.click(position={"x": left + width / 2, "y": top + 8})


def state(switch: Locator) -> dict:
    return switch.evaluate("shown => shown.state")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "clip.wav", 3.0)


def test_a_clip_is_inspected_and_its_tokens_are_looked_up_and_heard(page, recording):
    upload(page, recording)
    assert "a recording, read by the tokenizers" in run(page, "inspect")
    timeline = ready(page, "#inspect-timeline")
    assert timeline.evaluate("timeline => timeline.state.durationS") == pytest.approx(3.0, abs=0.05)
    assert "Doubt of the stages" in page.inner_text("#inspect-figures")
    choose_token(timeline)
    expect(page.locator("#dictionary")).to_contain_text("in 1 open clip", timeout=RUN_MS)
    page.locator("#occurrences button").first.click()
    page.wait_for_function("() => document.querySelector('#occurrences audio').currentTime > 0")
    for name, ending in (("png", ".png"), ("svg", ".svg"), ("table", ".csv"), ("numbers", ".json")):
        with page.expect_download() as download:
            page.click(f"#inspect-{name}")
        assert download.value.suggested_filename.endswith(ending)
    run(page, "inspect")
    choose_token(ready(page, "#inspect-timeline"))
    expect(page.locator("#dictionary")).to_contain_text("in 2 open clips", timeout=RUN_MS)


def test_a_continuation_is_handed_over_with_its_own_tokens(page, recording):
    open_tab(page, "Continue")
    upload(page, recording, "#prompt")
    page.locator("#continuation-s input[type=number]").fill("1")
    page.locator("#continuation-s input[type=number]").press("Tab")
    run(page, "generate")
    page.click("#inspect-2")
    assert "a run of this page, with its own tokens" in finished(page, "inspect")
    expect(page.locator("#inspect-heading")).to_contain_text("GENERATED")
    assert ready(page, "#inspect-timeline").evaluate("timeline => timeline.state.promptS") > 0
    assert "The join" in page.inner_text("#inspect-figures")
    choose_token(ready(page, "#inspect-timeline"))
    expect(page.locator("#dictionary")).to_contain_text("in 2 open clips", timeout=RUN_MS)  # the other card as well


def test_versions_are_switched_without_a_gap_and_by_keyboard(page, recording):
    upload(page, recording)
    open_tab(page, "Ladder")
    assert "6 versions by tiny-speech" in run(page, "ladder")
    switch = page.locator("#ladder-versions audiolm-switch")
    expect(switch.get_by_text("GENERATED")).to_have_count(2)
    switch.locator(".as-play").click()
    page.wait_for_function("shown => shown.state.timeS > 0.2", arg=switch.element_handle())
    before = state(switch)
    switch.locator(".as-title").nth(3).click()
    page.keyboard.press("2")
    page.wait_for_function("shown => shown.state.levels[1] === 1", arg=switch.element_handle())
    after = state(switch)
    assert before["numStarts"] == after["numStarts"] == 1  # none was started anew: they all run on
    assert after["playing"]
    assert after["timeS"] > before["timeS"]
    assert sum(after["levels"]) == pytest.approx(1.0)
    page.keyboard.press("ArrowDown")
    assert state(switch)["chosen"] == 2
    page.keyboard.press(" ")
    paused = state(switch)
    assert not paused["playing"]
    page.keyboard.press("Home")
    assert state(switch)["timeS"] == 0.0


def test_only_one_of_a_switch_and_a_timeline_plays(page, recording):
    upload(page, recording)
    run(page, "inspect")
    open_tab(page, "Ladder")
    run(page, "ladder")
    switch = page.locator("#ladder-versions audiolm-switch")
    switch.locator(".as-play").click()
    page.wait_for_function("shown => shown.state.playing", arg=switch.element_handle())
    page.evaluate("document.querySelector('#inspect-timeline audio').play()")
    page.wait_for_function("shown => !shown.state.playing", arg=switch.element_handle())
    switch.locator(".as-play").click()
    page.wait_for_function("() => document.querySelector('#inspect-timeline audio').paused")


def test_voices_and_ablations_stand_beside_the_clip(page, recording):
    upload(page, recording)
    for tab, name, count in (("Voices", "voices", 4), ("Ablations", "ablate", 4)):
        open_tab(page, tab)
        assert f"{count} versions by tiny-speech" in run(page, name)
        expect(page.locator(f"#{name}-versions [role=radio]")).to_have_count(count)


def test_a_refused_inspection_keeps_what_was_there_and_can_be_stopped(page, recording, tmp_path):
    upload(page, recording)
    run(page, "inspect")
    page.locator("#inspect-audio button[aria-label='Clear']").click()
    page.click("#inspect")
    expect(page.locator("#inspect-status .notice.error")).to_contain_text("there is no recording", timeout=RUN_MS)
    ready(page, "#inspect-timeline")
    upload(page, write_tone(tmp_path / "long.wav", 30.0))
    open_tab(page, "Voices")
    page.click("#voices")
    expect(page.locator("#voices-status [role=progressbar]")).to_be_visible()
    page.click("#voices-stop")
    expect(page.locator("#voices-status .notice.stopped")).to_be_visible(timeout=RUN_MS)
    expect(page.locator("#voices")).to_be_enabled()


def test_the_tab_has_no_serious_violation_of_accessibility(page, recording):
    upload(page, recording)
    run(page, "inspect")
    choose_token(ready(page, "#inspect-timeline"))
    expect(page.locator("#dictionary")).to_contain_text("open clip", timeout=RUN_MS)
    found = Axe().run(page, context="#findings").response["violations"]
    open_tab(page, "Ladder")
    run(page, "ladder")
    found += Axe().run(page, context="#ladder-versions").response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_the_tab_fits_a_telephone(browser, server, recording):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server.url, wait_until="domcontentloaded")
    expect(page.locator("#generate")).to_be_enabled()
    open_tab(page, "Inspect")
    upload(page, recording)
    run(page, "inspect")
    ready(page, "#inspect-timeline")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
