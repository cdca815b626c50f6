"""What the embedded detectors answer: weights, listener and calibration that do not belong together show here."""

from __future__ import annotations

from statistics import median

import pytest

from audiolm.audio import files
from audiolm.evaluation.detection.judging import forced_probability
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform
from tests.pipeline.material import finish, request
from tests.pipeline.test_streaming import ASSETS


def probabilities(pipeline: Pipeline, prompt: str) -> list[float]:
    """Of four continuations of 6 s, forced."""
    waveform = files.read_waveform(ASSETS / f"prompts/{prompt}.flac", max_s=3.0)
    options = request(seed=5, continuation_s=6.0, num_continuations=4, **pipeline.models.info.sampling)
    result = finish(pipeline.continue_prompt(waveform, options))
    return [forced_probability(pipeline, one.waveform.samples[3 * 16_000 :]) for one in result.continuations]


@pytest.mark.parametrize(
    ("checkpoint", "prompt"), [("speech-small", "speech_babble_a"), ("piano-small", "piano_march")]
)
def test_an_embedded_detector_knows_what_its_stages_make(checkpoint, prompt):
    found = probabilities(Pipeline.load(checkpoint, device="cpu", watermark=False), prompt)
    assert median(found) > 0.9, found


@pytest.mark.parametrize("name", ["piano_march", "piano_nocturne"])
def test_the_embedded_piano_detector_takes_no_rendered_prompt_for_generated(name):
    pipeline = Pipeline.load("piano-small", device="cpu", watermark=False)
    waveform = files.read_waveform(ASSETS / f"prompts/{name}.flac", max_s=6.0)
    for heard in (waveform, pipeline.reconstruct(Waveform(waveform.samples))):
        assert pipeline.detect(heard).label != "generated"
        assert forced_probability(pipeline, heard.samples) < 0.5
