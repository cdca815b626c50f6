"""Kept continuations: read again only where this version would make the same."""

from __future__ import annotations

from dataclasses import replace

from audiolm.audio.files import write_wav
from audiolm.checkpoints.format import load_checkpoint
from audiolm.config import SAMPLES_PER_FRAME
from audiolm.evaluation.continuations import read_continuation
from audiolm.pipeline import Pipeline
from audiolm.receipt import hash_waveform
from audiolm.streams import Waveform
from tests.pipeline.material import KEPT_SAMPLES, NUM_FRAMES, PROMPT_FRAMES, finish, recording, request
from tests.tiny import make_tiny_checkpoint


def test_a_kept_continuation_is_read_again_unless_another_end_of_its_prompt_was_kept(tmp_path):
    make_tiny_checkpoint(tmp_path / "tiny", with_detector=False)
    models, prompt, asked = load_checkpoint(tmp_path / "tiny"), recording(1.5), request(num_continuations=1)
    made = finish(Pipeline(models, watermark=False).continue_prompt(prompt, asked)).continuations[0]
    path = tmp_path / "kept.wav"
    write_wav(path, made.waveform, made.receipt.to_json())
    samples, prompt_samples = read_continuation(path, prompt, asked, models)
    assert (len(samples), prompt_samples) == (NUM_FRAMES * SAMPLES_PER_FRAME, KEPT_SAMPLES)
    assert read_continuation(path, recording(1.5, seed=1), asked, models) is None
    whole = hash_waveform(Waveform(prompt.samples[: PROMPT_FRAMES * SAMPLES_PER_FRAME]))
    older = replace(made.receipt, prompt_frames=PROMPT_FRAMES, prompt_sha256=whole)
    write_wav(path, made.waveform, older.to_json())
    assert read_continuation(path, prompt, asked, models) is None
