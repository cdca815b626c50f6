"""D7: does the detector keep its score to itself where it does not know?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.corpus import Corpus
from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.false_alarms import crop_places
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Clip, judge
from audiolm.evaluation.detection.synthesis import additive_notes, espeak, near_silence
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate

TITLE = "Out of scope: uncertain or withheld"
LEAST = 0.9
TARGET = f">= {LEAST:g} of every kind"
NUM_CLIPS = 100
CLIP_S = 4.0
SHORT_S = (0.3, 0.95)
CLIPPED_DB = 18.0  # over full scale, before everything beyond is cut off

Sounds = Callable[[], Iterator[Clip]]


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError without a detector, or where the pairs are another checkpoint's."""
    pipeline, figures, notes = inputs.pipeline, [], []
    for name, sounds in inputs.progress(list(_kinds(inputs).items()), "D7"):
        try:
            judged = judge(pipeline, sounds())
        except EvaluationError as error:
            figures.append(Figure(name, None, reason=f"not measured: {error}"))
            continue
        figures.append(Figure.of(name, grouped_rate(~judged.decided, judged.groups)))
        said = [f"{label} {int((judged.labels == label).sum())}" for label in sorted(set(judged.labels))]
        why = judged.why_withheld()
        notes.append(f"{name}: {', '.join(said)}" + (f"; withheld: {why}" if why else ""))
    in_scope = inputs.judged(inputs.whole_s)
    notes.append(f"in scope, beside it: the whole clips of D1; withheld: {in_scope.why_withheld() or 'none'}")
    values = [figure.value for figure in figures]
    met = False if any(v is not None and v < LEAST for v in values) else (None if None in values else True)
    headlines = (*(figure.name for figure in figures), "in scope, beside it")
    figures.append(Figure.of("in scope, beside it", grouped_rate(~in_scope.decided, in_scope.groups)))
    figures.append(Figure.of("in scope: withheld", grouped_rate(in_scope.withheld, in_scope.groups)))
    return RowReport("D7", TITLE, TARGET, tuple(figures), met, tuple(notes), headlines=headlines)


def _kinds(inputs: DetectionInputs) -> dict[str, Sounds]:
    """What clips of each kind come from; an unavailable one raises EvaluationError when asked for."""
    count = inputs.count(NUM_CLIPS)
    kinds: dict[str, Sounds] = {f"other corpus: {c.folder.name}": lambda c=c: _crops(c, count) for c in inputs.other}
    if not kinds:
        kinds["other corpora"] = _no_corpora
    if inputs.domain == "speech":
        kinds["other synthesis: espeak-ng"] = lambda: _ungrouped(espeak(count, CLIP_S))
    else:
        kinds["other synthesis: additive notes"] = lambda: _ungrouped(additive_notes(count, CLIP_S))
    return kinds | {
        "silence": lambda: _ungrouped(near_silence(count, CLIP_S)),
        "under 1 s": lambda: _short(inputs, count),
        "clipped": lambda: _clipped(inputs, count),
    }


def _no_corpora() -> Iterator[Clip]:
    raise EvaluationError("give --other")


def _crops(corpus: Corpus, count: int) -> Iterator[Clip]:
    length = round(CLIP_S * SAMPLE_RATE_HZ)
    for item, start in crop_places(corpus.select(split="test"), length, count):
        yield Clip(corpus.waveform(item)[start : start + length], False, item.group)


def _ungrouped(sounds: Iterator[Tensor]) -> Iterator[Clip]:
    for index, samples in enumerate(sounds):
        yield Clip(samples, False, str(index))


def _short(inputs: DetectionInputs, count: int) -> Iterator[Clip]:
    """Generated clips and originals in turn, of random lengths."""
    generator = torch.Generator().manual_seed(inputs.seed)
    for clip in inputs.clips(inputs.whole_s, -(-count // 2)):
        seconds = SHORT_S[0] + (SHORT_S[1] - SHORT_S[0]) * float(torch.rand((), generator=generator))
        yield Clip(clip.samples[: round(seconds * SAMPLE_RATE_HZ)], clip.generated, clip.group)


def _clipped(inputs: DetectionInputs, count: int) -> Iterator[Clip]:
    for clip in inputs.clips(inputs.whole_s, -(-count // 2)):
        loud = clip.samples / clip.samples.abs().max().clamp_min(1e-6) * 10.0 ** (CLIPPED_DB / 20.0)
        yield Clip(loud.clamp(-1.0, 1.0), clip.generated, clip.group)
