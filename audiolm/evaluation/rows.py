"""The rows that can be measured, by their numbers in the acceptance list."""

from __future__ import annotations

import dataclasses
import importlib
import time
from dataclasses import dataclass
from typing import Any

from audiolm.config import DOMAINS
from audiolm.errors import EvaluationError
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport


@dataclass(frozen=True)
class Row:
    """A module with `measure(inputs) -> RowReport`, what it measures, and of which domains."""

    module: str
    title: str
    domains: tuple[str, ...] = DOMAINS


ROWS = {
    "C1": Row("audiolm.evaluation.codec_quality", "codec quality by number of levels"),
    "C2": Row("audiolm.evaluation.codebook_use", "codebook use of every level"),
    "C3": Row("audiolm.evaluation.probes", "speaker or pitch-class probes of the tokens"),
    "C4": Row("audiolm.evaluation.likelihood", "likelihood of the stages beside baselines"),
    "C5": Row("audiolm.evaluation.speaker", "speaker similarity of continuations", ("speech",)),
    "C6": Row("audiolm.evaluation.music", "key, onset rate, loudness and notes of continuations", ("piano",)),
    "C7": Row("audiolm.evaluation.seam", "seam between prompt and continuation"),
    "M": Row("audiolm.evaluation.memory", "longest semantic stretch shared with the training set"),
    "P": Row("audiolm.evaluation.phones", "phone probes of the tokens", ("speech",)),
    "V": Row("audiolm.evaluation.voices", "acoustic generation in sampled voices", ("speech",)),
    "W": Row("audiolm.evaluation.words", "word error of a small recogniser", ("speech",)),
}


def of_domain(domain: str) -> list[str]:
    """The rows that are measured where none are named."""
    return [name for name, row in ROWS.items() if domain in row.domains]


def measure(name: str, inputs: Inputs) -> RowReport:
    """One row on one corpus; where it cannot be computed, a report without a value that says why.

    Raises EvaluationError for an unknown row.
    """
    if name not in ROWS:
        raise EvaluationError(f"rows are {', '.join(ROWS)}, found {name!r}")
    return measure_row(name, ROWS[name], inputs, inputs.holdout.name)


def measure_row(name: str, row: Row, inputs: Any, corpus: str, *more: Any) -> RowReport:
    """`measure(inputs, *more)` of the row's module, or a report that says why it raised EvaluationError; with time and
    corpus."""
    start = time.perf_counter()
    try:
        report = importlib.import_module(row.module).measure(inputs, *more)
    except EvaluationError as error:
        reason = (Figure("all", None, reason=str(error)),)
        report = RowReport(name, row.title.capitalize(), "see the acceptance list", reason)
    return dataclasses.replace(report, seconds=time.perf_counter() - start, corpus=corpus)
