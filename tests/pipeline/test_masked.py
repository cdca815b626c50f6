"""Runs whose fine stage works in parallel: everything else as ever, and the receipt says so."""

import pytest
import torch

from audiolm.checkpoints import load_checkpoint
from audiolm.checkpoints.format import Part, write_checkpoint, write_parts
from audiolm.config import FRAME_RATE_HZ
from audiolm.errors import CheckpointError, RequestError
from audiolm.pipeline import Pipeline, replay
from tests.pipeline.material import KEPT_FRAMES, finish, recording, request
from tests.tiny import CARD, tiny_modules

PROMPT = recording(1.5)
LABELS = {"domain": "speech", "summary": "Random weights.", "card": CARD}
MASKED_RUN = {"continuation_s": 4.0, "prompt_s": 1.0, "num_continuations": 2, "fine_decoder": "masked"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    modules = tiny_modules(with_masked=True)
    write_checkpoint(folder / "with", name="tiny", components=modules, **LABELS)
    del modules["fine_masked"]
    write_checkpoint(folder / "without", name="tiny", components=modules, **LABELS)
    return folder


@pytest.fixture(scope="module")
def pipeline(folders):
    return Pipeline(load_checkpoint(folders / "with"), watermark=False)


def test_only_the_fine_levels_differ_and_the_prompt_is_kept(pipeline):
    masked = finish(pipeline.continue_prompt(PROMPT, request(**MASKED_RUN)))
    usual = finish(pipeline.continue_prompt(PROMPT, request(**{**MASKED_RUN, "fine_decoder": "autoregressive"})))
    for one, other in zip(masked.continuations, usual.continuations, strict=True):
        assert one.acoustic.codes.shape == (5 * FRAME_RATE_HZ, 4)
        assert torch.equal(one.semantic.ids, other.semantic.ids)
        assert torch.equal(one.acoustic.codes[:, :2], other.acoustic.codes[:, :2])
        assert torch.equal(one.acoustic.codes[:KEPT_FRAMES], other.acoustic.codes[:KEPT_FRAMES])
        assert not torch.equal(one.acoustic.codes, other.acoustic.codes)


def test_a_streamed_run_has_the_same_tokens(pipeline):
    whole = finish(pipeline.continue_prompt(PROMPT, request(**MASKED_RUN)))
    streamed = finish(pipeline.continue_prompt(PROMPT, request(**MASKED_RUN), stream=True))
    for one, other in zip(whole.continuations, streamed.continuations, strict=True):
        assert torch.equal(one.acoustic.codes, other.acoustic.codes)


def test_its_receipt_names_the_decoder_and_replays(pipeline):
    made = finish(pipeline.continue_prompt(PROMPT, request(**MASKED_RUN))).continuations[1]
    assert made.receipt.request.fine_decoder == "masked"
    assert made.receipt.components["fine_masked"] == pipeline.models.info.components["fine_masked"].hash
    again = replay(pipeline, made.receipt, PROMPT).continuations[1]
    assert torch.equal(again.acoustic.codes, made.acoustic.codes)


def test_receipts_from_before_a_checkpoint_had_one_still_replay(pipeline, folders):
    before = Pipeline(load_checkpoint(folders / "without"), watermark=False)
    made = finish(before.continue_prompt(PROMPT, request(continuation_s=0.4))).continuations[0]
    assert "fine_masked" not in made.receipt.components
    assert torch.equal(replay(pipeline, made.receipt, PROMPT).continuations[0].acoustic.codes, made.acoustic.codes)


def test_a_checkpoint_without_one_says_so(folders):
    without = Pipeline(load_checkpoint(folders / "without"), watermark=False)
    with pytest.raises(RequestError, match="tiny has no masked fine decoder"):
        finish(without.continue_prompt(PROMPT, request(**MASKED_RUN)))
    with pytest.raises(RequestError, match="fine decoder must be one of"):
        request(fine_decoder="diffusion")


def test_it_comes_to_a_checkpoint_without_a_new_detector_and_fits_its_fine_stage_alone(tmp_path):
    modules = tiny_modules(with_masked=True)
    parts = {name: Part(module.config.to_dict(), module.state_dict()) for name, module in modules.items()}
    added = write_parts(tmp_path / "added", name="tiny", parts=parts, **LABELS)
    before = write_parts(
        tmp_path / "before", parts={k: v for k, v in parts.items() if k != "fine_masked"}, name="tiny", **LABELS
    )
    assert added.components["detector"].made_for == before.components["detector"].made_for
    assert added.components["fine_masked"].made_for["stage_fine"] == added.components["stage_fine"].hash
    other = tiny_modules(seed=1)["stage_fine"]
    foreign = parts["fine_masked"], Part(other.config.to_dict(), other.state_dict())
    bound = {**added.components["fine_masked"].made_for}
    mixed = {k: v for k, v in parts.items() if k != "detector"}
    mixed |= {"fine_masked": Part(foreign[0].config, foreign[0].tensors, bound), "stage_fine": foreign[1]}
    with pytest.raises(CheckpointError, match="fine_masked was made for stage_fine"):
        write_parts(tmp_path / "mixed", name="tiny", parts=mixed, **LABELS)
