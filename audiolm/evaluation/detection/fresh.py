"""F: what a visitor does: ten prompts continued anew with the pipeline, and the recordings that they come from."""

from __future__ import annotations

from collections.abc import Iterator

from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import PROMPT_S, TOTAL_S, ContinuedPrompt, continue_prompts, describe
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Clip, judge
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import rate_interval
from audiolm.request import ContinuationRequest

TITLE = "Fresh continuations, and the recordings they go on from"
TARGET = "all continuations caught, no recording called generated, untouched or through the codec"
NUM_PROMPTS = 10
FIRST_SEED = 20_260_000  # of the continuations: other than any the detector was trained with


def measure(inputs: DetectionInputs) -> RowReport:
    """On the first of the corpora. Raises EvaluationError without recordings, a detector or a work folder."""
    if not inputs.real:
        raise EvaluationError("needs recordings: give --data")
    samples, pipeline = continue_prompts(_continuing(inputs), NUM_PROMPTS, watermark=True), inputs.pipeline
    kinds = {
        "continuations": [Clip(one.continuation, True, one.group) for one in samples],
        "recordings, untouched": [Clip(one.recording, False, one.group) for one in _recorded(samples)],
        "recordings, codec": [Clip(one.original, False, one.group) for one in samples],
    }
    figures, met, notes = [], True, [f"{describe(samples)}, with the watermark"]
    for name, clips in kinds.items():
        judged = judge(pipeline, clips)
        called = judged.labels == "generated"
        figures.append(Figure.of(f"{name}: called generated", rate_interval(called)))
        figures.append(Figure.of(f"{name}: uncertain or withheld", rate_interval(~judged.decided)))
        met = met and bool((called == judged.generated).all())
        if why := judged.why_withheld():
            notes.append(f"{name}, withheld: {why}")
    headlines = tuple(figure.name for figure in figures[::2])
    return RowReport("F", TITLE, TARGET, tuple(figures), met, tuple(notes), headlines=headlines)


def _continuing(inputs: DetectionInputs) -> Inputs:
    models, domain = inputs.subject.require_whole(), inputs.domain
    prompt_s = PROMPT_S[domain]
    seed = FIRST_SEED + inputs.seed
    request = ContinuationRequest(prompt_s, TOTAL_S - prompt_s, 1, seed, **models.info.sampling)
    holdout = HoldOut(inputs.subject, inputs.real[0], (), inputs.count(NUM_PROMPTS))
    return Inputs(domain, inputs.subject, holdout, request, inputs.work, inputs.show_progress)


def _recorded(samples: list[ContinuedPrompt]) -> Iterator[ContinuedPrompt]:
    return (one for one in samples if one.recording is not None)
