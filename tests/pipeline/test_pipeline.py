from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from audiolm.audio.levelling import level_gain
from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC, SAMPLES_PER_FRAME, SAMPLES_PER_SEMANTIC
from audiolm.errors import AudioSilentError, AudioTooShortError, CheckpointError, DeviceMemoryError, RequestError
from audiolm.events import Chunk, Progress, Result
from audiolm.pipeline import CROSSFADE_SAMPLES, Pipeline, join, kept_prompt, planned_frames
from audiolm.receipt import hash_waveform
from audiolm.request import MIN_PROMPT_S
from audiolm.streams import Waveform
from tests.pipeline.material import (
    CONTINUATION_S,
    KEPT_FRAMES,
    KEPT_POSITIONS,
    KEPT_S,
    KEPT_SAMPLES,
    NEW_FRAMES,
    PROMPT_FRAMES,
    finish,
    recording,
    request,
)

PROMPT = recording(1.5)


def tokens_of(result: Result) -> list[torch.Tensor]:
    return [tokens for one in result.continuations for tokens in (one.semantic.ids, one.acoustic.codes)]


def test_the_same_seed_gives_the_same_tokens(pipeline):
    first, second = (finish(pipeline.continue_prompt(PROMPT, request())) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(tokens_of(first), tokens_of(second), strict=True))
    assert torch.equal(first.continuations[0].waveform.samples, second.continuations[0].waveform.samples)


def test_another_seed_gives_other_tokens(pipeline):
    first = finish(pipeline.continue_prompt(PROMPT, request(seed=3)))
    second = finish(pipeline.continue_prompt(PROMPT, request(seed=4)))
    assert not torch.equal(first.continuations[0].acoustic.codes, second.continuations[0].acoustic.codes)


def test_rows_of_a_batch_differ_and_the_first_equals_a_run_alone(pipeline):
    alone = finish(pipeline.continue_prompt(PROMPT, request(num_continuations=1)))
    batch = finish(pipeline.continue_prompt(PROMPT, request(num_continuations=3)))
    assert all(torch.equal(a, b) for a, b in zip(tokens_of(alone), tokens_of(batch)[:2], strict=True))
    codes = [one.acoustic.codes for one in batch.continuations]
    assert not torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[1], codes[2])


def test_prompt_tokens_are_kept_but_for_the_last_position(pipeline):
    used = Waveform(PROMPT.samples[: PROMPT_FRAMES * SAMPLES_PER_FRAME])
    pcm = used.int16().float() / 32767.0
    levelled = pcm - pcm.mean()
    result = finish(pipeline.continue_prompt(PROMPT, request()))
    batch = (levelled * level_gain(levelled))[None]
    semantic, codes = pipeline.models.semantic.encode(batch)[0], pipeline.models.codec.encode(batch)[0]
    for one in result.continuations:
        assert one.prompt_s == KEPT_S
        assert torch.equal(one.semantic.ids[:KEPT_POSITIONS], semantic[:KEPT_POSITIONS])
        assert torch.equal(one.acoustic.codes[:KEPT_FRAMES], codes[:KEPT_FRAMES])


@pytest.mark.parametrize("prompt_s", [MIN_PROMPT_S, 0.7, 1.0])
def test_a_prompts_last_position_is_made_anew_and_the_whole_is_as_long_as_asked_for(pipeline, prompt_s):
    positions = int(prompt_s * FRAME_RATE_HZ) // FRAMES_PER_SEMANTIC
    kept, asked = FRAMES_PER_SEMANTIC * (positions - 1), request(prompt_s=prompt_s)
    encoded = pipeline.encode(PROMPT, prompt_s)
    assert encoded.semantic.shape == (positions,)
    for one in finish(pipeline.continue_prompt(PROMPT, asked)).continuations:
        assert one.receipt.prompt_frames == encoded.codes.shape[0] - FRAMES_PER_SEMANTIC == kept
        assert one.prompt_s == kept / FRAME_RATE_HZ
        assert torch.equal(one.semantic.ids[: positions - 1], encoded.semantic[:-1])
        assert torch.equal(one.acoustic.codes[:kept], encoded.codes[:kept])
        assert not torch.equal(one.acoustic.codes[kept : kept + FRAMES_PER_SEMANTIC], encoded.codes[kept:])
        num_frames = encoded.codes.shape[0] + round(CONTINUATION_S * FRAME_RATE_HZ)
        assert len(one.acoustic.codes) == one.receipt.num_frames == num_frames
        assert one.waveform.samples.shape == (num_frames * SAMPLES_PER_FRAME,)
        assert planned_frames(PROMPT, asked) == (kept, num_frames)


def test_what_comes_in_the_prompts_last_position_is_heard_by_the_encoders_alone(pipeline):
    """A run keeps neither its tokens nor its sound."""
    kept = kept_prompt(PROMPT, 1.0)
    assert torch.equal(kept.int16(), PROMPT.samples[:KEPT_SAMPLES].mul(32767.0).round().to(torch.int16))
    heard = finish(pipeline.continue_prompt(PROMPT, request(prompt_part="original"))).continuations[0]
    assert heard.receipt.prompt_sha256 == hash_waveform(kept)
    last = slice(KEPT_SAMPLES, KEPT_SAMPLES + SAMPLES_PER_SEMANTIC)
    assert not torch.allclose(heard.waveform.samples[last], PROMPT.samples[last], atol=1e-3)


@pytest.mark.parametrize("layout", ["depth", "flattened"])
@pytest.mark.parametrize(("continuation_s", "frames"), [(0.6, 30), (0.46, 23), (0.2, 10)])  # after the prompt's end
def test_length_is_exact_to_a_frame(pipeline, flattened, layout, continuation_s, frames):
    chosen = pipeline if layout == "depth" else flattened
    result = finish(chosen.continue_prompt(PROMPT, request(continuation_s=continuation_s)))
    for one in result.continuations:
        assert one.acoustic.codes.shape == (PROMPT_FRAMES + frames, 4)
        assert one.semantic.ids.shape == (25 + -(-frames // 2),)
        assert one.waveform.samples.shape == ((PROMPT_FRAMES + frames) * SAMPLES_PER_FRAME,)
        assert one.generated_part.samples.shape == ((FRAMES_PER_SEMANTIC + frames) * SAMPLES_PER_FRAME,)


def test_flattened_checkpoints_continue_generate_and_keep_the_prompt(flattened):
    continued = finish(flattened.continue_prompt(PROMPT, request()))
    assert len({one.receipt.tokens_sha256 for one in continued.continuations}) == 2
    assert finish(flattened.generate(request())).continuations[0].acoustic.codes.shape == (30, 4)


def test_a_recording_shorter_than_asked_for_is_used_whole(pipeline):
    result = finish(pipeline.continue_prompt(recording(0.7), request()))
    assert result.continuations[0].prompt_s == pytest.approx(0.64)  # 17 positions of 40 ms, the last made anew


def test_other_sample_rates_are_converted(pipeline):
    result = finish(pipeline.continue_prompt(Waveform(recording(3.0).samples, 32_000), request()))
    assert result.continuations[0].prompt_s == KEPT_S
    assert result.continuations[0].waveform.sample_rate_hz == 16_000


def test_loudness_comes_back(pipeline):
    quiet = finish(pipeline.continue_prompt(recording(1.5, gain=0.02), request()))
    loud = finish(pipeline.continue_prompt(recording(1.5, gain=0.2), request()))
    powers = [one.continuations[0].waveform.samples[:KEPT_SAMPLES].square().mean() for one in (quiet, loud)]
    assert powers[1] / powers[0] == pytest.approx(100.0, rel=0.3)


def test_output_stays_within_full_scale(pipeline):
    result = finish(pipeline.continue_prompt(recording(1.5, gain=0.9), request()))
    assert all(one.waveform.samples.abs().max() <= 1.0 for one in result.continuations)


def test_prompt_part_original_is_the_recording_up_to_the_crossfade(pipeline):
    heard = finish(pipeline.continue_prompt(PROMPT, request(prompt_part="original"))).continuations[0].waveform.samples
    codec = finish(pipeline.continue_prompt(PROMPT, request(prompt_part="codec"))).continuations[0].waveform.samples
    pcm = Waveform(PROMPT.samples[:KEPT_SAMPLES]).int16().float() / 32767.0
    start = KEPT_SAMPLES - CROSSFADE_SAMPLES
    assert torch.equal(heard[:start], pcm[:start])
    assert torch.equal(heard[KEPT_SAMPLES:], codec[KEPT_SAMPLES:])
    assert not torch.equal(codec[:start], pcm[:start])


def test_the_crossfade_of_equal_signals_changes_nothing():
    signal = recording(1.0).samples
    assert torch.allclose(join(signal[:8000], signal), signal, atol=1e-7)


def test_generation_has_no_prompt(pipeline):
    result = finish(pipeline.generate(request()))
    for one in result.continuations:
        assert one.prompt_s == 0.0
        assert one.acoustic.codes.shape == (30, 4)
        assert one.receipt.prompt_sha256 == ""
        assert one.receipt.kind == "generation"
        assert torch.equal(one.generated_part.samples, one.waveform.samples)


def test_acoustic_generation_follows_the_sources_semantic_tokens(pipeline):
    source = recording(1.0, seed=1)
    whole = finish(pipeline.continue_prompt(source, request()))
    result = finish(pipeline.acoustic(source, request(continuation_s=1.0)))
    for one in result.continuations:
        assert torch.equal(one.semantic.ids[:KEPT_POSITIONS], whole.continuations[0].semantic.ids[:KEPT_POSITIONS])
        assert torch.equal(one.semantic.ids, pipeline.encode(source).semantic)  # all of it: nothing follows
        assert set(one.receipt.stage_seeds) == {"coarse", "fine"}
        assert one.prompt_s == 0.0
    assert not torch.equal(result.continuations[0].acoustic.codes, result.continuations[1].acoustic.codes)


def test_acoustic_generation_with_a_voice_starts_with_it(pipeline):
    source, voice = recording(1.0, seed=1), recording(1.5, seed=2)
    result = finish(pipeline.acoustic(source, request(continuation_s=1.0), voice))
    prompt = finish(pipeline.continue_prompt(voice, request())).continuations[0]
    one = result.continuations[0]
    assert one.prompt_s == KEPT_S
    assert one.acoustic.codes.shape == (KEPT_FRAMES + FRAME_RATE_HZ, 4)
    assert torch.equal(one.semantic.ids[KEPT_POSITIONS:], pipeline.encode(source).semantic)
    assert torch.equal(one.acoustic.codes[:KEPT_FRAMES], prompt.acoustic.codes[:KEPT_FRAMES])


def test_long_runs_slide_over_the_trained_length(pipeline):
    limits = {stage: model.config.max_steps for stage, model in pipeline.models.stages.items()}
    assert limits["coarse"] == 500
    result = finish(pipeline.continue_prompt(PROMPT, request(continuation_s=9.4, num_continuations=1)))
    assert result.continuations[0].acoustic.codes.shape == (520, 4)


def test_events_come_at_least_every_five_steps_and_count_up(pipeline):
    events = list(pipeline.continue_prompt(PROMPT, request(continuation_s=2.6)))
    progress = [event for event in events if isinstance(event, Progress)]
    assert list(dict.fromkeys(event.stage for event in progress)) == [
        "encode", "semantic", "coarse", "fine", "decode", "mark", "detect",
    ]  # fmt: skip
    for stage in ("semantic", "coarse", "fine"):
        done = [event.done for event in progress if event.stage == stage]
        total = {event.total for event in progress if event.stage == stage}
        assert done == sorted(done)
        assert {done[-1]} == total
    steps = 130 + FRAMES_PER_SEMANTIC
    assert len([event for event in progress if event.stage == "coarse"]) == -(-steps // 5)
    assert all(event.tokens_per_s > 0 for event in progress if event.stage in ("semantic", "coarse", "fine"))


def test_chunks_add_up_to_the_new_tokens(pipeline):
    events = list(pipeline.continue_prompt(PROMPT, request(continuation_s=2.6)))
    result = events[-1]
    codes = torch.stack([one.acoustic.codes for one in result.continuations])
    for stage, expected in {"coarse": codes[:, KEPT_FRAMES:, :2], "fine": codes[:, KEPT_FRAMES:, 2:]}.items():
        chunks = [event for event in events if isinstance(event, Chunk) and event.stage == stage]
        assert torch.equal(torch.cat([chunk.tokens for chunk in chunks], dim=1), expected)
        starts = [chunk.start_step for chunk in chunks]
        assert starts[0] == KEPT_FRAMES
        assert all(b - a == chunk.tokens.shape[1] for a, b, chunk in zip(starts, starts[1:], chunks, strict=False))


def test_a_run_can_be_stopped_at_any_event_and_leaves_nothing_behind(pipeline):
    short = request(continuation_s=0.24, num_continuations=1)
    total = len(list(pipeline.continue_prompt(PROMPT, short)))
    assert total > 12
    reference = tokens_of(finish(pipeline.continue_prompt(PROMPT, short)))
    for stop_after in range(total):
        events = pipeline.continue_prompt(PROMPT, short)
        for _ in range(stop_after):
            next(events)
        events.close()
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    again = tokens_of(finish(pipeline.continue_prompt(PROMPT, short)))
    assert all(torch.equal(a, b) for a, b in zip(reference, again, strict=True))


def test_gradients_stay_on_for_the_caller_between_events(pipeline):
    for _ in pipeline.continue_prompt(PROMPT, request()):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_timings_count_steps_and_tokens(pipeline):
    result = finish(pipeline.continue_prompt(PROMPT, request()))
    assert result.timings["coarse"].steps == NEW_FRAMES
    assert result.timings["coarse"].tokens == NEW_FRAMES * 2 * 2
    assert result.timings["decode"].seconds > 0
    assert result.real_time_factor == pytest.approx(result.seconds / (NEW_FRAMES / FRAME_RATE_HZ))


def test_the_verdict_is_on_the_generated_part_alone(pipeline, monkeypatch):
    judged = []
    judge = pipeline.models.detector.judge
    monkeypatch.setattr(pipeline.models.detector, "judge", lambda waveform: judged.append(waveform) or judge(waveform))
    result = finish(pipeline.continue_prompt(PROMPT, request()))
    assert [waveform.samples.shape[0] for waveform in judged] == [NEW_FRAMES * SAMPLES_PER_FRAME] * 2
    assert torch.equal(judged[0].samples, result.continuations[0].generated_part.samples)
    assert result.continuations[0].verdict.label in ("generated", "original", "uncertain", "withheld")


def test_without_a_detector_there_is_no_verdict(flattened):
    assert finish(flattened.continue_prompt(PROMPT, request())).continuations[0].verdict is None
    with pytest.raises(CheckpointError, match="no detector"):
        flattened.detect(PROMPT)


def test_reconstruction_keeps_length_and_depends_on_levels(pipeline):
    odd = Waveform(PROMPT.samples[:16_123])
    whole, first = pipeline.reconstruct(odd), pipeline.reconstruct(odd, 1)
    assert whole.samples.shape == first.samples.shape == odd.samples.shape
    assert not torch.equal(whole.samples, first.samples)
    assert torch.equal(whole.samples, pipeline.reconstruct(odd, 4).samples)


@pytest.mark.parametrize("levels", [0, 5, -1])
def test_levels_the_codec_does_not_have_are_refused(pipeline, levels):
    with pytest.raises(RequestError, match=r"1\.\.4 levels, found"):
        pipeline.reconstruct(PROMPT, levels)


def test_short_and_silent_prompts_are_refused(pipeline):
    with pytest.raises(AudioTooShortError, match=r"0.5 s, found 0.30 s"):
        finish(pipeline.continue_prompt(recording(0.3), request()))
    with pytest.raises(AudioSilentError, match="no sound"):
        finish(pipeline.continue_prompt(Waveform(torch.zeros(16000)), request()))


def _out_of_device_memory(*arguments: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nand more")


def _out_of_memory(*arguments: object) -> torch.Tensor:
    return torch.empty(2**50)


@pytest.mark.parametrize("greedy", [_out_of_memory, _out_of_device_memory])
def test_running_out_of_memory_is_a_typed_error_and_the_next_run_succeeds(pipeline, monkeypatch, greedy):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.models.codec, "decode_step", greedy)
        with pytest.raises(DeviceMemoryError, match="not enough memory"):
            finish(pipeline.continue_prompt(PROMPT, request()))
    finish(pipeline.continue_prompt(PROMPT, request()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_s", 0.1), ("prompt_s", float("nan")), ("continuation_s", 0.0), ("continuation_s", 1e9),
        ("num_continuations", 0), ("num_continuations", 1000), ("seed", -1), ("seed", 2**53), ("prompt_part", "mine"),
    ],
)  # fmt: skip
def test_requests_outside_the_bounds_are_refused(field, value):
    with pytest.raises(RequestError, match="found"):
        request(**{field: value})


def test_requests_survive_json():
    original = request()
    assert type(original).from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_an_unknown_device_is_refused(tiny_folder):
    with pytest.raises(RequestError, match="device 'abacus' cannot be used"):
        Pipeline.load(str(tiny_folder), device="abacus")


def test_a_pipeline_is_not_changed_by_its_runs(pipeline):
    before = {name: dataclasses.asdict(entry) for name, entry in pipeline.models.info.components.items()}
    attributes = set(vars(pipeline))
    finish(pipeline.generate(request()))
    assert set(vars(pipeline)) == attributes
    assert {name: dataclasses.asdict(entry) for name, entry in pipeline.models.info.components.items()} == before
