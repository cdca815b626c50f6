"""The listening report as somebody opens it from the disk: it plays, follows, sorts, and asks nothing of a network."""

import numpy as np
import pytest

from audiolm.data.corpus import CorpusWriter, to_pcm
from audiolm.evaluation.__main__ import main
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("listening")
    with CorpusWriter(root / "data") as writer:
        for index in range(3):
            time = np.arange(48_000) / 16_000
            sound = 0.1 * np.sin(2 * np.pi * 300 * (index + 1) * time) * (1.0 + 0.8 * np.sin(2 * np.pi * 3 * time))
            writer.add(to_pcm(sound), id=f"i{index}", group=f"g{index}", split="test", source="s", licence="x")
    make_tiny_checkpoint(root / "piano", "piano")
    options = ["--prompt-s", "1", "--continuation-s", "1.2", "--data", str(root / "data")]
    assert main(["piano", "--checkpoint", str(root / "piano"), "--listening", str(root / "page"), *options]) == 0
    return root / "page/index.html"


@pytest.fixture
def page(browser, report):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert page.said == []
    assert all(url.startswith("file:") for url in page.asked)
    page.close()


def wait_until(page, condition):
    """The page's policy forbids what `wait_for_function` does."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def clips(page):
    return page.locator("table.sortable tbody tr th a").all_inner_texts()


def test_tables_sort_by_any_heading(page):
    heading = page.locator("table.sortable thead button", has_text="loudness")
    cells = page.locator("table.sortable tbody tr td:last-child")
    heading.click()
    values = [float(value) for value in cells.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")]
    assert values == sorted(values, reverse=True)
    heading.click()
    assert clips(page) != ["1", "2", "3"] or values == sorted(values)
    page.locator("table.sortable thead button", has_text="clip").click()
    assert clips(page) == ["1", "2", "3"]


def test_the_continuation_plays_from_the_join_and_the_line_follows(page):
    figure = page.locator("figure").first
    figure.locator("button.jump").click()
    wait_until(page, "document.querySelector('audio').currentTime > 1.0")
    wait_until(page, "!document.querySelector('.head').hidden")


def test_a_click_into_the_picture_plays_from_there_and_stops_the_other(page):
    page.locator("figure").nth(0).locator("button.jump").click()
    picture = page.locator("figure").nth(1).locator(".picture")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.97, "y": box["height"] / 2})
    wait_until(page, "document.querySelectorAll('figure audio')[1].currentTime > 1.8")
    wait_until(page, "document.querySelectorAll('figure audio')[0].paused")


@pytest.mark.parametrize("width", [1600, 390])
def test_the_page_never_scrolls_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
