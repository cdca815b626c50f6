from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from app.engine.tasks import _save
from app.figures import LIVE_PROMPT_VEIL, LIVE_ROWS_PER_LEVEL, LiveTokens
from app.results import Finished, Loading, Reconstructed, Started
from app.runs import Waiting
from app.schemas import CheckpointChoice, ClipRequest, ContinueRequest
from audiolm.audio import files
from audiolm.config import SAMPLES_PER_SEMANTIC
from audiolm.errors import (
    AudioFormatError,
    AudioTooShortError,
    DeviceMemoryError,
    RequestError,
)
from audiolm.events import Chunk, Progress
from audiolm.receipt import Receipt
from tests.app.conftest import Service, write_tone

SPEECH = CheckpointChoice("tiny-speech")
SHORT = {"prompt_s": 1.0, "continuation_s": 1.0, "num_continuations": 1}


def asked(recording: Path, choice: CheckpointChoice = SPEECH, **fields) -> ContinueRequest:
    return ContinueRequest.from_fields(recording, choice, {**SHORT, **fields})


def wait_until_idle(service) -> None:
    """Until the engine holds no run any more."""
    deadline = time.monotonic() + 10
    while service.status().running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def last(events):
    """Runs to the end and returns the last event."""
    return list(events)[-1]


def test_a_run_tells_its_course_and_ends_with_files(service, recording):
    kinds, seen = [], []
    for event in service.continue_prompt(asked(recording, num_continuations=2)):
        kinds.append(type(event))
        if isinstance(event, Finished):
            seen = [path for saved in event.saved for path in saved.paths]
            assert len(event.saved) == 2
            for saved in event.saved:
                rate_hz, samples = soundfile.read(saved.whole, dtype="int16")[::-1]
                assert (rate_hz, len(samples)) == (16_000, 32_000)
                assert soundfile.info(saved.whole).subtype == "PCM_16"
                assert len(soundfile.read(saved.generated)[0]) == 16_000 + SAMPLES_PER_SEMANTIC
                assert Receipt.from_json(saved.receipt.read_text()) == saved.continuation.receipt
                assert Receipt.from_json(files.read_comment(saved.generated)) == saved.continuation.receipt
            assert all(path.exists() for path in seen)
    assert kinds[0] in (Loading, Waiting)
    assert kinds[-1] is Finished
    assert {Loading, Started, Progress, Chunk} <= set(kinds)
    assert seen
    assert not any(path.exists() for path in seen)


def test_the_start_of_a_run_says_what_it_keeps_and_the_live_lanes_are_filled_from_there_to_the_end(service, recording):
    for event in service.continue_prompt(asked(recording)):
        if isinstance(event, Started):
            started, lanes = event, LiveTokens(1, event.prompt_frames, event.num_frames, event.num_levels)
        elif isinstance(event, Chunk):
            lanes.add(event)
    receipt = event.saved[0].continuation.receipt
    assert (started.prompt_frames, started.num_frames) == (receipt.prompt_frames, receipt.num_frames)
    assert started.recording_s == SHORT["prompt_s"]
    opaque = lanes.picture()[..., 3]
    assert (opaque[:, : receipt.prompt_frames] == LIVE_PROMPT_VEIL[3]).all()
    assert (opaque[LIVE_ROWS_PER_LEVEL["semantic"] :, receipt.prompt_frames :] == 255).all()


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(service, recording):
    hashes = []
    for seed in (5, 5, 6):
        done = last(service.continue_prompt(asked(recording, seed=seed)))
        hashes.append([saved.continuation.receipt.tokens_sha256 for saved in done.saved])
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_closing_the_events_stops_the_run_and_frees_the_device(service, recording, monkeypatch):
    saved = []
    monkeypatch.setattr("app.engine.tasks._save", lambda folder, *others: saved.append(folder))
    events = service.continue_prompt(asked(recording, continuation_s=30, num_continuations=4))
    for event in events:
        if isinstance(event, Chunk):
            break
    events.close()
    done = last(service.continue_prompt(asked(recording)))
    assert saved == [done.folder]  # the stopped run never came to its end
    wait_until_idle(service)


def test_a_run_stopped_while_it_saves_leaves_no_files(service, recording, monkeypatch):
    reached, stopped, folders = threading.Event(), threading.Event(), []

    def save_late(folder, *others):
        folders.append(folder)
        reached.set()
        assert stopped.wait(10)
        return _save(folder, *others)

    monkeypatch.setattr("app.engine.tasks._save", save_late)
    events = service.continue_prompt(asked(recording))
    while not reached.is_set():
        next(events)
    events.close()
    stopped.set()
    wait_until_idle(service)
    assert folders
    assert not folders[0].exists()


def test_a_failed_run_raises_its_typed_error_and_the_next_one_succeeds(service, recording, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("this is no sound")
    with pytest.raises(AudioFormatError):
        last(service.continue_prompt(asked(text)))
    with pytest.raises(AudioTooShortError, match=r"0\.2 s of sound; at least 0\.5 s"):
        last(service.continue_prompt(asked(write_tone(tmp_path / "short.wav", 0.2))))
    assert last(service.continue_prompt(asked(recording))).saved


def test_running_out_of_memory_is_a_typed_error_and_the_next_run_succeeds(service, recording, monkeypatch):
    def greedy(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("app.offer.load_checkpoint", greedy)
        with pytest.raises(DeviceMemoryError, match="cpu ran out of memory"):
            last(service.continue_prompt(asked(recording)))
    assert last(service.continue_prompt(asked(recording))).saved


def test_a_run_out_of_memory_holds_nothing_while_its_error_lives(service, recording, monkeypatch):
    tensors = []

    def greedy(*arguments, **options):
        tensor = torch.zeros(1)
        tensors.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("app.offer.load_checkpoint", greedy)
    gc.disable()
    try:
        with pytest.raises(DeviceMemoryError):
            last(service.continue_prompt(asked(recording)))
        assert tensors[0]() is None
    finally:
        gc.enable()


def test_reconstruction_goes_down_the_levels_the_codec_has(service, recording):
    for event in service.reconstruct(ClipRequest(recording, SPEECH)):
        if isinstance(event, Reconstructed):
            assert list(event.by_levels) == [4, 1]  # the tiny codec has four
            assert list(event.waveforms) == [None, 4, 1]
            for path in (event.original, *event.by_levels.values()):
                assert soundfile.info(path).frames == 32_000
            return
    pytest.fail("no Reconstructed event")


def test_example_prompts_are_grouped_by_domain(service, prompts):
    found = service.prompts()
    assert found == {"speech": [prompts / "speech_two words.wav"], "piano": [prompts / "piano_scale.flac"]}


def test_an_unknown_device_is_refused_by_name(settings):
    with pytest.raises(RequestError, match="device 'warp' cannot be used"):
        Service(replace(settings, device="warp"))


def test_not_a_number_samples_are_refused(service, tmp_path):
    samples = np.zeros(16_000, dtype=np.float32)
    samples[8_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"0\.500 s is NaN"):
        last(service.detect(ClipRequest(tmp_path / "nan.wav", SPEECH)))
