"""D4: does a probability of 0.9 mean 90 %?"""

from __future__ import annotations

import numpy as np

from audiolm.evaluation.detection.discrimination import POINTS, SHORTER_S
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Judged
from audiolm.evaluation.detection.scores import (
    NUM_BINS,
    actual_cost,
    calibration_error,
    det_curve,
    minimum_cost,
)
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import mean_interval, normal_intervals

TITLE = "Calibration of the probability"
TARGET = f"ECE ({NUM_BINS} bins) <= 0.03, whole clips"
MOST = 0.03


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError without a detector, or where the pairs are another checkpoint's."""
    whole_s = inputs.whole_s
    lengths = [*(s for s in SHORTER_S if s < whole_s), whole_s]
    whole = inputs.judged(whole_s)
    figures = [_error(whole, f"ECE, {whole_s:g} s")]
    point = POINTS["half generated"]
    for name, cost in (
        ("actual cost", actual_cost(point, whole.log_odds, whole.generated)),
        ("minimum cost", minimum_cost(point, det_curve(whole.log_odds, whole.generated))),
    ):
        figures.append(Figure(name, cost, n=len(whole)))
    brier = (whole.probabilities - whole.generated) ** 2
    figures.append(Figure.of("mean squared error of the probability", mean_interval(brier)))
    figures += [_error(inputs.judged(seconds), f"ECE, {seconds:g} s") for seconds in lengths[:-1]]
    notes = (
        "costs where half of the clips are generated: share missed + share falsely called",
        "an ECE is never below 0 by chance: with few clips it lies above the true one",
        "probabilities of withheld verdicts count as if they had been given",
    )
    headlines = tuple(figure.name for figure in figures[:3])
    return RowReport("D4", TITLE, TARGET, tuple(figures), figures[0].value <= MOST, notes, headlines=headlines)


def _error(judged: Judged, name: str) -> Figure:
    def statistic(weights: np.ndarray) -> float:
        return calibration_error(judged.probabilities, judged.generated, weights)

    interval = normal_intervals(statistic, judged.groups)[0]
    low = None if interval.low is None else max(0.0, interval.low)
    return Figure(name, interval.value, low, interval.high, interval.n)
