from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest
import torch

from audiolm.checkpoints.format import load_checkpoint
from audiolm.errors import AudioSilentError
from audiolm.events import Continuation
from audiolm.inspection import timeline
from audiolm.inspection.scores import score_coarse
from audiolm.inspection.timeline import (
    HEARD_AGAIN,
    TABLE_COLUMNS,
    Timeline,
    TokenLane,
    of_continuation,
    of_recording,
    summary,
    table,
)
from audiolm.lm import StageModel
from audiolm.pipeline import Pipeline
from audiolm.stages import finished
from audiolm.streams import Waveform
from tests.pipeline.material import KEPT_FRAMES, KEPT_POSITIONS, KEPT_S, NEW_FRAMES, finish, recording, request
from tests.tiny import make_tiny_checkpoint

CLIP = recording(1.33)
PROMPT = recording(1.5)


@pytest.fixture(scope="module")
def generated(pipeline, continuation) -> Timeline:
    return finished(of_continuation(pipeline, continuation, with_scores=True))


@pytest.fixture(scope="module")
def recorded(pipeline) -> Timeline:
    return finished(of_recording(pipeline, CLIP, with_scores=True))


def lanes_of(found: Timeline) -> dict[str, TokenLane]:
    return {lane.label: lane for lane in found.lanes}


# ---- of a run


def test_a_runs_timeline_has_its_prompt_its_verdict_and_its_seam(generated, continuation):
    assert generated.prompt_s == generated.verdict_start_s == KEPT_S
    assert generated.generated is True
    assert generated.waveform is continuation.waveform
    assert generated.verdict is continuation.verdict
    assert generated.seam is not None
    assert generated.roll is None  # speech


def test_lanes_hold_the_tokens_and_are_as_long_as_the_audio(generated, continuation):
    lanes = lanes_of(generated)
    assert list(lanes) == ["semantic", "semantic, heard again", "coarse 1-2", "fine 3-4"]
    assert [lane.first_level for lane in generated.lanes] == [0, 0, 1, 3]
    assert [lane.rate_hz for lane in generated.lanes] == [25, 25, 50, 50]
    assert torch.equal(lanes["semantic"].ids[:, 0], continuation.semantic.ids)
    assert torch.equal(lanes["coarse 1-2"].ids, continuation.acoustic.codes[:, :2])
    assert torch.equal(lanes["fine 3-4"].ids, continuation.acoustic.codes[:, 2:])
    for lane in generated.lanes:
        assert abs(lane.duration_s - generated.waveform.duration_s) <= 1 / lane.rate_hz


def test_the_lane_that_was_heard_again_says_so_and_is_read_from_the_sound(generated, pipeline, continuation):
    again = lanes_of(generated)["semantic, heard again"]
    assert again.note == HEARD_AGAIN
    assert torch.equal(again.ids[:, 0], pipeline.encode(continuation.waveform).semantic)
    assert all(lane.note == "" for lane in generated.lanes if lane is not again)


def test_an_odd_number_of_frames_ends_within_one_token_of_every_lane(pipeline):
    one = finish(pipeline.continue_prompt(PROMPT, request(continuation_s=0.46))).continuations[0]
    for lane in finished(of_continuation(pipeline, one, with_scores=True)).lanes:
        assert abs(lane.duration_s - one.waveform.duration_s) <= 0.5 / lane.rate_hz + 1e-9
        assert not lane.scores.nats.isnan().any()


def test_every_lane_is_scored_as_asked(generated, pipeline, continuation):
    for lane in generated.lanes:
        assert lane.scores.nats.shape == lane.ids.shape
    expected = finished(score_coarse(pipeline, continuation.semantic.ids, continuation.acoustic.codes))
    assert torch.equal(lanes_of(generated)["coarse 1-2"].scores.nats, expected.nats)
    plain = finished(of_continuation(pipeline, continuation, with_scores=False))
    assert all(lane.scores is None for lane in plain.lanes)


def test_a_flattened_stage_loses_durations_so_its_ids_are_read_from_the_sound(flattened):
    one = finish(flattened.continue_prompt(PROMPT, request())).continuations[0]
    found = finished(of_continuation(flattened, one, with_scores=True))
    assert list(lanes_of(found)) == ["semantic, heard again", "coarse 1-2", "fine 3-4"]
    followed = finish(flattened.acoustic(PROMPT, request())).continuations[0]
    assert "semantic" in lanes_of(finished(of_continuation(flattened, followed, with_scores=False)))


def test_generation_from_nothing_has_no_prompt_and_no_seam(pipeline):
    one = finish(pipeline.generate(request(continuation_s=0.6))).continuations[0]
    found = finished(of_continuation(pipeline, one, with_scores=True))
    assert (found.prompt_s, found.seam, found.generated) == (0.0, None, True)
    assert set(summary(found)["lanes"][0]) >= {"whole"}


@pytest.mark.parametrize("samples", [torch.zeros(32000), torch.zeros(100)])
def test_sound_that_cannot_be_heard_again_leaves_that_lane_out(pipeline, continuation, samples):
    silent = dataclasses.replace(continuation, waveform=Waveform(samples))
    assert "semantic, heard again" not in lanes_of(finished(of_continuation(pipeline, silent, with_scores=False)))


def ablated(pipeline: Pipeline, name: str) -> Continuation:
    return finish(pipeline.continue_prompt(PROMPT, request(), name)).continuations[0]


def test_ablated_runs_have_the_lanes_that_they_made(pipeline):
    lanes = lanes_of(finished(of_continuation(pipeline, ablated(pipeline, "no fine stage"), with_scores=True)))
    assert list(lanes) == ["semantic", "semantic, heard again", "coarse 1-2"]
    found = finished(of_continuation(pipeline, ablated(pipeline, "no semantic stage"), with_scores=True))
    lane = found.lanes[0]
    assert "only the prompt" in lane.note
    assert (lane.ids[KEPT_POSITIONS:] == -1).all()
    assert lane.scores.nats[KEPT_POSITIONS:].isnan().all()
    assert not lanes_of(found)["coarse 1-2"].scores.nats.isnan().any()
    assert json.dumps(summary(found), allow_nan=False)
    assert len(list(table(lane))) == KEPT_POSITIONS


# ---- of a recording


def test_a_recordings_timeline_is_scored_as_it_is(recorded, pipeline):
    encoded = pipeline.encode(CLIP)
    assert (recorded.prompt_s, recorded.generated, recorded.seam) == (0.0, False, None)
    assert recorded.waveform.samples.shape == (33 * 640,)
    assert recorded.verdict is not None
    assert recorded.verdict_start_s == 0.0
    lanes = lanes_of(recorded)
    assert list(lanes) == ["semantic", "coarse 1-2", "fine 3-4"]
    assert torch.equal(lanes["semantic"].ids[:, 0], encoded.semantic)
    assert torch.equal(lanes["fine 3-4"].ids, encoded.codes[:, 2:])
    assert all(lane.scores is not None and lane.note == "" for lane in recorded.lanes)


def test_a_recording_without_sound_is_refused(pipeline):
    with pytest.raises(AudioSilentError):
        finished(of_recording(pipeline, Waveform(torch.zeros(32000)), with_scores=True))


def test_piano_has_a_roll(tmp_path):
    make_tiny_checkpoint(tmp_path / "piano", domain="piano", with_detector=False)
    found = finished(of_recording(Pipeline(load_checkpoint(tmp_path / "piano")), CLIP, with_scores=False))
    assert found.roll is not None
    assert found.verdict is None
    assert set(summary(found)["notes"]) == {"whole"}


def test_progress_counts_positions_of_all_lanes_and_a_closed_generator_stops(pipeline, continuation, monkeypatch):
    events = [event for event in of_continuation(pipeline, continuation, with_scores=True) if event.stage == "score"]
    assert {event.total for event in events} == {40 + 40 + 80 + 80}
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == 240
    stopped = of_continuation(pipeline, continuation, with_scores=True)
    while next(stopped).stage != "score":
        pass
    monkeypatch.setattr(StageModel, "logits", lambda *_: pytest.fail("went on"))
    stopped.close()
    assert list(stopped) == []


# ---- lanes agree with the sound

INSTANTS_S = (0.907, 1.214, 1.503, 1.842, 2.131)


def clicked(time_s: float) -> Waveform:
    """Soft noise and a click of 1 ms. One click wherever it is: the level that models read at stays the same."""
    samples = 0.01 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    start = round(time_s * 16000)
    samples[start : start + 16] += 0.5
    return Waveform(samples)


def smear(checkpoint: str, family: str) -> int:
    """How many tokens from a click the change may lie; speech's semantic tokenizer was made to tell phones."""
    return 3 if (checkpoint, family) == ("speech-small", "semantic") else 0


@pytest.mark.parametrize("checkpoint", ["speech-small", "piano-small"])
def test_a_click_shows_in_every_lane_at_its_time(checkpoint):
    models = Pipeline.load(checkpoint, device="cpu")
    elsewhere = finished(of_recording(models, clicked(0.2), with_scores=False))
    changes = {lane.family: torch.zeros(21) for lane in elsewhere.lanes}
    for time_s in INSTANTS_S:
        found = finished(of_recording(models, clicked(time_s), with_scores=False))
        for lane, other in zip(found.lanes, elsewhere.lanes, strict=True):
            at = int(time_s * lane.rate_hz)
            changed = (lane.ids != other.ids).float().mean(dim=1)[at - 10 : at + 11]
            reach = smear(checkpoint, lane.family)
            assert changed[10 - reach : 11 + reach].max() > 0, (
                f"{lane.label}: the token at {time_s} s is the same with and without the click"
            )
            changes[lane.family] += changed
    for family, changed in changes.items():
        centre = float((changed * torch.arange(-10, 11)).sum() / changed.sum())
        limit = 2.0 if family == "semantic" else 1.0  # it reads windows of up to 128 ms, and remembers
        assert abs(centre) <= limit, f"{family}: changes centre {centre:.2f} tokens from the click"
        reach = max(1, smear(checkpoint, family))
        assert changed[10 - reach : 11 + reach].max() == changed.max(), f"{family}: most changes are elsewhere"


# ---- numbers


def test_the_summary_is_plain_json_with_prompt_and_continuation_apart(generated, continuation):
    found = json.loads(json.dumps(summary(generated), allow_nan=False))
    assert found["prompt_s"] == KEPT_S
    assert found["verdict"]["label"] == continuation.verdict.label
    assert set(found["seam"]) == {"flux", "flux_percentile", "level_step_db", "seamless"}
    assert found["notes"] is None
    coarse = next(lane for lane in found["lanes"] if lane["family"] == "coarse")
    assert (coarse["prompt"]["num_tokens"], coarse["continuation"]["num_tokens"]) == (2 * KEPT_FRAMES, 2 * NEW_FRAMES)
    scores = lanes_of(generated)["coarse 1-2"].scores
    assert coarse["continuation"]["mean_nats"] == pytest.approx(float(scores.nats[KEPT_FRAMES:].mean()), rel=1e-5)
    assert coarse["prompt"]["mean_nats_by_level"] == pytest.approx(scores.nats[:KEPT_FRAMES].mean(0).tolist(), rel=1e-5)
    assert coarse["prompt"]["rank_0_share"] == pytest.approx(float((scores.rank[:KEPT_FRAMES] == 0).float().mean()))


def test_a_semantic_run_counts_once(generated):
    lane = generated.lanes[0]
    runs = torch.unique_consecutive(lane.ids[:KEPT_POSITIONS, 0])
    assert summary(generated)["lanes"][0]["prompt"]["num_tokens"] == len(runs)


def test_a_semantic_run_over_the_prompts_end_is_the_prompts(generated):
    ids = torch.tensor([3, 3, 5, 5, 5, 6])[:, None]
    lane = TokenLane("semantic", "semantic", 25, 0, ids)
    found = summary(dataclasses.replace(generated, prompt_s=0.16, lanes=(lane,)))["lanes"][0]
    assert (found["prompt"]["num_tokens"], found["continuation"]["num_tokens"]) == (2, 1)


def test_the_table_has_a_row_a_token_with_its_alternatives(generated):
    lane = lanes_of(generated)["fine 3-4"]
    file = io.StringIO()
    csv.writer(file).writerows([TABLE_COLUMNS, *table(lane)])
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert len(rows) == lane.ids.numel()
    row = rows[2 * 10 + 1]
    assert (float(row["time_s"]), row["level"], int(row["id"])) == (0.2, "4", int(lane.ids[10, 1]))
    assert float(row["nats"]) == pytest.approx(float(lane.scores.nats[10, 1]), abs=1e-3)
    first, probability = row["likeliest_1"].split(":")
    assert int(first) == int(lane.scores.top_ids[10, 1, 0])
    assert float(probability) == pytest.approx(float(lane.scores.top_probabilities[10, 1, 0]), abs=1e-3)
    plain = dataclasses.replace(lane, scores=None)
    assert next(timeline.table(plain)) == (0.0, 3, int(lane.ids[0, 0]), *[""] * 8)
