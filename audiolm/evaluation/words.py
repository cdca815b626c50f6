"""W: how many words a small recogniser gets wrong in recordings, in reconstructions and in acoustic generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiolm.data.corpus import Item
from audiolm.data.recogniser import Recogniser, normalised
from audiolm.errors import EvaluationError
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.revoicing import revoicer
from audiolm.evaluation.statistics import ratio_interval
from audiolm.intervals import Interval

TITLE = "Words: error rate of a small recogniser (substitutions, deletions and insertions / words spoken)"
TARGET = "acoustic generation at most 0.10 over the reconstruction of all levels"
NEAR = 0.10
UNDERSTOOD = 0.80
GENERATED = "acoustic generation"
NUM_ITEMS = 30
MIN_S, MAX_S = 4.0, 10.0  # whole utterances: their transcripts have no times


@dataclass(frozen=True)
class ErrorCounts:
    """Per item: words spoken, and words got wrong in one rendering of them."""

    spoken: list[int]
    wrong: list[float]

    @property
    def rate(self) -> Interval:
        return ratio_interval(self.wrong, self.spoken)

    def over(self, other: ErrorCounts) -> Interval:
        """How far this rate lies over that of another rendering of the same items."""
        return ratio_interval([a - b for a, b in zip(self.wrong, other.wrong, strict=True)], self.spoken)


def word_errors(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest substitutions, deletions and insertions that make `heard` of `spoken` (Levenshtein).

    >>> word_errors("a b c".split(), "a x c d".split())
    2
    """
    row = list(range(len(heard) + 1))
    for count, word in enumerate(spoken, start=1):
        diagonal, row[0] = row[0], count
        for column, other in enumerate(heard, start=1):
            kept = diagonal + (word != other)
            diagonal, row[column] = row[column], min(kept, row[column] + 1, row[column - 1] + 1)
    return row[-1]


def transcribed_items(
    inputs: Inputs, default: int, accept: Callable[[list[str]], bool] = lambda words: True
) -> list[Item]:
    """Whole utterances of 4 to 10 s with a transcript whose words `accept` takes, evenly over speakers.

    Raises EvaluationError for piano, or without any.
    """
    if inputs.domain != "speech":
        raise EvaluationError("words are a matter of speech")

    def usable(item: Item) -> bool:
        words = normalised(item.transcript or "")
        return item.duration_s <= MAX_S and bool(words) and accept(words)

    return inputs.holdout.items(default, min_s=MIN_S, accept=usable)


@torch.inference_mode()
def reconstructed(inputs: Inputs, waveform: Tensor, num_levels: int) -> Tensor:
    """[T] through the codec's first `num_levels` levels -> [T]."""
    codec = inputs.subject.codec
    return codec.decode(codec.encode(waveform[None])[..., :num_levels])[0, : waveform.shape[0]]


def count_errors(items: Sequence[Item], renderings: Iterable[Tensor | None], recogniser: Recogniser) -> ErrorCounts:
    """`renderings` [T] hold one for each item; None is silence, in which all words are lost."""
    spoken = [normalised(item.transcript) for item in items]
    heard = [[] if waveform is None else recogniser.words(waveform) for waveform in renderings]
    return ErrorCounts([len(words) for words in spoken], list(map(word_errors, spoken, heard)))


def words_stay(before: ErrorCounts, gap: Interval) -> bool | None:
    """Whether words stay words; None where the reconstruction is not understood either, so that none could be lost."""
    return gap.value <= NEAR if before.rate.value < UNDERSTOOD else None


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError for piano, or without the recogniser, a codec, or recordings with transcripts."""
    inputs.subject.require("codec")
    recogniser, items = Recogniser(inputs.work), transcribed_items(inputs, NUM_ITEMS)
    codec = inputs.subject.codec
    every, coarse = f"{codec.num_levels} levels", f"{codec.config.num_coarse_levels} levels"

    def counted(label: str, render: Callable[[Item], Tensor | None]) -> ErrorCounts:
        return count_errors(items, map(render, inputs.progress(items, f"W, {label}")), recogniser)

    def through_codec(item: Item, num_levels: int) -> Tensor:
        return reconstructed(inputs, inputs.holdout.waveform(item), num_levels)

    found = {
        "originals": counted("originals", inputs.holdout.waveform),
        every: counted(every, lambda item: through_codec(item, codec.num_levels)),
        coarse: counted(coarse, lambda item: through_codec(item, codec.config.num_coarse_levels)),
    }
    figures = [Figure.of(f"word error, {name}", counts.rate) for name, counts in found.items()]
    figures.append(Figure.of(f"{every} - originals", found[every].over(found["originals"])))
    met, notes = None, _notes(items, recogniser)
    try:
        revoice = revoicer(inputs)
        draws = [revoice(item)[0] for item in inputs.progress(items, f"W, {GENERATED}")]
        generated = count_errors(items, draws, recogniser)
        if silent := sum(draw is None for draw in draws):
            notes = (*notes, f"{silent} of {len(items)} draws of {GENERATED} are silent: all their words count as lost")
        gap = generated.over(found[every])
        met = words_stay(found[every], gap)
        figures += [Figure.of(f"word error, {GENERATED}", generated.rate), Figure.of(f"{GENERATED} - {every}", gap)]
    except EvaluationError as error:
        figures.append(Figure(f"word error, {GENERATED}", None, reason=str(error)))
    return RowReport("W", TITLE, TARGET, tuple(figures), met, notes)


def _notes(items: Sequence[Item], recogniser: Recogniser) -> tuple[str, ...]:
    words, speakers = sum(len(normalised(item.transcript)) for item in items), len({item.group for item in items})
    return (
        f"{len(items)} utterances of {MIN_S:g} to {MAX_S:g} s by {speakers} speakers, {words} words; "
        "intervals over utterances",
        f"{recogniser.name} is weak: compare its rates, do not trust one; at about 1 nothing is understood",
        f"not judged where the reconstruction's rate is {UNDERSTOOD:.2f} or more: then there are no words to lose",
    )
