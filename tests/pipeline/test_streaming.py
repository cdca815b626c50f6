from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiolm.audio import files
from audiolm.config import SAMPLES_PER_SEMANTIC
from audiolm.events import Result, Sound
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest
from audiolm.streaming import CHUNK_SAMPLES, MAX_REST_SAMPLES
from audiolm.streams import Waveform
from tests.pipeline.material import finish, recording, request

ASSETS = Path(__file__).resolve().parents[2] / "assets"


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
        {"prompt_s": 0.5, "continuation_s": 1.0, "num_continuations": 1},  # the shortest prompt
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
        assert all(len(event.samples) == CHUNK_SAMPLES for event in chunks[:-1])
        assert len(chunks[-1].samples) <= CHUNK_SAMPLES + MAX_REST_SAMPLES
        assert len(chunks) == 1 or len(chunks[-1].samples) > MAX_REST_SAMPLES
        assert torch.equal(torch.cat([event.samples for event in chunks]), one.generated_part.int16())


def test_whole_seconds_are_heard_in_as_many_chunks(bare):
    events, _ = streamed(bare, recording(1.2), request(continuation_s=2.0, num_continuations=1))
    chunks = [event for event in events if isinstance(event, Sound) and event.stage == "fine"]
    assert [len(event.samples) for event in chunks] == [CHUNK_SAMPLES, CHUNK_SAMPLES + SAMPLES_PER_SEMANTIC]


def taking_turns(*runs) -> list[Result]:
    """Runs of one pipeline, a step of each at a time, as in the engine."""
    results, going = [None] * len(runs), dict(enumerate(runs))
    while going:
        for number, run in list(going.items()):
            event = next(run, run)
            if event is run:
                del going[number]
            elif isinstance(event, Result):
                results[number] = event
    return results


def test_a_run_among_others_on_the_embedded_checkpoint_equals_the_run_alone():
    pipeline = Pipeline.load("speech-small", device="cpu", watermark=False)
    prompt = files.read_waveform(ASSETS / "prompts/speech_babble_a.flac", max_s=3.0)

    def options(seed: int) -> ContinuationRequest:
        return request(seed=seed, continuation_s=1.5, num_continuations=1, **pipeline.models.info.sampling)

    alone = finish(pipeline.continue_prompt(prompt, options(1)))
    among, *_ = taking_turns(*(pipeline.continue_prompt(prompt, options(seed), stream=True) for seed in (1, 2, 3)))
    for one, other in zip(among.continuations, alone.continuations, strict=True):
        assert one.receipt.tokens_sha256 == other.receipt.tokens_sha256
        assert torch.equal(one.waveform.samples, other.waveform.samples)


def test_seconds_that_are_heard_early_carry_the_mark_too(pipeline):
    marked = Pipeline(pipeline.models, watermark=True, decoder=pipeline.decoder)
    events, _ = streamed(marked, recording(3.2), request(prompt_s=3.0, continuation_s=6.0, num_continuations=1))
    heard = [event.samples for event in events if isinstance(event, Sound) and event.stage == "fine"]
    assert marked.check_watermark(Waveform(torch.cat(heard).float() / 32767.0)).found


def test_a_preview_is_replaced_by_the_fine_version_of_the_same_second(bare):
    events, _ = streamed(bare, recording(3.2), request(continuation_s=2.3))
    heard = {}
    for event in events:
        if isinstance(event, Sound):
            heard.setdefault((event.row, event.chunk), []).append(event)
    for kinds in heard.values():
        assert [event.stage for event in kinds][-1] == "fine"
        assert len({len(event.samples) for event in kinds}) == 1
    for row in (0, 1):  # the first second comes as a preview, before its fine version
        assert [event.stage for event in heard[row, 0]] == ["coarse", "fine"]
