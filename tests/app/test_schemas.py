from __future__ import annotations

import math

import pytest

from app.schemas import (
    ABLATE_FIELDS,
    BOUNDS,
    CONTINUE_FIELDS,
    LADDER_FIELDS,
    SAMPLING_BOUNDS,
    VOICES_FIELDS,
    AblateRequest,
    CheckpointChoice,
    ClipRequest,
    ContinueRequest,
    LadderRequest,
    VoicesRequest,
    checked,
    checked_levels,
    sampling_fields,
)
from audiolm.config import USUAL_SAMPLING, SamplingConfig
from audiolm.errors import RequestError
from audiolm.request import ContinuationRequest

CHOICE = CheckpointChoice("speech-small")


def test_defaults_are_the_pipelines():
    request = ContinueRequest.from_fields("a.wav", CHOICE, {})
    assert request.options == ContinuationRequest()


def test_bounds_lie_within_what_the_pipeline_takes():
    for end in ("minimum", "maximum"):
        fields = {name: getattr(BOUNDS[name], end) for name in CONTINUE_FIELDS}
        ContinueRequest.from_fields("a.wav", CHOICE, fields)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("step", [-1, 1])
def test_a_value_beyond_a_limit_is_refused_with_field_limits_and_value(name, step):
    bound = BOUNDS[name]
    value = bound.minimum - 1 if step < 0 else bound.maximum + 1
    with pytest.raises(RequestError, match=rf"^{name} must be .* to .*, found"):
        checked({name: value}, tuple(BOUNDS), {})


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


def test_sampling_that_is_not_given_is_the_checkpoints():
    own = {**USUAL_SAMPLING, "coarse": SamplingConfig(temperature=0.9, top_k=50, top_p=0.8)}
    options = ContinueRequest.from_fields("a.wav", CHOICE, {"coarse_top_k": 7}, sampling=own).options
    assert options.coarse == SamplingConfig(temperature=0.9, top_k=7, top_p=0.8)
    assert options.fine == USUAL_SAMPLING["fine"]


def test_a_checkpoints_sampling_fits_the_sliders():
    fields = sampling_fields({**USUAL_SAMPLING, "fine": SamplingConfig(temperature=5.0, top_k=5000)})
    assert list(fields) == list(SAMPLING_BOUNDS)
    assert (fields["fine_temperature"], fields["fine_top_k"]) == (2.0, 1024)


@pytest.mark.parametrize(("audio", "checkpoint"), [(None, "speech-small"), ("", "speech-small"), ("a.wav", None)])
def test_a_clip_needs_a_recording_and_a_checkpoint(audio, checkpoint):
    with pytest.raises(RequestError, match=r"there is no recording|checkpoint must be"):
        ClipRequest.of(audio, checkpoint)


def test_requests_about_a_clip_take_their_own_numbers_alone():
    clip = ClipRequest.of("a.wav", "speech-small")
    requests = (
        (LADDER_FIELDS, lambda fields: LadderRequest.from_fields(clip, fields)),
        (VOICES_FIELDS, lambda fields: VoicesRequest.from_fields(clip, None, fields)),
        (ABLATE_FIELDS, lambda fields: AblateRequest.from_fields(clip, fields)),
    )
    for names, build in requests:
        asked = build(dict.fromkeys(names))
        assert {name: getattr(asked, name) for name in names} == {name: BOUNDS[name].default for name in names}
        with pytest.raises(RequestError, match="unknown field"):
            build({"fine_top_k": 1})
        with pytest.raises(RequestError, match="seed must be 0 to"):
            build({"seed": -1})


def test_a_voice_is_optional():
    clip = ClipRequest.of("a.wav", "speech-small")
    assert VoicesRequest.from_fields(clip, "", {}).voice is None
    assert VoicesRequest.from_fields(clip, "b.wav", {}).voice.name == "b.wav"
