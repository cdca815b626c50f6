"""The rows of the detector that can be measured, by their numbers in the acceptance list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.report import RowReport
from audiolm.evaluation.rows import Row, measure_row

_HERE = "audiolm.evaluation.detection"
ROWS = {
    "D1": Row(f"{_HERE}.discrimination", "accuracy, EER, detection costs and Cllr, by length; a linear probe beside"),
    "D2": Row(f"{_HERE}.false_alarms", "recordings called generated, untouched and through the codec, by group"),
    "D3": Row(f"{_HERE}.shortcuts", "what level, silence, offset, bandwidth or length alone would reach"),
    "D4": Row(f"{_HERE}.calibration", "calibration error, actual against minimum cost"),
    "D5": Row(f"{_HERE}.robustness", "accuracy after lossy files, noise, rooms, players"),
    "D7": Row(f"{_HERE}.scope", "out of scope: uncertain or withheld"),
    "D8": Row(f"{_HERE}.boundary", "boundary of original and generated in spliced clips"),
    "D11": Row(f"{_HERE}.disclosure", "what every verdict carries"),
    "F": Row(f"{_HERE}.fresh", "ten fresh continuations, and the recordings they go on from"),
    "D13": Row(f"{_HERE}.consequence", "is the score withheld where a row above fails?"),
}
OF_RECORDINGS = ("D2", "F")  # measured on every corpus of recordings by itself


def measure(name: str, inputs: DetectionInputs, before: Sequence[RowReport] = ()) -> list[RowReport]:
    """One row, a report for each corpus that it is measured on; `before` are the reports of the rows before it.

    Raises EvaluationError for an unknown row.
    """
    if name not in ROWS:
        raise EvaluationError(f"rows are {', '.join(ROWS)}, found {name!r}")
    if name == "D13":
        return [measure_row(name, ROWS[name], inputs, inputs.pairs.name, before)]
    if name not in OF_RECORDINGS or not inputs.real:
        return [measure_row(name, ROWS[name], inputs, inputs.pairs.name)]
    return [
        measure_row(name, ROWS[name], dataclasses.replace(inputs, real=(corpus,)), corpus.folder.name)
        for corpus in inputs.real
    ]
