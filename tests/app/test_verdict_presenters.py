"""What is said of a verdict, a watermark and a control; and the picture of a verdict over time."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from app import verdict_presenters as presenters
from app.results import Judged
from app.service import Service
from app.tracks import track_html
from audiolm.streams import Waveform
from audiolm.watermark import MarkResult
from tests.app.test_presenters import HOSTILE
from tests.app.verdicts import heard, spliced, verdict, withheld

FOUND, NOT_FOUND = MarkResult(True, 0.98), MarkResult(False, 0.03)


@pytest.fixture(scope="module")
def judged(settings, tmp_path_factory) -> Judged:
    info = Service(settings).offer.infos()[0]
    folder = tmp_path_factory.mktemp("judged")
    return Judged(info, heard(spliced()), FOUND, None, heard(spliced()), "", folder, 0.5)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (verdict(probability=0.968), "Generated, 97 %"),
        (verdict(probability=0.9951), "Generated, over 99 %"),
        (verdict(label="original", probability=0.031), "Original, 97 %"),
        (verdict(label="original", probability=0.0), "Original, over 99 %"),
        (verdict(label="uncertain", probability=0.55), "Uncertain, 55 % generated"),
        (verdict(probability=0.968, boundary_s=3.125, judged_from_s=3.125), "Generated from 3.1 s on, 97 %"),
        (verdict(probability=0.968, boundary_s=3.125), "Generated, 97 %"),
        (withheld("too short: 0.40 s"), "Withheld: too short: 0.40 s"),
    ],
)
def test_a_verdict_reads_plainly_and_is_never_certain(one, said):
    assert presenters.headline(one) == said
    assert f">{said}</strong>" in presenters.verdict_html(one)


def test_a_verdict_shows_score_threshold_error_rates_with_n_scope_and_model():
    html = presenters.verdict_html(verdict())
    for part in (
        "Score 90.0 % generated. Threshold 50.0 %.",
        "1.0 % of 2,000 originals called generated (95 % interval 0.6 to 1.5)",
        "2.0 % of 1,800 generated ones missed (95 % interval 1.4 to 2.8)",
        "Holds only for audio of these checkpoints.",
        "Detector 0123456789ab.",
    ):
        assert part in html


def test_a_score_just_above_a_high_threshold_shows_as_above():
    html = presenters.verdict_html(verdict(probability=0.998, threshold=0.996))
    assert "Score 99.8 % generated. Threshold 99.6 %." in html


def test_a_withheld_verdict_shows_no_score_and_still_what_it_would_hold_for():
    html = presenters.verdict_html(withheld())
    assert "Score" not in html
    assert "meter" not in html
    assert "Holds only for audio of these checkpoints." in html
    assert "0123456789ab" in html


def test_error_rates_name_the_length_they_were_measured_at():
    assert presenters.error_rates(verdict(measured_s=4.0)).startswith("On held-out clips of 4 s: 1.0 % of 2,000")


def test_no_detector_is_no_score():
    assert "this checkpoint has none" in presenters.verdict_html(None)


def test_unmeasured_error_rates_are_admitted():
    unmeasured = verdict(false_positive_rate=None, false_negative_rate=None, num_originals=0, num_generated=0)
    assert presenters.error_rates(unmeasured) == "Its error rates have not been measured."


@pytest.mark.parametrize(
    ("mark", "said", "limits"),
    [
        (FOUND, "<strong>found</strong>, 0.98 against a threshold of 0.80", presenters.FOUND),
        (NOT_FOUND, "<strong>not found</strong>, 0.03 against a threshold of 0.80", presenters.NOT_FOUND),
        (MarkResult(False, 0.0, "too short: 0.3 s"), "<strong>not looked for</strong>: too short: 0.3 s", ""),
    ],
)
def test_a_watermark_is_told_with_what_that_is_worth(mark, said, limits):
    html = presenters.mark_html(mark)
    assert said in html
    assert limits in html
    assert ("threshold" in html) == (not mark.reason)


def test_a_continuation_says_whether_it_was_marked_and_whether_that_is_found_again(finished):
    receipt = replace(finished.saved[0].continuation.receipt, watermark=HOSTILE)
    found = presenters.carried_html(receipt, FOUND)
    lost = presenters.carried_html(receipt, NOT_FOUND)
    assert "<strong>yes</strong>" in found
    assert "0.98 against a threshold of" in found
    assert "is not found again, 0.03 against" in lost
    assert "<script" not in found + lost
    assert "<strong>none</strong>" in presenters.carried_html(receipt, None)


def test_a_file_with_a_receipt_is_called_generated_and_so_is_its_control(judged, finished):
    receipt = replace(finished.saved[0].continuation.receipt, checkpoint=HOSTILE)
    own = replace(judged, receipt=receipt)
    assert "GENERATED" in presenters.recording_html(own)
    assert "GENERATED" in presenters.control_html(own)
    assert "seed 11" in presenters.recording_html(own)
    assert "<script" not in presenters.recording_html(own)
    assert "GENERATED" not in presenters.recording_html(judged)
    assert "Receipt" not in presenters.recording_html(judged)


@pytest.mark.parametrize(
    ("recording", "control", "said"),
    [
        (verdict(), verdict(probability=0.7), "Same answer"),
        (verdict(label="original", probability=0.1), verdict(), "Another answer"),
        (verdict(), verdict(label="uncertain", probability=0.5), "Another answer"),
        (verdict(label="uncertain", probability=0.2), verdict(label="uncertain", probability=0.6), "both times"),
        (verdict(), withheld(), "one is withheld"),
        (withheld(), withheld(), "both are withheld"),
    ],
)
def test_the_control_says_whether_the_codec_alone_changes_the_answer(recording, control, said):
    assert said in presenters.agreement(recording, control)


def test_a_recording_that_the_codec_cannot_take_has_no_control_and_the_page_says_why(judged):
    html = presenters.control_html(replace(judged, control=None, no_control=HOSTILE))
    assert "There is no control" in html
    assert "<script" not in html


def test_foreign_text_in_a_verdict_is_escaped():
    for html in (
        presenters.verdict_html(withheld(HOSTILE, scope=HOSTILE, model_sha256=HOSTILE[:12])),
        presenters.mark_html(MarkResult(False, 0.0, HOSTILE)),
    ):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


# over time


def test_the_boundary_lies_at_its_time_in_spectrogram_and_course_and_is_told_in_words():
    one = heard(spliced())
    html = track_html(one.waveform, one.verdict, one.saliency, "the clip")
    assert html.count('class="boundary" style="left:62.50%"') == 2
    assert "Likely boundary at 1.2 s" in re.search(r"<figcaption>(.*)</figcaption>", html)[1]
    alt = re.search(r'alt="([^"]+)"', html)[1]
    assert alt.startswith("Mel spectrogram of the clip, 2.0 s, coloured")
    assert "least 5% at 0.5 s, most 97% at 1.5 s. Likely boundary at 1.2 s" in alt
    html = track_html(one.waveform, replace(one.verdict, label="uncertain"), one.saliency, "the clip")
    assert "Possible boundary at 1.2 s" in html
    assert "Likely" not in html


def test_the_course_of_the_score_is_drawn_in_seconds_with_its_threshold():
    html = track_html(heard(spliced()).waveform, spliced(), None, "the clip")
    assert 'viewBox="0 0 2.000 1"' in html
    assert 'points="0.00,0.9000 0.50,0.9500 1.00,0.8000 1.50,0.0300 2.00,0.1000"' in html
    assert 'y1="0.5000" y2="0.5000"' in html


def test_a_sound_of_one_kind_has_no_boundary_and_a_withheld_one_no_course():
    one = heard(verdict(segment_times_s=(0.0, 0.25), segment_probabilities=(0.9, 0.9)))
    html = track_html(one.waveform, one.verdict, one.saliency, "the clip")
    assert "No boundary" in html
    assert 'class="boundary"' not in html
    silent = heard(withheld())
    html = track_html(silent.waveform, silent.verdict, silent.saliency, "the clip")
    assert "the verdict is withheld" in html
    assert "<svg" not in html
    assert "checkbox" not in html


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0, 7.0, 12.0, 30.0])
def test_the_ticks_of_the_axis_fit_a_telephone(seconds):
    waveform = Waveform(torch.zeros(round(16_000 * seconds)))
    axis = track_html(waveform, withheld(), None, "the clip").partition('class="axis"')[2]
    places = [float(place) for place in re.findall(r"left:([\d.]+)%", axis)]
    assert 3 <= len(places) <= 8
    assert places[0] == 0.0
    assert places == sorted(places)
    assert places[-1] <= 100.0


def test_pictures_in_the_page_are_png(judged):
    for data in re.findall(r"data:image/png;base64,([^\"]+)", presenters.recording_html(judged)):
        assert base64.b64decode(data).startswith(b"\x89PNG")


# for the API


def test_the_row_of_a_judged_recording_is_json_with_everything_that_the_page_shows(judged):
    row = json.loads(json.dumps(presenters.judged_row(judged), allow_nan=False))
    assert row["headline"] == "Generated from 1.2 s on, 90 %"
    assert (row["label"], row["probability"], row["threshold"]) == ("generated", 0.9, 0.5)
    assert (row["false_positive_rate"], row["num_originals"], row["num_generated"]) == (0.01, 2000, 1800)
    assert row["scope"] == "holds only for audio of these checkpoints"
    assert row["model_sha256"].startswith("0123456789ab")
    assert row["boundary_s"] == 1.25
    assert len(row["segment_probabilities"]) == 5
    assert row["watermark"] == {"found": True, "confidence": 0.98, "reason": "", "threshold": 0.8}
    assert row["receipt"] is None
    assert row["control"]["headline"] == "Generated from 1.2 s on, 90 %"
    assert np.asarray(row["saliency"]).shape == (presenters.SALIENCY_BANDS, 5)
    assert np.abs(row["saliency"]).max() == 1.0
    assert row["saliency"][0][0] < 0 < row["saliency"][-1][0]


def test_the_row_of_a_withheld_verdict_has_reasons_in_place_of_numbers(judged):
    silent = replace(judged, recording=heard(withheld()), control=None, no_control="near silence")
    row = json.loads(json.dumps(presenters.judged_row(silent), allow_nan=False))
    assert row["probability"] is row["saliency"] is None
    assert row["reason"] == "too short: 0.40 s"
    assert row["control"] == {"reason": "near silence"}
