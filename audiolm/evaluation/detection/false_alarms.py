"""D2: how often recordings, untouched or through the codec, are called generated; and whose recordings they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from audiolm.audio.levelling import active_frames, level_gain
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.corpus import Corpus, Item
from audiolm.errors import EvaluationError
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Clip, Judged, judge
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate, rate_interval

TITLE = "Recordings of the hold-out called generated"
NUM_CROPS = 2000
MOST = 0.015
TARGET = f"<= {MOST:g} of untouched ones, and of those through the codec; n >= {NUM_CROPS} each"
CROP_S = 4.0
SHORTER_S = (1.0, 2.0)
FEWER_LEVELS = (4, 8)
BESIDE_EVERY = 8  # of so many batches, one is judged shortened and through fewer levels as well
BATCH_SIZE = 16
UNTOUCHED = "untouched"


def measure(inputs: DetectionInputs) -> RowReport:
    """On the first of the corpora. Raises EvaluationError without recordings long enough, or without a detector."""
    if not inputs.real:
        raise EvaluationError("needs recordings: give --data")
    corpus, pipeline = inputs.real[0], inputs.pipeline
    places = crop_places(corpus.select(split="test"), round(CROP_S * SAMPLE_RATE_HZ), inputs.count(NUM_CROPS))
    num_levels = pipeline.models.codec.num_levels
    batches = _batches(inputs, corpus, places)
    found = _judge_all(inputs, batches, num_levels)
    kinds = (UNTOUCHED, through(num_levels))
    figures = [_called(found[kind], f"{kind}, {CROP_S:g} s") for kind in kinds]
    worst = max(figure.value for figure in figures)
    enough = min(figure.n for figure in figures) >= NUM_CROPS
    met = False if worst > MOST else (True if enough else None)
    headlines = tuple(figure.name for figure in figures)
    for kind in kinds:
        figures += _verdicts(found[kind], kind)
    rest = {name: judged for name, judged in found.items() if name not in kinds}
    figures += [_called(judged, name) for name, judged in rest.items()]
    both = Judged.joined([found[kind] for kind in kinds])
    figures += _by_group(both, corpus)
    if inputs.domain == "speech":
        figures += _by_sex(both, corpus)
    return RowReport("D2", TITLE, TARGET, tuple(figures), met, _notes(found[UNTOUCHED], places), headlines=headlines)


def through(num_levels: int) -> str:
    """The name of what went through the codec."""
    return f"codec, {num_levels} levels"


def crop_places(items: Sequence[Item], length: int, count: int) -> list[tuple[Item, int]]:
    """`count` places (item, first sample) of crops of `length`, evenly over all items; fewer where there are no more.

    Crops overlap only where the recordings are too short for as many side by side, and then by half at most.

    Raises EvaluationError where no item is long enough.
    """
    usable = [item for item in items if item.length >= length]
    if not usable:
        raise EvaluationError(f"the corpus has no item of split test of at least {length / SAMPLE_RATE_HZ:g} s")
    step = min(length, max(length // 2, sum(item.length for item in usable) // count))
    places = []
    for item in usable:
        rest = item.length - length
        places += [(item, rest % step // 2 + start) for start in range(0, rest + 1, step)]
    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return [places[index] for index in chosen]


@torch.inference_mode()
def through_codec(codec: torch.nn.Module, waveforms: Tensor, levels: Sequence[int]) -> dict[int, Tensor]:
    """waveforms [B, T] -> the same at each number of codec levels [B, T], as the pipeline reconstructs each row.

    Raises AudioSilentError where a row holds no sound.
    """
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    gains = torch.tensor([[level_gain(row)] for row in centred], dtype=torch.float32)
    codes = codec.encode((centred * gains).to(next(codec.parameters()).device))
    decoded = {number: codec.decode(codes[..., :number])[:, : waveforms.shape[1]].float().cpu() for number in levels}
    return {number: (batch / gains).clamp(-1.0, 1.0) for number, batch in decoded.items()}


def _batches(
    inputs: DetectionInputs, corpus: Corpus, places: Sequence[tuple[Item, int]]
) -> Iterator[tuple[Tensor, list[str]]]:
    """Crops [B, T] and their groups; those without sound are left out."""
    crops, groups, length = [], [], round(CROP_S * SAMPLE_RATE_HZ)
    for item, start in inputs.progress(places, "D2"):
        crop = corpus.waveform(item)[start : start + length]
        if not bool(active_frames(crop - crop.mean()).any()):
            continue
        crops.append(crop)
        groups.append(item.group)
        if len(crops) == BATCH_SIZE:
            yield torch.stack(crops), groups
            crops, groups = [], []
    if crops:
        yield torch.stack(crops), groups


def _judge_all(
    inputs: DetectionInputs, batches: Iterator[tuple[Tensor, list[str]]], num_levels: int
) -> dict[str, Judged]:
    """By name: whole crops of both kinds, their first seconds, and through fewer levels of the codec."""
    codec, found = inputs.pipeline.models.codec, dict[str, list[Judged]]()
    for number, (crops, groups) in enumerate(batches):
        beside = number % BESIDE_EVERY == 0
        fewer = [few for few in FEWER_LEVELS if few < num_levels] if beside else []
        coded = through_codec(codec, crops, [num_levels, *fewer])
        waveforms = {UNTOUCHED: crops} | {through(level): batch for level, batch in coded.items()}
        cut = {
            f"{kind}, {seconds:g} s": waveforms[kind][:, : round(seconds * SAMPLE_RATE_HZ)]
            for kind in (UNTOUCHED, through(num_levels))
            for seconds in (SHORTER_S if beside else ())
        }
        for name, batch in (waveforms | cut).items():
            clips = (Clip(samples, False, group) for samples, group in zip(batch, groups, strict=True))
            found.setdefault(name, []).append(judge(inputs.pipeline, clips))
    if not found:
        raise EvaluationError("no crop holds sound")
    return {name: Judged.joined(parts) for name, parts in found.items()}


def _called(judged: Judged, name: str) -> Figure:
    return Figure.of(f"{name}: called generated", grouped_rate(judged.called, judged.groups))


def _verdicts(judged: Judged, kind: str) -> Iterator[Figure]:
    yield Figure.of(f'{kind}: verdict "generated"', grouped_rate(judged.labels == "generated", judged.groups))
    yield Figure.of(f"{kind}: decided", grouped_rate(judged.decided, judged.groups))
    decided = judged.where(judged.decided)
    name = f"{kind}: error among decided"
    yield Figure.computed(name, lambda: grouped_rate(~decided.right, decided.groups))


def _by_group(both: Judged, corpus: Corpus) -> Iterator[Figure]:
    """Untouched crops and those through the codec together, by speaker or piece and by source."""
    rates = {group: both.called[both.groups == group] for group in np.unique(both.groups)}
    worst = max(rates, key=lambda group: rates[group].mean())
    yield Figure.of("groups with a false positive", rate_interval([called.any() for called in rates.values()]))
    yield Figure.of(f"worst group ({worst}): called generated", rate_interval(rates[worst]))
    sources = {item.group: item.source for item in corpus.items}
    own = np.array([sources[group] for group in both.groups])
    if 1 < len(set(own)) < len(rates):
        for source in np.unique(own):
            part = both.where(own == source)
            yield Figure.of(f"{source}: called generated", grouped_rate(part.called, part.groups))


def _by_sex(both: Judged, corpus: Corpus) -> Iterator[Figure]:
    """Untouched crops and those through the codec together, where the corpus names its speakers' sex."""
    sexes = {item.group: item.sex for item in corpus.items}
    if not any(sexes[group] for group in both.groups):
        yield Figure("by sex", None, reason="not measured: the corpus names none")
        return
    for name, sex in (("women", "F"), ("men", "M")):
        part = both.where(np.array([sexes[group] == sex for group in both.groups]))
        yield Figure.computed(
            f"{name}'s voices: called generated", lambda part=part: grouped_rate(part.called, part.groups)
        )


def _notes(untouched: Judged, places: Sequence[tuple[Item, int]]) -> tuple[str, ...]:
    length = round(CROP_S * SAMPLE_RATE_HZ)
    nearest = [b - a for (one, a), (other, b) in pairwise(places) if one.id == other.id]
    overlap = max(0, length - min(nearest)) / SAMPLE_RATE_HZ if nearest else 0.0
    beside = f"neighbours overlap by {overlap:.1f} s" if overlap else "no two overlap"
    num_groups = len(set(untouched.groups))
    notes = [
        f"{len(untouched)} crops of {num_groups} groups (speakers or pieces), evenly over the split test; {beside}",
        "called generated: the decision forced at the threshold; 1 s and 2 s are the starts of some of these crops",
        "intervals: at each end the wider of Wilson's over crops and a bootstrap over groups",
    ]
    if why := untouched.why_withheld():
        notes.append(f"untouched, withheld: {why}")
    return tuple(notes)
