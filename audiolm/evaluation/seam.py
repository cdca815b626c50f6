"""C7: does the join of prompt and continuation stand out?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from audiolm.evaluation.continuations import continue_prompts, describe
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import rate_interval
from audiolm.evaluation.subject import untrained
from audiolm.inspection.seam import PERCENTILE, is_seamless
from audiolm.intervals import Interval

TITLE = "Seam: spectral flux at the prompt's end within the 95th percentile of the prompt's own"
TARGET = "in >= 95 % of runs"


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without a whole checkpoint, recordings or a work folder."""
    samples = continue_prompts(inputs)
    random = continue_prompts(replace(inputs, subject=untrained(inputs.subject)))
    shifted = [*samples[1:], *samples[:1]]
    joins = {
        "share of continuations": ((one.prompt, one.continuation) for one in samples),
        "originals at the same instant": (
            (one.original[: len(one.prompt)], one.original[len(one.prompt) :]) for one in samples
        ),
        "others' continuations": (
            (one.prompt, other.continuation) for one, other in zip(samples, shifted, strict=True) if one is not other
        ),
        "an untrained stage's continuations": ((one.prompt, one.continuation) for one in random),
    }
    figures = tuple(Figure.computed(name, lambda pairs=pairs: _rate(pairs)) for name, pairs in joins.items())
    met = None if figures[0].value is None else figures[0].value >= PERCENTILE
    return RowReport("C7", TITLE, TARGET, figures, met, (describe(samples),))


def _rate(joins: Iterable[tuple[Tensor, Tensor]]) -> Interval:
    return rate_interval([is_seamless(torch.cat([prompt, rest]), prompt.shape[0]) for prompt, rest in joins])
