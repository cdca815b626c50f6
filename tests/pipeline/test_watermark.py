from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from audiolm import watermark
from audiolm.checkpoints.format import load_checkpoint
from audiolm.detector.verdict import segment_probabilities_of
from audiolm.errors import WatermarkError
from audiolm.pipeline import Pipeline, replay
from tests.pipeline.material import KEPT_SAMPLES, finish, recording, request

PROMPT = recording(1.5)
LONG = request(continuation_s=3.0, num_continuations=1)


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """The pipeline without a watermark."""
    return Pipeline(load_checkpoint(tiny_folder), watermark=False)


@pytest.mark.parametrize("prompt_part", ["codec", "original"])
def test_what_was_generated_is_marked_by_default_and_the_prompt_stays_as_it_is(pipeline, plain, prompt_part):
    asked = request(continuation_s=3.0, num_continuations=1, prompt_part=prompt_part)
    marked, bare = (finish(one.continue_prompt(PROMPT, asked)).continuations[0] for one in (pipeline, plain))
    assert torch.equal(marked.waveform.samples[:KEPT_SAMPLES], bare.waveform.samples[:KEPT_SAMPLES])
    assert torch.equal(marked.generated_part.samples, watermark.mark(bare.generated_part).samples)
    assert not torch.equal(marked.generated_part.samples, bare.generated_part.samples)
    assert marked.receipt.watermark == watermark.NAME == "resemble-perth 1.0.1"
    assert bare.receipt.watermark == ""


def test_the_mark_changes_no_token_and_a_run_without_it_replays_one_with_it(pipeline, plain):
    marked, bare = (finish(one.continue_prompt(PROMPT, LONG)).continuations[0] for one in (pipeline, plain))
    assert marked.receipt.tokens_sha256 == bare.receipt.tokens_sha256
    again = replay(plain, marked.receipt, PROMPT).continuations[0]
    assert torch.equal(again.waveform.samples, bare.waveform.samples)
    assert torch.equal(
        replay(pipeline, bare.receipt, PROMPT).continuations[0].waveform.samples, marked.waveform.samples
    )


def test_generation_and_acoustic_generation_are_marked_too(pipeline):
    runs = pipeline.generate(LONG), pipeline.acoustic(recording(3.0, seed=1), LONG)
    for one in (finish(run).continuations[0] for run in runs):
        assert one.receipt.watermark == watermark.NAME


def test_what_is_too_short_for_a_mark_has_none_in_its_receipt(pipeline, plain):
    marked, bare = (finish(one.continue_prompt(PROMPT, request())).continuations[0] for one in (pipeline, plain))
    assert marked.receipt.watermark == ""
    assert torch.equal(marked.waveform.samples, bare.waveform.samples)


def test_the_detector_judges_what_is_marked_and_the_receipt_keeps_its_verdict_without_segments(pipeline):
    one = finish(pipeline.continue_prompt(PROMPT, LONG)).continuations[0]
    judged, prompt_steps = pipeline.detect(one.generated_part), int(one.prompt_s / 0.25)
    assert one.verdict.segment_times_s == tuple(0.25 * n for n in range(-prompt_steps, len(judged.segment_times_s)))
    assert one.verdict.segment_probabilities[prompt_steps:] == judged.segment_probabilities
    detector, join = pipeline.models.detector, round(one.prompt_s * 16_000)
    alone = detector.segment_logits(one.waveform.samples[None, join % 4_000 : join + 8_000])[0, :prompt_steps]
    expected = segment_probabilities_of(detector.config.calibration, alone)
    assert one.verdict.segment_probabilities[:prompt_steps] == pytest.approx(expected.tolist(), abs=1e-6)
    assert one.verdict.without_prompt() == judged
    kept = json.loads(one.receipt.to_json())["verdict"]
    assert kept == {name: value for name, value in one.verdict.to_dict().items() if not name.startswith("segment_")}


def test_without_a_detector_the_receipt_has_no_verdict(flattened):
    assert finish(flattened.generate(request())).continuations[0].receipt.verdict is None


def test_any_recording_can_be_asked_for_its_mark(pipeline):
    assert pipeline.check_watermark(PROMPT).found is False


def test_without_its_package_a_run_says_so_before_the_first_token(pipeline, plain, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    events = pipeline.continue_prompt(PROMPT, LONG)
    assert [next(events).stage for _ in range(2)] == ["encode", "encode"]
    with pytest.raises(WatermarkError, match="pip install resemble-perth"):
        next(events)
    assert finish(plain.continue_prompt(PROMPT, LONG)).continuations[0].receipt.watermark == ""
