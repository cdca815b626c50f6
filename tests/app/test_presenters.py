from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app import presenters
from app.figures import LiveTokens
from app.results import Loading
from app.runs import Waiting
from audiolm.events import Progress
from audiolm.watermark import MarkResult
from tests.app.test_figures import LEVELS

HOSTILE = "<script>alert('x')</script>&\""


def test_progress_names_the_stage_and_the_rate():
    html = presenters.progress_html(Progress("coarse", 25, 100, 1234.5), 3.2)
    assert "Coarse tokens" in html
    assert "1,234 tokens/s" in html
    assert 'aria-valuenow="25"' in html
    assert 'role="progressbar"' in html


def test_stages_are_ticked_off_where_they_follow_each_other():
    progress = Progress("coarse", 1, 4, 0.0)
    assert "<ol" not in presenters.progress_html(progress)
    html = presenters.progress_html(progress, stages=presenters.CONTINUE_STAGES)
    assert '<li class="done">semantic</li><li class="now">coarse</li><li class="">fine</li>' in html


@pytest.mark.parametrize(("done", "total", "shown"), [(0, 0, 0), (5, 4, 100), (-1, 4, 0)])
def test_progress_stays_within_the_bar(done, total, shown):
    assert f'aria-valuenow="{shown}"' in presenters.progress_html(Progress("fine", done, total, 0.0))


def test_waiting_and_loading_are_said():
    assert presenters.event_text(Waiting(1, 1.0)) == "Waiting: 1 run goes first"
    assert presenters.event_text(Waiting(3, 1.0)) == "Waiting: 3 runs go first"
    assert presenters.event_text(Loading("speech-small")) == "Loading speech-small"
    assert presenters.event_row(Waiting(2, 1.0))["ahead"] == 2


def test_foreign_text_is_escaped(finished):
    info = replace(finished.checkpoint, summary=HOSTILE, domain=HOSTILE)
    receipt = replace(finished.saved[0].continuation.receipt, checkpoint=HOSTILE, verdict={"label": HOSTILE})
    for html in (
        presenters.checkpoint_html(info),
        presenters.receipt_html(receipt),
        presenters.notice_html(HOSTILE, "error"),
        presenters.busy_html(HOSTILE),
        presenters.busy_html(presenters.event_text(Loading(HOSTILE))),
    ):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_a_result_is_labelled_generated(finished):
    continuation = finished.saved[0].continuation
    assert "GENERATED" in presenters.heading_html(1, continuation)
    assert "1.0 s prompt + 1.0 s" in presenters.heading_html(1, continuation)


def test_the_last_line_shows_the_seed_back(finished):
    text = presenters.finished_text(finished.result, 2.0, ["a note"])
    assert text.startswith("2 continuations in 2.0 s · seed 11 · tokens: semantic")
    assert text.endswith("· a note")


def test_a_receipt_shows_seed_and_hashes_and_the_whole_of_itself(finished):
    receipt = finished.saved[1].continuation.receipt
    html = presenters.receipt_html(receipt)
    assert "11, row 1" in html
    assert receipt.tokens_sha256[:12] in html
    assert receipt.tokens_sha256 in html


def test_a_receipt_shows_watermark_and_verdict(finished):
    receipt = replace(finished.saved[0].continuation.receipt, watermark="some-mark 1.2", verdict={"label": "uncertain"})
    assert "<dt>watermark</dt><dd>some-mark 1.2</dd>" in presenters.receipt_html(receipt)
    assert "<dt>verdict</dt><dd>uncertain</dd>" in presenters.receipt_html(receipt)
    bare = presenters.receipt_html(replace(receipt, watermark="", verdict=None))
    assert "<dt>watermark</dt><dd>none</dd>" in bare
    assert "<dt>verdict</dt><dd>none</dd>" in bare


def test_rows_for_the_api_are_json(finished):
    row = json.loads(json.dumps(presenters.finished_row(finished)))
    assert row["status"] == "done"
    assert row["checkpoint"]["name"] == "tiny-speech"
    assert row["checkpoint"]["components"]["detector"] == finished.checkpoint.components["detector"].hash
    assert [one["generated"] for one in row["continuations"]] == [True, True]
    assert row["continuations"][0]["receipt"]["request"]["seed"] == 11
    assert row["continuations"][0]["watermark"] is None  # 1 s is too short for one
    mark = MarkResult(True, 0.9)
    marked = replace(finished, saved=(replace(finished.saved[0], mark=mark),))
    assert presenters.finished_row(marked)["continuations"][0]["watermark"]["confidence"] == 0.9
    assert json.dumps(presenters.event_row(Progress("fine", 1, 2, 3.0)))
    assert presenters.event_row(Waiting(0, 1.0))["status"] == "running"


def test_live_lanes_are_an_image_with_a_text_for_those_who_do_not_see_it():
    html = presenters.live_html(LiveTokens(2, 50, 100, LEVELS))
    assert "data:image/png;base64," in html
    assert 'alt="Token lanes' in html
    assert "--mark:50.00%" in html


@pytest.mark.parametrize(
    ("name", "shown"), [("speech_two_sisters.wav", "two sisters"), ("piano_3.flac", "3"), ("odd.wav", "odd")]
)
def test_prompts_are_named_after_their_files(name, shown):
    assert presenters.prompt_name(Path(name)) == shown
