from __future__ import annotations

import math

import pytest

from app.schemas import BOUNDS, CheckpointChoice, ContinueRequest, checked_levels
from audiolm.errors import RequestError
from audiolm.request import ContinuationRequest

CHOICE = CheckpointChoice("speech-small")


def test_defaults_are_the_pipelines():
    request = ContinueRequest.from_fields("a.wav", CHOICE, {})
    assert request.options == ContinuationRequest()


def test_bounds_lie_within_what_the_pipeline_takes():
    for end in ("minimum", "maximum"):
        fields = {name: getattr(bound, end) for name, bound in BOUNDS.items()}
        ContinueRequest.from_fields("a.wav", CHOICE, fields)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("step", [-1, 1])
def test_a_value_beyond_a_limit_is_refused_with_field_limits_and_value(name, step):
    bound = BOUNDS[name]
    value = bound.minimum - 1 if step < 0 else bound.maximum + 1
    with pytest.raises(RequestError, match=rf"^{name} must be .* to .*, found"):
        ContinueRequest.from_fields("a.wav", CHOICE, {name: value})


@pytest.mark.parametrize("value", ["seven", True, math.nan, math.inf, 10**400, [7]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(RequestError, match=r"continuation_s must be 1 to 30 s, found"):
        ContinueRequest.from_fields("a.wav", CHOICE, {"continuation_s": value})


def test_counts_must_be_whole():
    with pytest.raises(RequestError, match=r"num_continuations must be 1 to 4, a whole number, found 2\.5"):
        ContinueRequest.from_fields("a.wav", CHOICE, {"num_continuations": 2.5})
    request = ContinueRequest.from_fields("a.wav", CHOICE, {"num_continuations": 3.0})
    assert type(request.options.num_continuations) is int


def test_unknown_fields_and_prompt_parts_are_refused():
    with pytest.raises(RequestError, match="unknown field"):
        ContinueRequest.from_fields("a.wav", CHOICE, {"temperature": 1.0})
    with pytest.raises(RequestError, match="prompt_part must be one of codec, original, found 'both'"):
        ContinueRequest.from_fields("a.wav", CHOICE, {}, "both")


@pytest.mark.parametrize("audio", [None, ""])
def test_a_request_needs_a_recording(audio):
    with pytest.raises(RequestError, match="there is no recording"):
        ContinueRequest.from_fields(audio, CHOICE, {})


@pytest.mark.parametrize("text", ["speech-small", "org/name@v1.0", "runs/mine"])
def test_checkpoint_choices_read_back(text):
    assert CheckpointChoice.parse(text).text == text


def test_a_revision_follows_the_at_sign():
    assert CheckpointChoice.parse(" org/name@v1 ") == CheckpointChoice("org/name", "v1")


@pytest.mark.parametrize("text", [None, "", "  ", "@main", "x" * 501])
def test_no_checkpoint_is_refused(text):
    with pytest.raises(RequestError, match="checkpoint must"):
        CheckpointChoice.parse(text)


@pytest.mark.parametrize("levels", [[], [0], [13], ["4"], "4", None, [1] * 13, [2.5]])
def test_levels_out_of_range_are_refused(levels):
    with pytest.raises(RequestError, match="levels must be"):
        checked_levels(levels)


def test_levels_are_whole_numbers():
    assert checked_levels([12, 4.0, 1]) == (12, 4, 1)
