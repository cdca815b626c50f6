"""From the click to the first sound in a real browser; what is heard at the borders of chunks; how soon Stop stops."""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from audiolm.audio import files
from audiolm.benchmark.server import running_server
from audiolm.benchmark.stages import synthetic_prompt
from audiolm.errors import AudioLMError
from audiolm.events import Progress, Sound
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest

RUN_MS = 600_000
PLAYER = "#stream audiolm-stream"
RECEIVED = """player => ({
  state: player.state,
  fine: [...player.received(0, "fine")].map((samples) => [...samples]),
  coarse: [...player.received(0, "coarse")].map((samples) => samples && samples.length),
})"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--seconds", type=float, default=7.0, help="length of the continuation")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--browser", default="/usr/bin/chromium")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds. `engine_s` counts from the encoded prompt to the first second of sound, without a page, on
    one thread; `click_s` from the click to the first sample that the browser plays. `gaps` are the chunks that were not
    there in time, `border_step` the largest step between neighbouring samples at a border over the largest within a
    chunk, `stop_s` from the click on Stop until the run has ended.

    Raises AudioLMError where the server does not start, or playwright is missing.
    """
    engine, factors = zip(*_in_engine(options), strict=True)
    server = ("--checkpoints", options.checkpoint, "--device", options.device, "--threads", str(options.threads))
    with running_server(*server) as url, tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder) / "prompt.wav"
        files.write_wav(prompt, synthetic_prompt(3.0))
        heard = _in_page(url, prompt, options)
    return {
        "checkpoint": options.checkpoint,
        "device": options.device,
        "seconds": options.seconds,
        "engine_s": statistics.median(engine),
        "engine_real_time_factor": statistics.median(factors),
        "click_s": statistics.median(one["click_s"] for one in heard),
        "gaps": sum(one["gaps"] for one in heard),
        "max_border_gap_samples": max(one["border_gap"] for one in heard),
        "border_step": max(one["border_step"] for one in heard),
        "stop_s": statistics.median(one["stop_s"] for one in heard),
    }


def table(result: dict[str, Any]) -> str:
    return (
        "{checkpoint} ({device}), {seconds:g} s: first sound {engine_s:.2f} s after the prompt is encoded (real-time "
        "factor {engine_real_time_factor:.2f}), {click_s:.2f} s after the click in the page; {gaps} chunks late, "
        "borders off by {max_border_gap_samples:.3f} samples, step at borders {border_step:.2f} of the largest within; "
        "stopped after {stop_s:.2f} s"
    ).format(**result)


def _in_engine(options: argparse.Namespace) -> list[tuple[float, float]]:
    """(first sound, real-time factor of the whole run) a round; the round before the first one warms up."""
    pipeline = Pipeline.load(options.checkpoint, device=options.device)
    request = ContinuationRequest(3.0, options.seconds, num_continuations=1, **pipeline.models.info.sampling)
    measured = []
    for _ in range(options.runs + 1):
        encoded, first, begun = 0.0, 0.0, time.monotonic()
        for event in pipeline.continue_prompt(synthetic_prompt(3.0), request, stream=True):
            if isinstance(event, Progress) and event.stage == "encode" and event.done:
                encoded = time.monotonic()
            elif isinstance(event, Sound) and not first:
                first = time.monotonic()
        measured.append((first - encoded, (time.monotonic() - begun) / options.seconds))
    return measured[1:]


def _in_page(url: str, prompt: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise AudioLMError("the first sound is measured in a browser: pip install playwright") from error
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.set_default_timeout(RUN_MS)
        page.goto(url, wait_until="load")
        page.set_input_files("#prompt input[type=file]", str(prompt))
        page.wait_for_selector("#prompt button[aria-label='Play']")
        _set(page, "num-continuations", 1)
        heard = [_round(page, options.seconds) for _ in range(options.runs + 1)][1:]
        chromium.close()
    return heard


def _round(page: Any, seconds: float) -> dict[str, float]:
    _set(page, "continuation-s", seconds)
    clicked = _click(page, "#generate")
    page.wait_for_function(f"() => document.querySelector('{PLAYER}')?.state?.firstSoundAt", polling=20)
    page.wait_for_selector("#generate-status .notice.done")
    page.wait_for_function(
        f"() => {{ const s = document.querySelector('{PLAYER}').state; return s.played.length === s.numChunks; }}"
    )
    received = page.locator(PLAYER).evaluate(RECEIVED)
    _set(page, "continuation-s", 30)
    _click(page, "#generate")
    page.wait_for_selector("#live img")
    begun = time.monotonic()
    page.click("#generate-stop")
    page.wait_for_selector("#generate-status .notice.stopped")
    return borders(received) | {
        "click_s": (received["state"]["firstSoundAt"] - clicked) / 1000.0,
        "stop_s": time.monotonic() - begun,
    }


def borders(received: dict[str, Any]) -> dict[str, float]:
    """What was played and received of one run."""
    played, fine, rate_hz = received["state"]["played"], received["fine"], 16_000
    gaps = [
        (after["startS"] - before["startS"]) * rate_hz - before["samples"]
        for before, after in itertools.pairwise(played)
    ]
    inside = max(abs(b - a) for chunk in fine for a, b in itertools.pairwise(chunk))
    steps = [abs(after[0] - before[-1]) for before, after in itertools.pairwise(fine)]
    late = received["state"]["gaps"]
    return {
        "gaps": late,
        "border_gap": 0.0 if late else max(map(abs, gaps), default=0.0),
        "border_step": max(steps, default=0.0) / inside,
    }


def _click(page: Any, selector: str) -> float:
    """Clicks -> when, in milliseconds of the page's own clock."""
    page.evaluate(
        """selector => document.querySelector(selector).addEventListener(
             "click",
             () => { window.clickedAt = performance.timeOrigin + performance.now(); },
             { once: true, capture: true },
           )""",
        selector,
    )
    page.click(selector)
    return page.evaluate("() => window.clickedAt")


def _set(page: Any, name: str, value: float) -> None:
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")
