"""V: acoustic generation says the same words in other voices: does the voice change, and do the words stay?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from audiolm.data.corpus import Item
from audiolm.data.recogniser import Recogniser
from audiolm.errors import EvaluationError
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.revoicing import NUM_VOICES, revoicer
from audiolm.evaluation.speaker import rank_first_rates, speaker_encoder
from audiolm.evaluation.statistics import mean_interval, rate_interval, ratio_interval
from audiolm.evaluation.words import (
    MAX_S,
    MIN_S,
    NEAR,
    NUM_ITEMS,
    ErrorCounts,
    count_errors,
    reconstructed,
    transcribed_items,
    words_stay,
)

TITLE = f"Voices: one utterance's semantic tokens in {NUM_VOICES} sampled voices"
TARGET = (
    "similarity to the source at least 0.90 of the way down to other speakers', "
    f"words at most {NEAR:.2f} over the reconstruction"
)
FAR = 0.90
WAY = "way down from the same speaker (0) to other speakers (1)"


def companion(holdout: HoldOut, item: Item) -> Item | None:
    """Another utterance of the item's speaker, long enough for the encoder; None where there is none."""
    own = holdout.corpus.select(split=item.split, fluent=True, groups={item.group})
    return next((other for other in own if other.id != item.id and other.duration_s >= MIN_S), None)


def similarity_figures(
    sources: np.ndarray, companions: np.ndarray, draws: np.ndarray, groups: Sequence[str]
) -> tuple[Figure, ...]:
    """Unit vectors of sources [N, E], of other recordings of their speakers [N, E], and of draws [N, K, E].

    `groups` are the sources' speakers, at least two.
    """
    foreign = np.array([[a != b for b in groups] for a in groups])

    def apart(similarity: np.ndarray) -> np.ndarray:
        """[N, N] -> [N] mean over other speakers."""
        return (similarity * foreign).sum(axis=1) / foreign.sum(axis=1)

    originals, generated = sources @ companions.T, np.einsum("ie,jke->kij", sources, draws)
    pairs = combinations(range(draws.shape[1]), 2)
    between = np.mean([draws[:, one] @ draws[:, other].T for one, other in pairs], axis=0)
    same, other, own = originals.diagonal(), apart(originals), generated.mean(axis=0).diagonal()
    return (
        Figure.of("cosine, source and its speaker's other recording", mean_interval(same)),
        Figure.of("cosine, source and other speakers' recordings", mean_interval(other)),
        Figure.of("cosine, source and its draws", mean_interval(own)),
        Figure.of("cosine, source and other sources' draws", mean_interval(apart(generated.mean(axis=0)))),
        Figure.of("cosine, between draws of one source", mean_interval(between.diagonal())),
        Figure.of("cosine, between draws of different sources", mean_interval(apart(between))),
        Figure.of(WAY, ratio_interval(same - own, same - other)),
        Figure.computed(
            "own draw first among 10",
            lambda: rate_interval(np.mean([rank_first_rates(draw, groups) for draw in generated], axis=0)),
        ),
        Figure.computed(
            "same speaker's recording first among 10", lambda: rate_interval(rank_first_rates(originals, groups))
        ),
    )


def word_figures(
    inputs: Inputs, items: Sequence[Item], reconstructions: Sequence[Tensor], draws: Sequence[Sequence[Tensor]]
) -> tuple[tuple[Figure, ...], bool | None]:
    """And whether the words stay; an item's draws count as one rendering. Without the recogniser a figure says why."""
    try:
        recogniser = Recogniser(inputs.work)
    except EvaluationError as error:
        return (Figure("word error, draws", None, reason=str(error)),), None
    before = count_errors(items, reconstructions, recogniser)
    voices = [count_errors(items, voice, recogniser).wrong for voice in zip(*draws, strict=True)]
    after = ErrorCounts(before.spoken, [sum(wrong) / len(wrong) for wrong in zip(*voices, strict=True)])
    gap = after.over(before)
    figures = (
        Figure.of("word error, reconstructions", before.rate),
        Figure.of("word error, draws", after.rate),
        Figure.of("word error, draws - reconstructions", gap),
    )
    return figures, words_stay(before, gap)


def _require_two_speakers(rows: list[Any]) -> list[Any]:
    """The rows, whose first entries are items. Raises EvaluationError unless two speakers are among them."""
    if len({item.group for item, *_ in rows}) < 2:
        raise EvaluationError("needs two speakers with two utterances each")
    return rows


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError for piano, or without the speaker encoder, a checkpoint, a work folder or transcripts."""
    chosen = [(item, companion(inputs.holdout, item)) for item in transcribed_items(inputs, NUM_ITEMS)]
    pairs = [(item, other) for item, other in chosen if other]
    _require_two_speakers(pairs)
    embed, revoice = speaker_encoder(), revoicer(inputs)
    made = [(*pair, revoice(pair[0])) for pair in inputs.progress(pairs, "V")]
    heard = [one for one in made if all(draw is not None for draw in one[2])]
    items, others, draws = (list(column) for column in zip(*_require_two_speakers(heard), strict=True))
    groups = [item.group for item in items]

    def through_codec(item: Item) -> Tensor:
        return reconstructed(inputs, inputs.holdout.waveform(item, MAX_S), inputs.subject.codec.num_levels)

    sources = [through_codec(item) for item in items]
    figures = similarity_figures(
        np.stack([embed(source) for source in sources]),
        np.stack([embed(through_codec(other)) for other in others]),
        np.stack([[embed(draw) for draw in own] for own in draws]),
        groups,
    )
    told, stay = word_figures(inputs, items, sources, draws)
    report = RowReport("V", TITLE, TARGET, figures + told)
    changed = report.figure(WAY).value >= FAR
    notes = (
        f"{len(items)} utterances of {len(set(groups))} speakers, all through the codec; intervals over utterances",
        "first among 10: with nine of other speakers; chance is 10%",
        "words are not judged where the reconstructions are not understood, see W",
    )
    if silent := len(made) - len(heard):
        notes = (*notes, f"{silent} of {len(made)} utterances left out: a draw of them is silent")
    return replace(report, met=stay if changed else False, notes=notes)
