"""D5: what is left of it after files, noise, rooms and players."""

from __future__ import annotations

from collections.abc import Iterator

from audiolm.errors import EvaluationError
from audiolm.evaluation.degradations import DEGRADATIONS, Degradation
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Clip, Judged, judge
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate

TITLE = "Balanced accuracy after what happens to files"
TARGET = "balanced accuracy >= 0.95 in every cell"
LEAST = 0.95
NUM_PAIRS = 100


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError without a detector, or where the pairs are another checkpoint's."""
    whole_s, pipeline = inputs.whole_s, inputs.pipeline
    cells: dict[str, Figure] = {}
    figures, notes = [], []
    for name, degrade in DEGRADATIONS.items():
        try:
            judged = judge(pipeline, _degraded(inputs.clips(whole_s, NUM_PAIRS), degrade))
        except EvaluationError as error:
            cells[name] = Figure(name, None, reason=f"not measured: {error}")
            figures.append(cells[name])
            continue
        cells[name] = Figure.of(name, grouped_rate(judged.right, judged.groups))
        figures += [cells[name], *_beside(name, judged)]
        if why := judged.why_withheld():
            notes.append(f"{name}: withheld: {why}")
    measured = [cell for cell in cells.values() if cell.value is not None]
    worst = min(measured, key=lambda cell: cell.value)
    figures.insert(0, Figure(f"worst: {worst.name}", worst.value, worst.low, worst.high, worst.n))
    met = False if worst.value < LEAST else (True if len(measured) == len(cells) else None)
    first = f"whole clips ({whole_s:g} s), as many generated ones as originals; decisions forced at the threshold"
    return RowReport("D5", TITLE, TARGET, tuple(figures), met, (first, *notes), headlines=(figures[0].name, *cells))


def _degraded(clips: Iterator[Clip], degrade: Degradation) -> Iterator[Clip]:
    for clip in clips:
        yield Clip(degrade(clip.samples), clip.generated, clip.group)


def _beside(name: str, judged: Judged) -> Iterator[Figure]:
    original = ~judged.generated
    yield Figure.of(f"{name}: false positives", grouped_rate(judged.called[original], judged.groups[original]))
    yield Figure.of(f"{name}: decided", grouped_rate(judged.decided, judged.groups))
    decided = judged.where(judged.decided)
    yield Figure.computed(f"{name}: error among decided", lambda: grouped_rate(~decided.right, decided.groups))
