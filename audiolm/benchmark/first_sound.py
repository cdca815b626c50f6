"""From the click to the first sound in a real browser; what is heard at the borders of chunks; how soon Stop stops."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiolm.audio import files
from audiolm.benchmark.server import running_server
from audiolm.benchmark.stages import processor_name, synthetic_prompt
from audiolm.errors import AudioLMError
from audiolm.events import Progress, Sound
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest

BROWSER = "/usr/bin/chromium"
RUN_MS = 600_000
PLAYER = "#stream audiolm-stream"
RECEIVED = """player => ({
  state: player.state,
  fine: [...player.received(0, "fine")].map((samples) => [...samples]),
  coarse: [...player.received(0, "coarse")].map((samples) => samples && samples.length),
})"""


@dataclass(frozen=True)
class FirstSound:
    """Medians over rounds. `engine_s` counts from the encoded prompt to the first second of sound, without a page, on
    one thread; `click_s` from the click to the first sample that the browser plays. `gaps` are the chunks that were not
    there in time, `border_step` the largest step between neighbouring samples at a border over the largest within a
    chunk, `stop_s` from the click on Stop until the run has ended.
    """

    checkpoint: str
    processor: str
    seconds: float
    rounds: int
    engine_s: float
    engine_real_time_factor: float
    click_s: float
    gaps: int
    max_border_gap_samples: float
    border_step: float
    stop_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_first_sound(
    checkpoint: str, seconds: float, rounds: int, options: tuple[str, ...] = (), browser: str = BROWSER
) -> FirstSound:
    """`options` are the server's. Raises AudioLMError where it does not start, or playwright is missing."""
    engine, factors = zip(*_in_engine(checkpoint, seconds, rounds), strict=True)
    with running_server("--checkpoints", checkpoint, *options) as url, tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder) / "prompt.wav"
        files.write_wav(prompt, synthetic_prompt(3.0))
        heard = _in_page(url, prompt, seconds, rounds, browser)
    return FirstSound(
        checkpoint,
        processor_name(),
        seconds,
        rounds,
        statistics.median(engine),
        statistics.median(factors),
        statistics.median(one["click_s"] for one in heard),
        sum(one["gaps"] for one in heard),
        max(one["border_gap"] for one in heard),
        max(one["border_step"] for one in heard),
        statistics.median(one["stop_s"] for one in heard),
    )


def _in_engine(checkpoint: str, seconds: float, rounds: int) -> list[tuple[float, float]]:
    """(first sound, real-time factor of the whole run) a round; the round before the first one warms up."""
    pipeline = Pipeline.load(checkpoint)
    request = ContinuationRequest(3.0, seconds, num_continuations=1, **pipeline.models.info.sampling)
    measured = []
    for _ in range(rounds + 1):
        encoded, first, begun = 0.0, 0.0, time.monotonic()
        for event in pipeline.continue_prompt(synthetic_prompt(3.0), request, stream=True):
            if isinstance(event, Progress) and event.stage == "encode" and event.done:
                encoded = time.monotonic()
            elif isinstance(event, Sound) and not first:
                first = time.monotonic()
        measured.append((first - encoded, (time.monotonic() - begun) / seconds))
    return measured[1:]


def _in_page(url: str, prompt: Path, seconds: float, rounds: int, browser: str) -> list[dict[str, float]]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise AudioLMError("the first sound is measured in a browser: pip install playwright") from error
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.set_default_timeout(RUN_MS)
        page.goto(url, wait_until="load")
        page.set_input_files("#prompt input[type=file]", str(prompt))
        page.wait_for_selector("#prompt button[aria-label='Play']")
        _set(page, "num-continuations", 1)
        heard = [_round(page, seconds) for _ in range(rounds + 1)][1:]
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
    return _borders(received) | {
        "click_s": (received["state"]["firstSoundAt"] - clicked) / 1000.0,
        "stop_s": time.monotonic() - begun,
    }


def _borders(received: dict[str, Any]) -> dict[str, float]:
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
