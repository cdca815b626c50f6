from __future__ import annotations

import pytest
import torch

from audiolm.audio.loudness import integrated_loudness
from audiolm.config import SAMPLES_PER_FRAME
from audiolm.errors import ReceiptError, RequestError
from audiolm.events import Progress
from audiolm.inspection.variants import ABLATIONS, ablate, ladder, matched_loudness
from audiolm.pipeline import replay
from audiolm.receipt import Receipt
from audiolm.stages import finished
from tests.pipeline.material import KEPT_FRAMES, KEPT_POSITIONS, KEPT_S, NUM_FRAMES, finish, recording, request

PROMPT = recording(1.5)


@pytest.fixture(scope="module")
def rungs(pipeline):
    return finished(ladder(pipeline, recording(1.31), seed=5, num_draws=2))


def test_the_ladder_has_every_level_the_codec_has_and_the_draws(rungs):
    labels = ["original", "4 levels", "2 levels", "1 level", "semantic only, draw 1", "semantic only, draw 2"]
    assert [rung.label for rung in rungs] == labels
    assert [rung.num_levels for rung in rungs] == [None, 4, 2, 1, None, None]
    assert [rung.draw for rung in rungs] == [None, None, None, None, 1, 2]
    assert [rung.generated for rung in rungs] == [False] * 4 + [True] * 2


def test_rungs_are_equal_in_length_and_loudness(rungs):
    assert {rung.waveform.samples.shape[0] for rung in rungs} == {32 * 640}
    loudness = integrated_loudness(torch.stack([rung.waveform.samples for rung in rungs]))
    assert (loudness - loudness[0]).abs().max() < 0.1
    assert max(float(rung.waveform.samples.abs().max()) for rung in rungs) <= 1.0


def test_rungs_are_measured_against_the_original_and_draws_have_receipts(pipeline, rungs):
    assert (rungs[0].mel_distance, rungs[0].si_sdr_db, rungs[0].receipt) == (None, None, None)
    assert all(rung.mel_distance > 0 for rung in rungs[1:])
    assert all(rung.si_sdr_db is not None and rung.receipt is None for rung in rungs[1:4])
    for row, rung in enumerate(rungs[4:]):
        assert rung.si_sdr_db is None
        assert (rung.receipt.kind, rung.receipt.row, rung.receipt.request.seed) == ("acoustic", row, 5)
    again = replay(pipeline, rungs[4].receipt, None, recording(1.31))
    assert again.continuations[0].receipt.tokens_sha256 == rungs[4].receipt.tokens_sha256


def test_a_ladder_without_draws_generates_nothing(pipeline):
    assert not any(rung.generated for rung in finished(ladder(pipeline, PROMPT, 0, num_draws=0)))
    with pytest.raises(RequestError, match="number of continuations"):
        finished(ladder(pipeline, PROMPT, 0, num_draws=17))


def test_loudness_is_lowered_for_all_where_one_would_clip():
    sine = torch.sin(torch.arange(16000) * 0.2)
    click = torch.zeros(16000)
    click[8000] = 0.5
    matched = matched_loudness(torch.stack([0.5 * sine, click, torch.zeros(16000)]))
    loudness = integrated_loudness(matched).tolist()
    assert matched.abs().max() == 1.0
    assert loudness[0] == pytest.approx(loudness[1], abs=0.1)
    assert not matched[2].any()


# ---- ablations


@pytest.fixture(scope="module")
def made(pipeline):
    return finished(ablate(pipeline, PROMPT, request()))


def test_the_full_row_is_the_plain_run(pipeline, made):
    plain = finish(pipeline.continue_prompt(PROMPT, request())).continuations[0]
    assert tuple(made) == ABLATIONS
    assert made["full"].receipt.kind == "continuation"
    assert torch.equal(made["full"].acoustic.codes, plain.acoustic.codes)
    assert torch.equal(made["full"].semantic.ids, plain.semantic.ids)


def test_ablations_share_the_seed_the_prompt_and_the_length(made):
    assert {one.receipt.request.seed for one in made.values()} == {3}
    for one in made.values():
        assert one.waveform.samples.shape == (NUM_FRAMES * SAMPLES_PER_FRAME,)
        assert one.prompt_s == KEPT_S
        assert torch.equal(one.semantic.ids[:KEPT_POSITIONS], made["full"].semantic.ids[:KEPT_POSITIONS])
        assert torch.equal(one.acoustic.codes[:KEPT_FRAMES, :2], made["full"].acoustic.codes[:KEPT_FRAMES, :2])


def test_each_ablation_leaves_out_what_it_says(made):
    full, no_fine = made["full"], made["no fine stage"]
    assert torch.equal(no_fine.acoustic.codes, full.acoustic.codes[:, :2])
    assert set(no_fine.receipt.stage_seeds) == {"semantic", "coarse"}
    shuffled = made["shuffled semantics"]
    assert not torch.equal(shuffled.semantic.ids, full.semantic.ids)
    assert torch.equal(shuffled.semantic.ids.sort().values, full.semantic.ids.sort().values)
    unled = made["no semantic stage"]
    assert (unled.semantic.ids[KEPT_POSITIONS:] == -1).all()
    assert set(unled.receipt.stage_seeds) == {"coarse", "fine"}
    assert len({one.receipt.tokens_sha256 for one in made.values()}) == 4


def test_ablations_have_a_kind_of_their_own_and_replay_as_such(pipeline, made):
    for name in ABLATIONS[1:]:
        receipt = Receipt.from_json(made[name].receipt.to_json())
        assert receipt.kind == f"ablation: {name}"
        assert receipt.ablation == name
        assert replay(pipeline, receipt, PROMPT).continuations[0].receipt.tokens_sha256 == receipt.tokens_sha256
    with pytest.raises(ReceiptError, match="kind must be one of"):
        Receipt.from_json(made["full"].receipt.to_json().replace('"continuation"', '"ablation: no prompt"'))
    with pytest.raises(RequestError, match="ablation must be one of"):
        pipeline.continue_prompt(PROMPT, request(), "no coarse stage")


def test_without_semantics_the_windows_after_the_prompt_have_no_condition_either(pipeline, flattened):
    for chosen in (pipeline, flattened):
        long = request(continuation_s=12.0, prompt_s=0.5)  # beyond the trained 10 s
        one = finish(chosen.continue_prompt(PROMPT, long, "no semantic stage")).continuations[0]
        assert one.acoustic.codes.shape[0] in range(620, 626)


def test_ablations_say_how_far_they_are_and_stop_when_closed(pipeline):
    events = list(ablate(pipeline, PROMPT, request()))
    assert events
    assert all(isinstance(event, Progress) for event in events)
    stopped = ablate(pipeline, PROMPT, request())
    next(stopped)
    stopped.close()
    assert list(stopped) == []


def test_the_ladder_can_be_stopped_at_each_rung(pipeline, monkeypatch):
    events = ladder(pipeline, PROMPT, 0)
    next(events)
    monkeypatch.setattr(type(pipeline), "reconstruct", lambda *_: pytest.fail("went on"))
    events.close()
    assert list(events) == []
