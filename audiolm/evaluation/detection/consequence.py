"""D13: where a row fails, the score is withheld and says why."""

from __future__ import annotations

from collections.abc import Sequence

from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate

TITLE = "The checkpoint's own detector passes the rows above, or keeps its score to itself"
TARGET = "every row is met, or every verdict in scope is withheld with its reason"
ASIDE = ("D11", "F")  # they say nothing of the score's worth on the hold-out


def measure(inputs: DetectionInputs, rows: Sequence[RowReport]) -> RowReport:
    """`rows` are those measured before it. Raises EvaluationError without any."""
    judged_rows = [row for row in rows if row.row not in ASIDE]
    if not judged_rows:
        raise EvaluationError("needs other rows measured in the same command")
    failed = [f"{row.row} ({row.corpus})" for row in judged_rows if row.met is False]
    open_rows = [f"{row.row} ({row.corpus})" for row in judged_rows if row.met is None]
    whole = inputs.judged(inputs.whole_s)
    kept_back = grouped_rate(whole.withheld, whole.groups)
    figures = (
        Figure("rows not met", float(len(failed)), n=len(judged_rows)),
        Figure("rows not judged", float(len(open_rows)), n=len(judged_rows)),
        Figure.of("whole clips in scope: withheld", kept_back),
    )
    met = kept_back.value == 1.0 if failed else (None if open_rows else True)
    notes = [f"not met: {', '.join(failed)}"] if failed else []
    notes += [f"not judged: {', '.join(open_rows)}"] if open_rows else []
    if why := whole.why_withheld():
        notes.append(f"withheld: {why}")
    return RowReport("D13", TITLE, TARGET, figures, met, tuple(notes), headlines=("rows not met",))
