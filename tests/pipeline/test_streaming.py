from __future__ import annotations

import pytest
import torch

from audiolm.events import Result, Sound
from audiolm.pipeline import Pipeline
from tests.pipeline.material import finish, recording, request


def streamed(pipeline, prompt, options) -> tuple[list, Result]:
    events = [event for event in pipeline.continue_prompt(prompt, options, stream=True) if event is not None]
    return events, finish(events)


@pytest.fixture(scope="module")
def bare(pipeline) -> Pipeline:
    """Without a watermark, which is made on the whole."""
    return Pipeline(pipeline.models, watermark=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"continuation_s": 4.3},  # two windows of the fine stage, and one that straddles the prompt's end
        {"prompt_s": 3.0, "continuation_s": 3.0},  # windows begin at the prompt's end
        {"prompt_s": 0.72, "continuation_s": 1.0, "prompt_part": "original", "num_continuations": 3},
        {"continuation_s": 0.2, "num_continuations": 1},
    ],
)
def test_a_streamed_run_equals_the_whole_one_sample_by_sample(bare, changes):
    options, prompt = request(**changes), recording(3.2)
    whole, (events, result) = finish(bare.continue_prompt(prompt, options)), streamed(bare, prompt, options)
    for one, other in zip(result.continuations, whole.continuations, strict=True):
        assert one.receipt.tokens_sha256 == other.receipt.tokens_sha256
        assert torch.equal(one.waveform.samples, other.waveform.samples)
    for row, one in enumerate(result.continuations):
        chunks = [event for event in events if isinstance(event, Sound) and (event.row, event.stage) == (row, "fine")]
        assert [event.chunk for event in chunks] == list(range(chunks[0].num_chunks))
        assert all(len(event.samples) == 16_000 for event in chunks[:-1])
        assert torch.equal(torch.cat([event.samples for event in chunks]), one.generated_part.int16())
