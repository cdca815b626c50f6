"""C7: does the join of prompt and continuation stand out?"""

from __future__ import annotations

import torch

from audiolm.evaluation.continuations import continue_prompts
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import rate_interval
from audiolm.inspection.seam import PERCENTILE, is_seamless

TITLE = "Seam: spectral flux at the prompt's end within the 95th percentile of the prompt's own"
TARGET = "in >= 95 % of runs"


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without a whole checkpoint, recordings or a work folder."""
    samples = continue_prompts(inputs)
    generated = [is_seamless(torch.cat([one.prompt, one.continuation]), one.prompt.shape[0]) for one in samples]
    originals = [is_seamless(one.original, one.prompt.shape[0]) for one in samples]
    figures = (
        Figure.of("share of continuations", rate_interval(generated)),
        Figure.of("share of originals at the same instant", rate_interval(originals)),
    )
    return RowReport("C7", TITLE, TARGET, figures, figures[0].value >= PERCENTILE)
