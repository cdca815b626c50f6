"""D1: how well the detector tells generated continuations from originals through the same codec."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Judged
from audiolm.evaluation.detection.scores import (
    OperatingPoint,
    actual_cost,
    det_curve,
    equal_error_rate,
    log_likelihood_cost,
    minimum_cost,
    minimum_log_likelihood_cost,
)
from audiolm.evaluation.detection.semantic_probe import probe_accuracy
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_interval, grouped_rate
from audiolm.intervals import Interval, wilson_interval

TITLE = "Generated continuations against originals through the same codec, continuation only"
TARGET = "lower end of the accuracy's interval >= 0.986 and EER <= 0.01, whole clips"
ACCURACY, EQUAL_ERROR = 0.986, 0.01
SHORTER_S = (1.0, 2.0, 4.0)
POINTS = {"half generated": OperatingPoint(0.5), "1 in 20 generated": OperatingPoint(0.05)}


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError without a detector, or where the pairs are another checkpoint's."""
    whole_s = inputs.whole_s
    whole = inputs.judged(whole_s)
    lengths = [*(s for s in SHORTER_S if s < whole_s), whole_s]
    figures = [*_figures(whole, f"{whole_s:g} s"), *_costs(whole)]
    for seconds in lengths[:-1]:
        figures += _figures(inputs.judged(seconds), f"{seconds:g} s")
    figures += _by_note(whole, inputs)
    figures.append(Figure.computed("linear probe of our semantic features: accuracy", lambda: probe_accuracy(inputs)))
    accuracy, error = figures[0], figures[1]
    met = accuracy.low >= ACCURACY and error.value <= EQUAL_ERROR
    headlines = (accuracy.name, error.name, f"decided, {whole_s:g} s", f"error among decided, {whole_s:g} s", "Cllr")
    return RowReport("D1", TITLE, TARGET, tuple(figures), met, _notes(whole, inputs), headlines=headlines)


def error_interval(judged: Judged) -> Interval:
    """The equal error rate; at each end the wider of a bootstrap over groups and Wilson's interval of either kind."""
    scores, generated = judged.log_odds, judged.generated
    drawn = grouped_interval(lambda weights: equal_error_rate(scores, generated, weights), judged.groups)
    num_rarer = min(int(generated.sum()), int((~generated).sum()))
    low, high = wilson_interval(drawn.value * num_rarer, num_rarer)
    if drawn.low is not None:
        low, high = min(low, drawn.low), max(high, drawn.high)
    return Interval(drawn.value, low, high, len(judged))


def _figures(judged: Judged, length: str) -> Iterator[Figure]:
    original, groups = ~judged.generated, judged.groups
    yield Figure.of(f"accuracy, {length}", grouped_rate(judged.right, groups))
    yield Figure.of(f"EER, {length}", error_interval(judged))
    yield Figure.of(f"false positives, {length}", grouped_rate(judged.called[original], groups[original]))
    yield Figure.of(f"misses, {length}", grouped_rate(~judged.called[~original], groups[~original]))
    yield Figure.of(f"decided, {length}", grouped_rate(judged.decided, groups))
    decided = judged.where(judged.decided)
    name = f"error among decided, {length}"
    yield Figure.computed(name, lambda: grouped_rate(~decided.right, decided.groups))


def _costs(judged: Judged) -> Iterator[Figure]:
    """Detection costs and Cllr of the whole clips, which have no name but their own."""
    log_odds, generated = judged.log_odds, judged.generated
    curve = det_curve(log_odds, generated)
    for name, point in POINTS.items():
        yield Figure(f"minDCF, {name}", minimum_cost(point, curve), n=len(judged))
        yield Figure(f"actDCF, {name}", actual_cost(point, log_odds, generated), n=len(judged))
    drawn = grouped_interval(lambda weights: log_likelihood_cost(log_odds, generated, weights), judged.groups)
    yield Figure.of("Cllr", drawn)
    yield Figure("minimum Cllr", minimum_log_likelihood_cost(log_odds, generated), n=len(judged))


def _by_note(judged: Judged, inputs: DetectionInputs) -> Iterator[Figure]:
    """Clips with and without the watermark, which both kinds may carry: the detector must not lean on it. And pairs by
    what made their fine codes."""
    rows = inputs.pair_set().rows[: len(judged) // 2]
    marked, masked = (np.repeat([bool(row.get(name)) for row in rows], 2) for name in ("marked", "masked"))
    parts = {"with watermark": marked, "without watermark": ~marked}
    parts |= {"with fine codes frame by frame": ~masked, "with fine codes from the masked decoder": masked}
    for name, chosen in parts.items():
        part = judged.where(chosen)
        interval = lambda part=part: grouped_rate(part.right, part.groups)  # noqa: E731
        yield Figure.computed(f"accuracy {name}", interval)


def _notes(judged: Judged, inputs: DetectionInputs) -> tuple[str, ...]:
    notes = [
        f"{len(judged) // 2} pairs of {len(set(judged.groups))} speakers or pieces, none of them in training; accuracy "
        f"is of the decision forced at the threshold ({judged.threshold:g}), whatever the verdict",
        "decided: neither uncertain nor withheld. Costs: a miss and a false alarm cost the same; 1 is no better than "
        "not listening",
        "intervals: at each end the wider of Wilson's over clips and a bootstrap over speakers or pieces",
        *inputs.selection_note(),
    ]
    if why := judged.why_withheld():
        notes.append(f"withheld: {why}")
    return tuple(notes)
