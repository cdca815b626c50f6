from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from audiolm.audio import files
from audiolm.checkpoints.format import load_checkpoint
from audiolm.config import SAMPLES_PER_FRAME
from audiolm.errors import ReceiptError
from audiolm.outputs import read_receipt, write_continuation
from audiolm.pipeline import Pipeline, replay
from audiolm.receipt import Receipt, derive_seed, hash_tokens, hash_waveform
from audiolm.streams import AcousticTokens, SemanticTokens, Waveform
from tests.pipeline.material import (
    KEPT_FRAMES,
    KEPT_SAMPLES,
    NUM_FRAMES,
    PROMPT_FRAMES,
    finish,
    recording,
    request,
)
from tests.tiny import make_tiny_checkpoint

PROMPT = recording(1.5)


@pytest.fixture(scope="module")
def result(pipeline):
    return finish(pipeline.continue_prompt(PROMPT, request()))


def test_receipts_say_what_was_used(pipeline, result):
    for row, one in enumerate(result.continuations):
        receipt = one.receipt
        assert receipt.generated is True
        assert "generated" in receipt.label
        assert receipt.kind == "continuation"
        assert receipt.checkpoint == "tiny-speech"
        assert receipt.checkpoint_sha256 == pipeline.models.info.sha256
        assert set(receipt.components) == set(pipeline.models.info.components)
        assert receipt.row == row
        assert receipt.stage_seeds == {s: derive_seed(3, s, row) for s in ("semantic", "coarse", "fine")}
        assert (receipt.prompt_frames, receipt.num_frames) == (KEPT_FRAMES, NUM_FRAMES)
        assert receipt.prompt_sha256 == hash_waveform(Waveform(PROMPT.samples[:KEPT_SAMPLES]))
        assert receipt.tokens_sha256 == hash_tokens(one.semantic, one.acoustic)
        assert receipt.versions["torch"] == torch.__version__
        assert receipt.request == request()


def test_receipts_survive_json(result):
    receipt = result.continuations[1].receipt
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert Receipt.from_json(receipt.to_json(indent=1)) == receipt


def test_replay_gives_identical_tokens_from_each_rows_receipt(pipeline, result):
    for one in result.continuations:
        again = replay(pipeline, one.receipt, PROMPT).continuations[one.receipt.row]
        assert torch.equal(again.semantic.ids, one.semantic.ids)
        assert torch.equal(again.acoustic.codes, one.acoustic.codes)
        assert torch.equal(again.waveform.samples, one.waveform.samples)


def test_replay_works_from_the_recording_read_back_as_int16(pipeline, result, tmp_path):
    files.write_wav(tmp_path / "prompt.wav", PROMPT)
    first = finish(pipeline.continue_prompt(files.read_waveform(tmp_path / "prompt.wav"), request()))
    replay(pipeline, first.continuations[0].receipt, files.read_waveform(tmp_path / "prompt.wav", max_s=1.0))


def test_replay_of_generation_and_acoustic_generation(pipeline):
    source, voice = recording(1.0, seed=1), recording(1.5, seed=2)
    generated = finish(pipeline.generate(request())).continuations[1].receipt
    replay(pipeline, generated, None)
    alone = finish(pipeline.acoustic(source, request())).continuations[0].receipt
    replay(pipeline, alone, None, source)
    voiced = finish(pipeline.acoustic(source, request(), voice)).continuations[0].receipt
    replay(pipeline, voiced, voice, source)
    with pytest.raises(ReceiptError, match="prompt is none"):
        replay(pipeline, voiced, None, source)


def test_replay_refuses_another_recording(pipeline, result):
    with pytest.raises(ReceiptError, match=r"prompt is [0-9a-f]{12}…, the receipt says"):
        replay(pipeline, result.continuations[0].receipt, recording(1.5, seed=9))
    with pytest.raises(ReceiptError, match="prompt is none"):
        replay(pipeline, result.continuations[0].receipt, None)


def test_replay_of_a_receipt_that_kept_all_of_the_prompt_names_what_differs(pipeline, result):
    whole = hash_waveform(Waveform(PROMPT.samples[: PROMPT_FRAMES * SAMPLES_PER_FRAME]))
    older = dataclasses.replace(result.continuations[0].receipt, prompt_frames=PROMPT_FRAMES, prompt_sha256=whole)
    differs = f"number of frames kept of the prompt is {KEPT_FRAMES}, the receipt says {PROMPT_FRAMES}"
    with pytest.raises(ReceiptError, match=differs):
        replay(pipeline, Receipt.from_json(older.to_json()), PROMPT)


def test_replay_refuses_another_checkpoint_and_names_its_parts(result, tmp_path):
    make_tiny_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(ReceiptError, match=r"codec is .* the receipt says .*stage_fine is"):
        replay(Pipeline(load_checkpoint(tmp_path / "other")), result.continuations[0].receipt, PROMPT)


def test_replay_that_gives_other_tokens_is_an_error_that_says_what_ran_where(pipeline, result):
    changed = dataclasses.replace(result.continuations[0].receipt, tokens_sha256="0" * 64, device="cuda (other)")
    with pytest.raises(ReceiptError, match=r"the tokens differ: made with cuda \(other\)"):
        replay(pipeline, changed, PROMPT)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"kind": "continuation"}', '{"kind": 3}', "[" * 5000, '{"unknown": 1}', "NaN",
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_refused(text):
    with pytest.raises(ReceiptError, match="not a readable receipt"):
        Receipt.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verdict", [1]), ("watermark", None), ("row", 7), ("row", -1),
        ("kind", "other"), ("format", 2), ("components", []), ("num_frames", "many"), ("stage_seeds", [3]),
        ("verdict", {"label": ["generated"]}), ("versions", {"torch": {"torch": "2"}}), ("components", {"codec": [[]]}),
        ("checkpoint", "half a character: \ud800"),
        ("request", {"prompt_s": 1e9}), ("request", {"semantic": {"temperature": -1}}),
    ],
)  # fmt: skip
def test_receipts_with_impossible_values_are_refused(result, field, value):
    changed = {**json.loads(result.continuations[0].receipt.to_json()), field: value}
    with pytest.raises(ReceiptError, match="not a readable receipt"):
        Receipt.from_json(json.dumps(changed))


def test_seeds_are_the_stated_formula_and_differ_by_stage_row_and_window():
    assert derive_seed(3, "coarse", 1) == int.from_bytes(
        __import__("hashlib").sha256(b"3/coarse/1").digest()[:6], "big"
    )
    seeds = {derive_seed(3, stage, row) for stage in ("semantic", "coarse", "fine") for row in range(4)}
    assert len(seeds) == 12
    assert max(seeds) < 2**48


def test_token_hashes_see_every_token_and_the_shape():
    semantic, acoustic = SemanticTokens(torch.arange(4), 8), AcousticTokens(torch.zeros(8, 2, dtype=torch.long), 8)
    other = AcousticTokens(torch.zeros(4, 4, dtype=torch.long), 8)
    assert hash_tokens(semantic, acoustic) != hash_tokens(semantic, other)
    assert hash_tokens(semantic, acoustic) != hash_tokens(SemanticTokens(torch.arange(4).flip(0), 8), acoustic)


def test_outputs_hold_audio_tokens_and_the_receipt_inside_and_beside(result, tmp_path):
    from safetensors.torch import load_file

    one = result.continuations[0]
    written = write_continuation(one, tmp_path / "new", "name")
    assert written.whole.name == "name.wav"
    heard = files.read_waveform(written.whole)
    assert heard.samples.shape == (NUM_FRAMES * SAMPLES_PER_FRAME,)
    assert (heard.int16().int() - one.waveform.int16().int()).abs().max() <= 1
    tokens = load_file(written.tokens)
    assert torch.equal(tokens["codes"].long(), one.acoustic.codes)
    assert torch.equal(tokens["semantic"].long(), one.semantic.ids)
    assert read_receipt(written.receipt) == read_receipt(written.whole) == one.receipt


def test_files_without_a_receipt_are_refused(tmp_path):
    files.write_wav(tmp_path / "plain.wav", PROMPT)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.json").write_bytes(b" " * (2**20 + 1))
    for name in ("plain.wav", "binary.json", "large.json", "missing.json", "missing.wav"):
        with pytest.raises(ReceiptError, match=name):
            read_receipt(tmp_path / name)
