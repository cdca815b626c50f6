from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from app import inspect_presenters as presenters
from app.dictionary import Heard, OpenClip, look_up
from app.pictures import MAX_COLUMNS, bars_svg, mel_png
from app.results import Compared, Inspected, Version
from app.service import Service
from app.timeline_payload import Selection
from audiolm.inspection.dictionary import Occurrence
from audiolm.inspection.files import TimelineFiles
from audiolm.inspection.seam import Seam
from audiolm.streams import Waveform
from tests.app.test_presenters import HOSTILE
from tests.app.timelines import make_timeline
from tests.app.verdicts import verdict


@pytest.fixture(scope="module")
def info(settings):
    return Service(settings).offer.infos()[0]


@pytest.fixture(scope="module")
def inspected(info) -> Inspected:
    nowhere = TimelineFiles(*[Path("nowhere")] * 6)
    return Inspected(info, make_timeline(6.0), None, nowhere, 1.5)


@pytest.fixture(scope="module")
def compared(info) -> Compared:
    tone = Waveform(torch.sin(torch.arange(16_000) / 9.0))
    versions = (
        Version("full", tone, Path("0.wav"), True, {"seam_flux_percentile": 0.625, "level_step_db": -1.25}),
        Version("4 levels", tone, Path("1.wav"), False, {"mel_distance_nats": 0.5, "si_sdr_db": None}, None, verdict()),
    )
    return Compared(info, "ablations", versions, Path("."), 0.5, ("a note",))


def test_a_generated_clip_is_labelled_and_its_parts_are_told(inspected):
    html = presenters.inspected_heading(inspected)
    assert "GENERATED" in html
    assert "3.0 s prompt + 3.0 s" in html
    recording = replace(inspected, timeline=make_timeline(6.0, prompt_s=0.0))
    assert "GENERATED" not in presenters.inspected_heading(recording)


def test_a_clip_is_called_by_its_number_in_the_page_or_by_its_file(inspected):
    assert presenters.clip_name(inspected, "x" * 80) == "x" * 24
    made = SimpleNamespace(receipt=SimpleNamespace(row=1))
    assert presenters.clip_name(replace(inspected, made=made), "whole") == "Continuation 2"


def test_doubt_is_told_of_prompt_and_continuation_apart(inspected):
    html = presenters.doubt_html(inspected.timeline)
    assert html.count("<tr>") == 2 + len(inspected.timeline.lanes)
    assert ">prompt</th>" in html
    assert ">continuation</th>" in html
    assert html.count("<td>–</td>") == 6  # the lane without scores
    assert ">whole</th>" in presenters.doubt_html(make_timeline(6.0, prompt_s=0.0))


@pytest.mark.parametrize(("seamless", "words"), [(True, "does not stand out"), (False, "stands out")])
def test_the_seam_meter_is_numbers_and_words(seamless, words):
    html = presenters.seam_html(Seam(0.4, 0.97, -2.35, seamless))
    for part in (f"The join {words}", "change above 97 %", "limit 95 %", "level -2.4 dB", 'role="img"'):
        assert part in html


def test_without_a_join_there_is_no_meter():
    assert presenters.seam_html(None) == ""


def test_rows_for_the_api_are_json(inspected, compared):
    row = json.loads(json.dumps(presenters.inspected_row(inspected)))
    assert (row["status"], row["generated"], len(row["lanes"])) == ("done", True, 4)
    row = json.loads(json.dumps(presenters.compared_row(compared)))
    assert [version["label"] for version in row["versions"]] == ["full", "4 levels"]
    assert row["versions"][1]["mel_distance_nats"] == 0.5
    assert row["versions"][1]["verdict"]["label"] == "generated"
    assert row["notes"] == ["a note"]


def test_versions_are_told_with_their_figures(compared):
    full, levels = presenters.version_rows(compared)
    assert full["figures"] == ["join above 62% of the prompt's own change", "level -1.2 dB at the join"]
    assert full["note"] == "All three stages."
    assert levels["figures"] == ["mel distance 0.50 nats", "detector: Generated, 90 %"]
    assert levels["picture"].startswith("data:image/png;base64,")
    assert presenters.compared_text(compared).startswith("2 versions by tiny-speech · a note · Detector's scores: ")
    assert "2.0 % of 1,800 generated ones missed" in presenters.compared_text(compared)
    unjudged = replace(compared, versions=compared.versions[:1])
    assert presenters.compared_text(unjudged) == "1 versions by tiny-speech · a note"


def test_a_dictionary_entry_has_its_figures_pictures_and_neighbours(info, tmp_path):
    clip = OpenClip("mine", info, make_timeline(6.0))
    token = int(clip.timeline.lanes[0].ids[50, 0])
    entry = look_up([clip], Selection("semantic", 0, token, 2.0), tmp_path).entry
    for domain, picture in (("speech", "mean spectrum"), ("piano", "energy by pitch class")):
        html = presenters.entry_html(entry, 1, domain)
        for part in (f"token {token}", "in 1 open clip,", "durations of its runs", picture, "Before it", "After it"):
            assert part in html


def test_an_occurrence_is_named_by_its_time_and_where_there_are_several_by_its_clip():
    heard = Heard("mine", Occurrence(0, 1.2, 1.28), 0.0, 0.48)
    assert presenters.occurrence_label(heard, False) == "1.20 s"
    assert presenters.occurrence_label(heard, True) == "mine, 1.20 s"


def test_foreign_text_is_escaped(inspected):
    hostile = replace(inspected, checkpoint=replace(inspected.checkpoint, name=HOSTILE))
    lanes = tuple(replace(lane, label=HOSTILE) for lane in inspected.timeline.lanes)
    for html in (
        presenters.inspected_heading(hostile),
        presenters.doubt_html(replace(inspected.timeline, lanes=lanes)),
        bars_svg([1.0], {0: HOSTILE}, HOSTILE),
    ):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize("seconds", [0.5, 30.0])
def test_a_mel_picture_is_a_small_png_of_bounded_width(seconds):
    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000))).float()
    with Image.open(io.BytesIO(mel_png(Waveform(samples)))) as picture:
        assert picture.size[0] <= MAX_COLUMNS
        assert picture.size[1] == 80


def test_silence_can_be_pictured():
    assert mel_png(Waveform(torch.zeros(8_000)))
    assert 'height="0.0%"' in bars_svg([0.0, 0.0], {}, "nothing")
