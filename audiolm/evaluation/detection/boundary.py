"""D8: where does the detector say that a spliced clip stops being original?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_interval, grouped_rate
from audiolm.streams import Waveform

TITLE = "Boundary of original and generated in spliced clips"
WITHIN_S = 0.5
TARGET = f"median error <= {WITHIN_S:g} s, and less than that of a constant guess"
SHORTEST_S = 1.0  # part before the boundary, and the one after it: shorter ones are out of scope
SHORTEST_WHOLE_S = 4.0  # of both, where the pairs are long enough: what is shorter, speech's detector does not judge
UNNAMED_S = 1e9  # error where no boundary is named: beyond any other


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError where the pairs keep no prompts, or without a detector."""
    pairs, pipeline = inputs.pair_set(), inputs.pipeline
    if pairs.join < 2 * SHORTEST_S * SAMPLE_RATE_HZ:
        raise EvaluationError(f"{inputs.pairs} keeps no prompts before the continuations: make the pairs again")
    truths_s, named_s, claims, groups, lengths_s = [], [], [], [], []
    rows = range(inputs.count(pairs.num_rows))
    for row, (spliced, original, boundary_s) in zip(rows, _spliced(inputs), strict=True):
        said = pipeline.detect(Waveform(spliced)).boundary_s
        named_s.append(np.nan if said is None else said)
        claims.append(pipeline.detect(Waveform(original)).boundary_s is not None)
        truths_s.append(boundary_s)
        lengths_s.append(spliced.shape[0] / SAMPLE_RATE_HZ)
        groups.append(pairs.rows[row]["group"])
    truth, named = np.array(truths_s), np.array(named_s)
    errors = np.where(np.isnan(named), UNNAMED_S, np.abs(named - truth))
    figures = (
        _median_figure("median error (s)", errors, groups),
        Figure.of(f"within {WITHIN_S:g} s", grouped_rate(errors <= WITHIN_S, groups)),
        Figure.of("a boundary is named", grouped_rate(~np.isnan(named), groups)),
        Figure.of("a boundary is named in originals", grouped_rate(claims, groups)),
        *_by_mark(pairs.rows[: len(rows)], errors, np.array(groups)),
        _median_figure("median error of a constant guess (s)", np.abs(truth - np.median(truth)), groups),
    )
    error_s, guess_s = figures[0].value, figures[-1].value
    met = error_s is not None and error_s <= WITHIN_S and error_s < guess_s
    notes = (
        "prompt through the codec, then its generated continuation; both are cut at random places, so that "
        f"{min(lengths_s):.1f} s or more are left and the boundary lies {truth.min():.1f} to {truth.max():.1f} s in",
        "where none is named the error is larger than any; the constant guess knows the median of the true places",
    )
    return RowReport("D8", TITLE, TARGET, figures, met, notes, headlines=tuple(f.name for f in figures[:4]))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The least value [N] that at least half of the weight [N] does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def _by_mark(notes: Sequence[dict[str, Any]], errors: np.ndarray, groups: np.ndarray) -> Iterator[Figure]:
    """A watermark begins where the generated part does: the boundary must be found without it too."""
    marked = np.array([bool(note.get("marked")) for note in notes])
    for name, part in (("with", marked), ("without", ~marked)):
        if part.any():
            yield _median_figure(f"median error {name} watermark (s)", errors[part], groups[part])


def _median_figure(name: str, errors: np.ndarray, groups: Sequence[str] | np.ndarray) -> Figure:
    drawn = grouped_interval(lambda weights: weighted_median(errors, weights), groups)
    if drawn.value == UNNAMED_S:
        return Figure(name, None, reason="no boundary is named in half of the clips or more", n=len(errors))
    if drawn.high is not None and drawn.high > max(errors[errors < UNNAMED_S]):
        return Figure(name, drawn.value, n=drawn.n)  # half of the clips or more are unnamed in some draws
    return Figure.of(name, drawn)


def _spliced(inputs: DetectionInputs) -> Iterator[tuple[Tensor, Tensor, float]]:
    """(spliced [T], the original throughout [T], seconds to the boundary) of each pair."""
    pairs, generator = inputs.pair_set(), torch.Generator().manual_seed(inputs.seed)
    shortest, shortest_whole = round(SHORTEST_S * SAMPLE_RATE_HZ), round(SHORTEST_WHOLE_S * SAMPLE_RATE_HZ)
    for row in inputs.progress(range(inputs.count(pairs.num_rows)), "D8"):
        first = int(torch.randint(pairs.join - shortest + 1, (1,), generator=generator))
        least = min(max(shortest, shortest_whole - (pairs.join - first)), pairs.length)
        end = pairs.join + int(torch.randint(least, pairs.length + 1, (1,), generator=generator))
        spliced, original = pairs.spliced(row)[:, first:end]
        yield spliced, original, (pairs.join - first) / SAMPLE_RATE_HZ
