"""What the service makes of a recording that is to be judged: verdict, watermark, and the control through the codec."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from app.results import Judged
from app.schemas import CheckpointChoice, ClipRequest
from audiolm.audio import files
from audiolm.errors import AudioSilentError, CheckpointError, WatermarkError
from audiolm.events import Progress
from tests.app.conftest import Service, write_tone
from tests.app.test_service import SPEECH, asked, last
from tests.tiny import make_tiny_checkpoint


def judged(service: Service, path: Path, choice: CheckpointChoice = SPEECH) -> Judged:
    return last(service.detect(ClipRequest(path, choice)))


def test_a_recording_and_its_control_are_judged_by_the_same_detector(service, recording):
    done = judged(service, recording)
    assert done.control is not None
    for heard in (done.recording, done.control):
        assert heard.verdict.scope == "holds only for audio of these checkpoints"
        assert heard.verdict.model_sha256 == done.checkpoint.components["detector"].hash
        assert heard.waveform.duration_s == 2.0
        assert heard.saliency.shape[0] == 16  # mels of the tiny detector
    assert [version.label for version in done.versions.versions] == ["the recording", "through the codec (control)"]
    assert not torch.equal(done.recording.waveform.samples, done.control.waveform.samples)
    assert done.receipt is None


def test_what_was_judged_can_be_heard_and_the_control_says_what_it_is(service, recording):
    for event in service.detect(ClipRequest(recording, SPEECH)):
        if isinstance(event, Judged):
            for heard in (event.recording, event.control):
                assert soundfile.info(heard.audio).frames == 32_000
                assert soundfile.info(heard.audio).subtype == "PCM_16"
            note = json.loads(files.read_comment(event.control.audio))
            assert note == {"label": "through the codec", "checkpoint": "tiny-speech"}
            return
    pytest.fail("no Judged event")


def test_a_judgement_says_how_far_it_is(service, recording):
    stages = [event.stage for event in service.detect(ClipRequest(recording, SPEECH)) if isinstance(event, Progress)]
    assert stages == ["detect", "watermark", "reconstruct", "detect"]


def test_the_receipt_in_a_file_of_ours_is_found(service, recording, tmp_path):
    for event in service.continue_prompt(asked(recording)):
        if hasattr(event, "saved"):
            path = event.saved[0].whole.rename(tmp_path / "whole.wav")
            receipt = event.saved[0].continuation.receipt
    done = judged(service, path)
    assert done.receipt == receipt
    assert all(version.generated for version in done.versions.versions)


def test_a_short_recording_has_no_number_anywhere(service, tmp_path):
    done = judged(service, write_tone(tmp_path / "short.wav", 0.6))
    for heard in (done.recording, done.control):
        assert heard.verdict.label == "withheld"
        assert "too short" in heard.verdict.reason
        assert heard.verdict.probability is heard.saliency is None


def test_a_recording_that_the_codec_refuses_is_judged_without_a_control(service, recording, monkeypatch):
    def refuse(*arguments):
        raise AudioSilentError("near silence")

    monkeypatch.setattr("audiolm.pipeline.Pipeline.reconstruct", refuse)
    done = judged(service, recording)
    assert done.recording.verdict.label
    assert (done.control, done.no_control) == (None, "near silence")
    assert len(done.versions.versions) == 1


def test_without_the_watermarks_package_the_verdict_stands_and_the_reason_is_given(service, recording, monkeypatch):
    def missing(*arguments):
        raise WatermarkError("the watermark needs a package")

    monkeypatch.setattr("audiolm.pipeline.Pipeline.check_watermark", missing)
    done = judged(service, recording)
    assert done.recording.verdict.label
    assert (done.mark.found, done.mark.reason) == (False, "the watermark needs a package")


def test_a_checkpoint_without_a_detector_is_refused_by_name(service, recording, tmp_path):
    make_tiny_checkpoint(tmp_path / "deaf", with_detector=False)
    with pytest.raises(CheckpointError, match="has no detector"):
        judged(service, recording, CheckpointChoice(str(tmp_path / "deaf")))


def test_long_recordings_are_read_from_their_start_only(service, tmp_path):
    done = judged(service, write_tone(tmp_path / "long.wav", 40.0))
    assert done.recording.waveform.duration_s == done.control.waveform.duration_s == 30.0


def test_the_same_file_gives_the_same_score(service, recording):
    first, again = judged(service, recording), judged(service, recording)
    assert first.recording.verdict == again.recording.verdict
    assert first.mark == again.mark


def test_a_continuation_is_searched_for_the_mark_that_it_was_given(service, settings, recording):
    (marked,) = last(service.continue_prompt(asked(recording, continuation_s=3))).saved
    assert marked.continuation.receipt.watermark
    assert marked.mark is not None
    assert marked.mark.confidence > 0
    bare = Service(replace(settings, watermark=False))
    (unmarked,) = last(bare.continue_prompt(asked(recording, continuation_s=3))).saved
    assert (unmarked.continuation.receipt.watermark, unmarked.mark) == ("", None)
