from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from app.settings import ASSETS
from app.timeline_payload import ABSENT, MAX_TIME_S, Selection, parse_selection, payload
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import RequestError
from audiolm.inspection.figures import FAMILIES
from audiolm.inspection.timeline import Timeline, TokenLane
from audiolm.streams import Waveform
from tests.app.timelines import make_timeline

CHOSEN = {"family": "coarse", "level": 3, "id": 517, "time_s": 4.52}


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return make_timeline(4.0, prompt_s=1.5)


@pytest.fixture(scope="module")
def sent(timeline) -> dict:
    return payload(timeline)


def numbers(text: str, dtype: str = "<u2") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_it_is_json_without_numbers_that_browsers_refuse(sent):
    assert json.loads(json.dumps(sent, allow_nan=False)) == sent


def test_numbers_are_pythons_own_since_gradio_sends_others_as_text(sent):
    def leaves(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from leaves(inner)
        else:
            yield value

    assert {type(leaf) for leaf in leaves(sent)} <= {str, int, float, bool, type(None)}


def test_ten_seconds_after_a_prompt_send_less_than_one_megabyte_with_their_sound():
    timeline = make_timeline(13.0)
    text = len(json.dumps(payload(timeline)))
    assert 350_000 < text < 550_000  # measured: 0.49 MB
    assert text + 2 * len(timeline.waveform.samples) < 1_000_000


def test_ids_and_ranks_come_through_exactly(timeline, sent):
    for lane, out in zip(timeline.lanes, sent["lanes"], strict=True):
        shape = (out["num_frames"], out["num_levels"])
        assert (numbers(out["ids"]).reshape(shape) == lane.ids.numpy()).all()
        assert (out["scores"] is None) == (lane.scores is None)
        if lane.scores is None:
            continue
        assert (numbers(out["scores"]["rank"]).reshape(shape) == lane.scores.rank.numpy()).all()
        top = numbers(out["scores"]["top_ids"]).reshape(*shape, out["scores"]["num_top"])
        assert (top == lane.scores.top_ids.numpy()).all()


def test_scores_come_through_to_half_a_thousandth_of_a_nat(timeline, sent):
    scores, out = timeline.lanes[2].scores, sent["lanes"][2]["scores"]
    for name in ("nats", "entropy"):
        assert np.abs(numbers(out[name]) / 1000 - getattr(scores, name).numpy().ravel()).max() <= 0.00051
    probabilities = np.exp(numbers(out["top_nats"]) / -1000)
    np.testing.assert_allclose(probabilities, scores.top_probabilities.numpy().ravel(), rtol=6e-4)


def test_what_is_not_there_is_marked_absent(timeline):
    scores = timeline.lanes[0].scores
    nats, rank = scores.nats.clone(), scores.rank.clone()
    nats[0], rank[0], nats[1] = math.nan, -1, math.inf
    ids = timeline.lanes[0].ids.clone()
    ids[0] = -1
    lane = replace(timeline.lanes[0], ids=ids, scores=replace(scores, nats=nats, rank=rank))
    out = payload(replace(timeline, lanes=(lane,)))["lanes"][0]
    assert numbers(out["ids"])[0] == numbers(out["scores"]["rank"])[0] == numbers(out["scores"]["nats"])[0] == ABSENT
    assert numbers(out["scores"]["nats"])[1] == ABSENT - 1


def test_ids_that_do_not_fit_are_refused():
    lane = TokenLane("coarse", "coarse 1-1", 50, 1, torch.tensor([[ABSENT]]))
    with pytest.raises(ValueError, match="below 65535, found 65535"):
        payload(replace(make_timeline(1.0, 0.0), lanes=(lane,)))


def test_a_click_stands_at_its_time_in_waveform_and_mel():
    samples = torch.zeros(2 * SAMPLE_RATE_HZ)
    samples[round(1.234 * SAMPLE_RATE_HZ)] = 0.9
    out = payload(replace(make_timeline(2.0, 0.0), waveform=Waveform(samples)))
    peaks = numbers(out["waveform"]["peaks"], "i1").reshape(-1, 2)
    assert abs((peaks[:, 1].argmax() + 0.5) * out["waveform"]["step_s"] - 1.234) <= 0.001
    mel = numbers(out["mel"]["values"], "u1").reshape(80, -1)
    assert mel.shape[1] == out["mel"]["num_columns"]
    assert abs(mel.sum(axis=0, dtype=int).argmax() * out["mel"]["step_s"] - 1.234) <= 0.005


def test_silence_is_drawn_as_silence():
    out = payload(replace(make_timeline(1.0, 0.0), waveform=Waveform(torch.zeros(SAMPLE_RATE_HZ))))
    assert not numbers(out["waveform"]["peaks"], "i1").any()


def test_the_detectors_segments_count_from_the_clips_start(timeline, sent):
    assert sent["detector"]["times_s"][0] == pytest.approx(1.5 + timeline.verdict.segment_times_s[0])
    assert payload(replace(timeline, verdict=None))["detector"] is None


def test_notes_say_what_is_re_estimated_and_how_the_join_is(timeline, sent):
    assert sent["notes"] == [
        "The join: its spectral change is above 62 % of the prompt's own, within what the prompt itself does; "
        "the level steps by +0.8 dB.",
        "semantic, heard again: re-estimated from the output",
    ]
    unknown = replace(timeline, seam=replace(timeline.seam, level_step_db=-math.inf, seamless=False))
    assert payload(unknown)["notes"][0].endswith("standing out from it.")


def test_a_recording_without_scores_verdict_or_notes_is_a_timeline_too(timeline):
    bare = Timeline(timeline.waveform, 0.0, False, (replace(timeline.lanes[0], scores=None),))
    out = payload(bare)
    assert out["roll"] is out["detector"] is out["seam"] is None
    assert out["notes"] == []


def test_script_and_static_figure_paint_tokens_in_the_same_colours():
    script = (ASSETS / "timeline/lanes.js").read_text()
    for family, colours in FAMILIES.items():
        stops = re.findall(r'"(#[0-9a-f]{6})"', re.search(rf"^  {family}: \[(.*)\]", script, re.MULTILINE).group(1))
        drawn = colours(np.linspace(0, 1, len(stops)))[:, :3]
        np.testing.assert_allclose([to_rgb(stop) for stop in stops], drawn, atol=2 / 255)


def test_the_script_asks_no_other_server_and_never_sets_markup():
    forbidden = r"https?:|@import|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|</script"
    for name in ("lanes.js", "timeline.js", "timeline.css"):
        text = (ASSETS / "timeline" / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(forbidden, text)


def test_a_selection_is_taken():
    assert parse_selection(CHOSEN) == Selection("coarse", 3, 517, 4.52)
    assert parse_selection({"family": "semantic", "level": 0, "id": 0, "time_s": 0}).time_s == 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"family": "Coarse"}, "family must be one of"),
        ({"family": ["coarse"]}, "family must be one of"),
        ({"family": None}, "family must be one of"),
        ({"family": "x" * 10_000}, "family must be one of"),
        ({"family": "semantic"}, "level must be 0 for semantic"),
        ({"level": 0}, "at least 1 for others"),
        ({"level": -1}, "level must be a whole number"),
        ({"level": 65}, "level must be a whole number of 0 to 64"),
        ({"level": 10**400}, "level must be a whole number"),
        ({"level": True}, "level must be a whole number"),
        ({"level": "3"}, "level must be a whole number"),
        ({"id": -1}, "id must be a whole number"),
        ({"id": 1.5}, "id must be a whole number"),
        ({"id": ABSENT}, "id must be a whole number of 0 to 65534"),
        ({"id": [1]}, "id must be a whole number"),
        ({"id": {"__proto__": 1}}, "id must be a whole number"),
        ({"time_s": math.nan}, "time_s must be"),
        ({"time_s": math.inf}, "time_s must be"),
        ({"time_s": -0.01}, "time_s must be"),
        ({"time_s": MAX_TIME_S + 1}, "time_s must be"),
        ({"time_s": "<script>"}, "time_s must be"),
        ({"path": "/etc/passwd"}, "and nothing else"),
    ],
)
def test_a_hostile_selection_is_refused_in_few_words(change, words):
    with pytest.raises(RequestError, match=words) as refused:
        parse_selection({**CHOSEN, **change})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("data", [None, [], "coarse", 3, {}, {"family": "coarse"}, [CHOSEN], b"{}"])
def test_what_is_no_selection_at_all_is_refused(data):
    with pytest.raises(RequestError, match="a selection must have"):
        parse_selection(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=3
)


@given(st.dictionaries(st.sampled_from(sorted(CHOSEN)), VALUES) | VALUES)
def test_anything_is_either_a_selection_within_limits_or_a_refusal(data):
    try:
        chosen = parse_selection(data)
    except RequestError:
        return
    assert chosen.family in FAMILIES
    assert 0 <= chosen.time_s <= MAX_TIME_S
