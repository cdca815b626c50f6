"""What the service makes of a clip: its timeline, its versions; and the dictionary over open clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from app.clips import read_clip
from app.dictionary import MAX_OPEN, OpenClip, look_up, with_opened
from app.results import Compared, Finished, Inspected
from app.schemas import AblateRequest, CheckpointChoice, ClipRequest, LadderRequest, VoicesRequest
from app.timeline_payload import Selection
from app.versions import NO_SPEAKERS
from audiolm.audio import files
from audiolm.errors import AudioTooShortError, RequestError
from audiolm.events import Progress
from audiolm.receipt import Receipt
from tests.app.conftest import Service, write_tone
from tests.app.test_service import SPEECH, asked, last
from tests.app.timelines import make_timeline
from tests.pipeline.material import KEPT_S


@pytest.fixture
def clip(recording) -> ClipRequest:
    return ClipRequest(recording, SPEECH)


@pytest.fixture(scope="module")
def made(settings, recording, tmp_path_factory) -> tuple[Finished, Path, Path]:
    """A finished run, and its files as a visitor has them: the whole, and the continuation alone."""
    folder = tmp_path_factory.mktemp("made")
    for event in Service(settings).continue_prompt(asked(recording)):
        if isinstance(event, Finished):
            whole = event.saved[0].whole.rename(folder / "whole.wav")
            return event, whole, event.saved[0].generated.rename(folder / "only.wav")
    raise AssertionError("a run ends with Finished")


def test_a_recording_is_read_and_scored_and_written(service, clip):
    for event in service.inspect(clip):
        if isinstance(event, Inspected):
            assert event.made is None
            assert event.timeline.generated is False
            assert all(lane.scores is not None for lane in event.timeline.lanes)
            assert all(path.exists() for path in event.files.paths)
            assert json.loads(event.files.numbers.read_text())["prompt_s"] == 0.0
            return
    pytest.fail("no Inspected event")


def test_an_inspection_says_how_far_it_is(service, clip):
    stages = {event.stage for event in service.inspect(clip) if isinstance(event, Progress)}
    assert {"encode", "score", "draw"} <= stages


def test_a_file_of_a_known_run_is_shown_with_the_runs_own_tokens(service, made):
    finished, whole, _ = made
    known = [saved.continuation for saved in finished.saved]
    inspected = last(service.inspect(ClipRequest(whole, SPEECH), known))
    assert inspected.made.receipt == known[0].receipt
    assert inspected.timeline.prompt_s == known[0].prompt_s == KEPT_S
    assert inspected.timeline.generated is True


def test_a_generated_file_of_an_unknown_run_is_still_called_generated(service, made):
    finished, whole, only = made
    known = [saved.continuation for saved in finished.saved]
    for path, runs in ((whole, []), (only, known)):
        inspected = last(service.inspect(ClipRequest(path, SPEECH), runs))
        assert inspected.made is None
        assert inspected.timeline.generated is True


def test_another_checkpoint_reads_a_continuation_as_a_recording(service, made):
    finished, whole, _ = made
    known = [saved.continuation for saved in finished.saved]
    inspected = last(service.inspect(ClipRequest(whole, CheckpointChoice("tiny-piano")), known))
    assert inspected.made is None
    assert inspected.timeline.roll is not None


def test_a_recording_without_a_receipt_is_no_generated_one(recording, made):
    assert not read_clip(recording, 30.0).generated
    assert read_clip(made[1], 30.0).receipt == made[0].saved[0].continuation.receipt


def test_the_ladder_is_files_of_one_length_and_its_draws_are_generated(service, clip):
    for event in service.ladder(LadderRequest(clip, seed=1, num_draws=2)):
        if isinstance(event, Compared):
            labels = [version.label for version in event.versions]
            assert labels == [
                *("original", "4 levels", "2 levels", "1 level"),
                *("semantic only, draw 1", "semantic only, draw 2"),
            ]
            assert len({soundfile.info(version.audio).frames for version in event.versions}) == 1
            assert [version.generated for version in event.versions] == [False] * 4 + [True] * 2
            assert event.versions[1].figures["mel_distance_nats"] > 0
            draw = event.versions[-1]
            assert Receipt.from_json(files.read_comment(draw.audio)) == draw.receipt
            assert json.loads(files.read_comment(event.versions[1].audio))["label"] == "through the codec, 4 levels"
            return
    pytest.fail("no Compared event")


def test_every_rung_of_a_generated_clip_is_generated(service, made):
    request = LadderRequest(ClipRequest(made[1], SPEECH), seed=1, num_draws=1)
    assert all(version.generated for version in last(service.ladder(request)).versions)


@pytest.mark.parametrize("with_voice", [False, True])
def test_voices_are_as_long_as_the_clip_and_say_how_alike_they_are(service, clip, tmp_path, with_voice):
    voice = write_tone(tmp_path / "voice.wav", 1.5) if with_voice else None
    compared = last(service.voices(VoicesRequest(clip, voice, prompt_s=1.0, num_voices=2, seed=3)))
    assert len(compared.versions) == 3
    assert len({version.waveform.samples.shape for version in compared.versions}) == 1
    assert [version.generated for version in compared.versions] == [False, True, True]
    names = set(compared.versions[1].figures)
    expected = {"speaker_similarity_to_clip"} | ({"speaker_similarity_to_voice"} if with_voice else set())
    assert (names == expected) if not compared.notes else (compared.notes == (NO_SPEAKERS,))


def test_a_voice_that_cannot_be_read_is_told_from_the_clip(service, clip, tmp_path):
    short = write_tone(tmp_path / "short.wav", 0.2)
    with pytest.raises(AudioTooShortError, match=r"the voice to follow: 0\.2 s of sound"):
        last(service.voices(VoicesRequest(clip, short, prompt_s=1.0, num_voices=1, seed=0)))


def test_piano_has_no_speakers(service, recording):
    clip = ClipRequest(recording, CheckpointChoice("tiny-piano"))
    compared = last(service.voices(VoicesRequest(clip, None, prompt_s=1.0, num_voices=1, seed=3)))
    assert compared.notes == ()
    assert compared.versions[1].figures == {}


def test_ablations_stand_beside_the_full_model_with_one_seed(service, clip):
    compared = last(service.ablate(AblateRequest(clip, prompt_s=1.0, continuation_s=1.0, seed=5)))
    assert [version.label for version in compared.versions] == [
        "full",
        "no fine stage",
        "no semantic stage",
        "shuffled semantics",
    ]
    assert {version.receipt.request.seed for version in compared.versions} == {5}
    assert all(version.generated and version.verdict is not None for version in compared.versions)
    assert compared.prompt_s == KEPT_S


def test_a_prompt_too_short_for_the_seam_meter_is_continued_without_it(service, clip):
    compared = last(service.ablate(AblateRequest(clip, prompt_s=0.5, continuation_s=1.0, seed=5)))
    assert [dict(version.figures) for version in compared.versions] == [{}] * 4


def test_what_cannot_be_inspected_is_a_typed_error_and_the_next_run_succeeds(service, clip, tmp_path):
    short = ClipRequest(write_tone(tmp_path / "short.wav", 0.2), SPEECH)
    for run in (
        service.inspect(short),
        service.ladder(LadderRequest(short, 0, 1)),
        service.voices(VoicesRequest(clip, short.audio, 1.0, 1, 0)),
        service.ablate(AblateRequest(short, 1.0, 1.0, 0)),
    ):
        with pytest.raises(AudioTooShortError):
            last(run)
    assert last(service.inspect(clip)).timeline.lanes


# the dictionary


@pytest.fixture(scope="module")
def opened(made) -> OpenClip:
    finished, _, _ = made
    return OpenClip("first", finished.checkpoint, make_timeline(4.0))


def chosen(clip: OpenClip) -> Selection:
    return Selection("semantic", 0, int(clip.timeline.lanes[0].ids[40, 0]), 1.6)


def test_a_token_is_looked_up_in_all_open_clips_and_heard_where_it_occurs(opened, tmp_path):
    again = replace(opened, name="second")
    alone = look_up([opened], chosen(opened), tmp_path)
    found = look_up([opened, again], chosen(opened), tmp_path)
    assert found.entry.count == 2 * alone.entry.count
    assert {heard.name for heard in found.heard} == {"first", "second"}
    assert soundfile.info(found.audio).duration >= found.heard[-1].end_s
    for before, after in zip(found.heard, found.heard[1:], strict=False):
        assert after.start_s == pytest.approx(before.end_s + 0.1, abs=1e-3)


def test_clips_of_another_checkpoint_are_left_out(opened, tmp_path):
    other = replace(opened, checkpoint=replace(opened.checkpoint, sha256="0" * 64))
    assert look_up([opened, other], chosen(opened), tmp_path).clips == (opened,)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection("semantic", 0, 60_000, 1.0), "no open clip has semantic token 60000"),
        (Selection("fine", 60, 3, 1.0), "no clip has fine tokens of level 60"),
    ],
)
def test_a_token_that_is_nowhere_is_refused(opened, tmp_path, selection, words):
    with pytest.raises(RequestError, match=words):
        look_up([opened], selection, tmp_path)


def test_without_open_clips_the_dictionary_says_so(opened, tmp_path):
    with pytest.raises(RequestError, match="inspect it again"):
        look_up([], chosen(opened), tmp_path)


def test_the_newest_clip_comes_first_and_the_oldest_goes(opened):
    clips: tuple[OpenClip, ...] = ()
    for number in range(MAX_OPEN + 2):
        clips = with_opened(clips, replace(opened, name=str(number)))
    assert [clip.name for clip in clips] == [str(MAX_OPEN + 1 - n) for n in range(MAX_OPEN)]
