"""D13: where a row fails, the score is withheld and says why.

Rows count decisions forced at the threshold. Where one of D1, D2 and D5 fails on those, the answers that a reader gets
("generated" or "original": what is uncertain or withheld has none) must keep the row's rate all the same; where
another row fails, or the answers fail too, every verdict must be withheld.
"""

from __future__ import annotations

from collections.abc import Sequence

from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate

TITLE = "The checkpoint's own detector passes the rows above, or keeps its score to itself"
TARGET = "where a row is not met, the answers given keep its rate, or every verdict is withheld with its reason"
WRONG_ANSWERS = {
    "D1": ("error among decided", 0.014),
    "D2": ('verdict "generated"', 0.015),
    "D5": ("error among decided", 0.05),
}
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
    unkept = [f"{row.row} ({row.corpus})" for row in judged_rows if row.met is False and not kept(row)]
    figures = (
        Figure("rows not met", float(len(failed)), n=len(judged_rows)),
        Figure("rows whose rate the answers given do not keep either", float(len(unkept)), n=len(judged_rows)),
        Figure("rows not judged", float(len(open_rows)), n=len(judged_rows)),
        Figure.of("whole clips in scope: withheld", kept_back),
    )
    met = kept_back.value == 1.0 if unkept else (None if open_rows else True)
    notes = [f"not met: {', '.join(failed)}"] if failed else []
    notes += [f"not judged: {', '.join(open_rows)}"] if open_rows else []
    if why := whole.why_withheld():
        notes.append(f"withheld: {why}")
    notes += [f"nor by the answers given: {', '.join(unkept)}"] if unkept else []
    return RowReport("D13", TITLE, TARGET, figures, met, tuple(notes), headlines=("rows not met", figures[1].name))


def kept(row: RowReport) -> bool:
    """Whether the answers given keep the rate that forced decisions miss, at every length and in every cell."""
    name, most = WRONG_ANSWERS.get(row.row, ("", 0.0))
    wrong = [figure.value for figure in row.figures if name and name in figure.name and figure.value is not None]
    return bool(wrong) and max(wrong) <= most
