"""D11: what stands beside every score."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import rate_interval
from audiolm.streams import Waveform

TITLE = "What every verdict carries"
TARGET = "always: threshold, error rates with n, the detector's hash, the scope; no number where there is none to give"
SCOPE = "holds only for audio of these checkpoints"
NUM_PAIRS = 20
TIMED_S = 10.0
NUM_TIMED = 5


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError without a detector, or where the pairs are another checkpoint's."""
    digest = inputs.subject.components["detector"]
    clips = list(_clips(inputs))
    said = [[inputs.pipeline.detect(clip) for clip in clips] for _ in range(2)]
    checks = _checks(digest)
    figures = [Figure.of(name, rate_interval([check(v) for v in said[0]])) for name, check in checks.items()]
    same = [one == other for one, other in zip(*said, strict=True)]
    figures.append(Figure.of("the same clip gives the same verdict", rate_interval(same)))
    met = all(figure.value == 1.0 for figure in figures)
    headlines = tuple(figure.name for figure in figures)
    figures.append(Figure(f"median time for {TIMED_S:g} s of audio (s)", _median_time_s(inputs), n=NUM_TIMED))
    withheld = sum(verdict.label == "withheld" for verdict in said[0])
    notes = (
        f"{len(clips)} clips: generated, originals, too short, silent, clipped, not finite, at 44.1 kHz; {withheld} of "
        "the verdicts are withheld",
        f"timed on {torch.get_num_threads()} threads",
    )
    return RowReport("D11", TITLE, TARGET, tuple(figures), met, notes, headlines=headlines)


def _checks(digest: str) -> dict[str, Callable[[Any], bool]]:
    return {
        "the threshold": lambda v: 0.0 < v.threshold < 1.0,
        "error rates at it, with n": _has_error_rates,
        "the detector's hash": lambda v: v.model_sha256 == digest,
        "its scope": lambda v: SCOPE in v.scope,
        "a probability, or the reason why not": lambda v: (v.probability is None) == bool(v.reason),
        "no score where it is withheld": _is_silent_where_withheld,
        "JSON without NaN": _is_json,
    }


def _has_error_rates(verdict: Any) -> bool:
    rates = (verdict.false_positive_rate, verdict.false_negative_rate)
    if None in rates:
        return verdict.label == "withheld"
    return all(0.0 <= rate <= 1.0 for rate in rates) and min(verdict.num_originals, verdict.num_generated) > 0


def _is_silent_where_withheld(verdict: Any) -> bool:
    if verdict.label != "withheld":
        return True
    return verdict.probability is None and not verdict.segment_probabilities and verdict.boundary_s is None


def _is_json(verdict: Any) -> bool:
    try:
        return bool(json.dumps(verdict.to_dict(), allow_nan=False))
    except ValueError:
        return False


def _clips(inputs: DetectionInputs) -> Iterator[Waveform]:
    last: Tensor = torch.zeros(0)
    for clip in inputs.clips(inputs.whole_s, NUM_PAIRS):
        last = clip.samples
        yield Waveform(last)
    yield Waveform(last[: SAMPLE_RATE_HZ // 2])
    yield Waveform(torch.zeros_like(last))
    yield Waveform((last / last.abs().max().clamp_min(1e-6) * 8.0).clamp(-1.0, 1.0))
    yield Waveform(torch.where(torch.arange(len(last)) == len(last) // 2, torch.nan, last))
    yield Waveform(last, 44_100)


def _median_time_s(inputs: DetectionInputs) -> float:
    clip = next(inputs.clips(inputs.whole_s)).samples
    repeated = clip.repeat(-(-round(TIMED_S * SAMPLE_RATE_HZ) // len(clip)))
    waveform = Waveform(repeated[: round(TIMED_S * SAMPLE_RATE_HZ)])
    times_s = []
    for _ in range(NUM_TIMED):
        start = time.perf_counter()
        inputs.pipeline.detect(waveform)
        times_s.append(time.perf_counter() - start)
    return statistics.median(times_s)
