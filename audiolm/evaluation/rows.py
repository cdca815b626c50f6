"""The rows that can be measured, by their numbers in the acceptance list."""

from __future__ import annotations

import dataclasses
import importlib
import time

from audiolm.errors import EvaluationError
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport

ROWS = {
    "C1": ("audiolm.evaluation.codec_quality", "codec quality by number of levels"),
    "C2": ("audiolm.evaluation.codebook_use", "codebook use of every level"),
    "C3": ("audiolm.evaluation.probes", "speaker or pitch-class probes of the tokens"),
    "C4": ("audiolm.evaluation.likelihood", "likelihood of the stages beside baselines"),
    "C5": ("audiolm.evaluation.speaker", "speaker similarity of continuations (speech)"),
    "C6": ("audiolm.evaluation.music", "key, onset rate and loudness of continuations (piano)"),
    "C7": ("audiolm.evaluation.seam", "seam between prompt and continuation"),
}


def measure(row: str, inputs: Inputs) -> RowReport:
    """One row; where it cannot be computed, a report without a value that says why.

    Raises EvaluationError for an unknown row.
    """
    if row not in ROWS:
        raise EvaluationError(f"rows are {', '.join(ROWS)}, found {row!r}")
    module_name, title = ROWS[row]
    start = time.perf_counter()
    try:
        report = importlib.import_module(module_name).measure(inputs)
    except EvaluationError as error:
        report = RowReport(
            row, title.capitalize(), "see the acceptance list", (Figure("all", None, reason=str(error)),)
        )
    return dataclasses.replace(report, seconds=time.perf_counter() - start)
