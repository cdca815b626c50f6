from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.study import protocol
from app.study.answers import COMMENT, MAX_COMMENT, read_answer
from app.study.definition import (
    AB,
    ABX,
    ATTENTION,
    HEADPHONES,
    MOS,
    MUSHRA,
    PRACTICE,
    REAL_OR_SYNTHETIC,
    SCORED,
    TRAP,
    Checks,
)
from app.study.errors import AnswerError
from app.study.presentation import feedback, trial_view
from app.study.protocol import PlannedTrial
from tests.app.study.studies import make_study

MUSHRA_STUDY, _ = make_study(MUSHRA)


def planned(study, role=SCORED):
    return next(one for one in protocol.order(study, "key", 0) if one.role == role)


def read(kind=REAL_OR_SYNTHETIC, role=SCORED, elapsed_s=60.0, must_play=0.0, **payload):
    study, _ = make_study(kind, with_checks=True, checks=Checks(must_play=must_play))
    return read_answer(study, planned(study, role), payload, elapsed_s)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (REAL_OR_SYNTHETIC, {"value": "fake"}),
        (REAL_OR_SYNTHETIC, {}),
        (REAL_OR_SYNTHETIC, {"value": ["original"]}),
        (REAL_OR_SYNTHETIC, {"value": "original", "score": 3}),
        (REAL_OR_SYNTHETIC, {"value": "original", "plays": [1, 1]}),
        (REAL_OR_SYNTHETIC, {"value": "original", "plays": [0.5]}),
        (REAL_OR_SYNTHETIC, {"value": "original", "plays": [-1]}),
        (REAL_OR_SYNTHETIC, {"value": "original", "plays": [10**400]}),
        (REAL_OR_SYNTHETIC, {"value": "original", "listened_s": [float("nan")]}),
        (REAL_OR_SYNTHETIC, {"value": "original", "listened_s": "1"}),
        (REAL_OR_SYNTHETIC, {"value": "original", "response_s": True}),
        (REAL_OR_SYNTHETIC, {"value": "original", "response_s": float("inf")}),
        (AB, {"value": "tie"}),
        (MOS, {"value": 5}),
        (MUSHRA, {"scores": [1, 2]}),
        (MUSHRA, {"scores": [1, 2, 101]}),
        (MUSHRA, {"value": "5"}),
    ],
)
def test_what_a_trial_does_not_ask_for_is_refused(kind, payload):
    with pytest.raises(AnswerError):
        read(kind, **payload)


@pytest.mark.parametrize(
    ("kind", "role", "value", "correct"),
    [
        (MOS, SCORED, "4", None),
        (AB, SCORED, "first", None),
        (REAL_OR_SYNTHETIC, SCORED, "beeps", None),
        (REAL_OR_SYNTHETIC, TRAP, "beeps", True),
        (REAL_OR_SYNTHETIC, TRAP, "generated", False),
        (REAL_OR_SYNTHETIC, ATTENTION, "original", True),
        (REAL_OR_SYNTHETIC, ATTENTION, "generated", False),
        (REAL_OR_SYNTHETIC, ATTENTION, "beeps", False),
    ],
)
def test_answers_are_right_wrong_or_neither(kind, role, value, correct):
    assert read(kind, role, value=value).correct is correct


def test_a_guess_is_right_where_it_is_the_truth():
    study, _ = make_study()
    for one in protocol.order(study, "key", 0):
        truth = study.clip(one.clips[0]).truth
        assert read_answer(study, one, {"value": truth}, 60.0).correct is True
        assert (
            read_answer(study, one, {"value": {"original": "generated"}.get(truth, "original")}, 60.0).correct is False
        )


def test_abx_is_right_where_x_is():
    study, _ = make_study(ABX)
    one = planned(study)
    assert read_answer(study, one, {"value": one.side[-1]}, 60.0).correct is True


def test_the_expected_answer_of_an_ab_trial_follows_its_clips_to_the_other_side():
    study, _ = make_study(AB, with_checks=True, checks=Checks(must_play=0.0, practice_feedback=True))
    expected = {PRACTICE: "first", ATTENTION: "first"}
    trials = tuple(replace(one, expected=expected.get(one.role, one.expected)) for one in study.trials)
    study = replace(study, trials=trials)
    seen = set()
    for key in "abcdefgh":
        for one in protocol.order(study, key, 0):
            if one.role == PRACTICE:
                right = "first" if one.clips == study.trial(one.trial).clips else "second"
                answer = read_answer(study, one, {"value": "first"}, 60.0)
                assert answer.correct is (right == "first")
                assert feedback(study, one, answer, {}).truth == right
                seen.add(right)
            if one.role == ATTENTION:  # it says what to choose, whatever is heard
                assert read_answer(study, one, {"value": "first"}, 60.0).correct is True
    assert seen == {"first", "second"}


def test_headphone_trials_have_no_button_for_beeps():
    with pytest.raises(AnswerError):
        read(role=HEADPHONES, value="beeps")


def test_every_sound_must_be_heard_as_told_by_the_page_and_by_the_servers_clock():
    heard = {"value": "original", "plays": [1]}
    study, _ = make_study(checks=Checks(must_play=1.0))
    one = protocol.order(study, "key", 0)[0]
    long = replace(study, clips=tuple(replace(clip, num_samples=160_000) for clip in study.clips))
    with pytest.raises(AnswerError, match=r"must be heard for 10\.0 s first, found 4\.0 s"):
        read_answer(long, one, {**heard, "listened_s": [4.0]}, 60.0)
    with pytest.raises(AnswerError, match=r"an answer after 4\.0 s"):
        read_answer(long, one, {**heard, "listened_s": [10.0]}, 4.0)
    assert read_answer(long, one, {**heard, "listened_s": [9.9]}, 10.0).listened_s == (9.9,)


def test_a_comment_is_text_of_bounded_length_without_control_characters():
    study, _ = make_study()
    step = PlannedTrial(9, "", COMMENT, ())
    assert read_answer(study, step, {"text": " a\x00b\x1b[31m\r\nc\t\u202ed "}, 1.0).value == "ab[31m\nc\td"
    for text in ("x" * (MAX_COMMENT + 1), 5, None, ["x"]):
        with pytest.raises(AnswerError):
            read_answer(study, step, {"text": text}, 1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["value", "scores", "text", "plays", "listened_s", "response_s", "x"]), JSON) | JSON
)
def test_nothing_that_is_sent_raises_anything_else(payload):
    study = MUSHRA_STUDY
    try:
        answer = read_answer(study, planned(study), payload, 60.0)
    except AnswerError:
        return
    assert all(0.0 <= score <= 100.0 for score in answer.scores)


@pytest.mark.parametrize("with_checks", [True, False])
def test_beeps_are_asked_for_only_where_a_study_has_some(with_checks):
    study, _ = make_study(with_checks=with_checks)
    assert trial_view(study, planned(study), 9, "key", ("handle",)).beeps == with_checks
