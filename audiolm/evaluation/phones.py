"""P: what linear probes read of phones out of semantic and coarse acoustic tokens; C3 asks the same of speakers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.config import FRAMES_PER_SEMANTIC, SEMANTIC_RATE_HZ
from audiolm.data.corpus import Item
from audiolm.data.recogniser import Phone, Recogniser, normalised
from audiolm.errors import EvaluationError
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.probes import MAX_DIMENSIONS, coarse_vectors, one_hot_pairs, probe
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import ratio_interval
from audiolm.evaluation.words import transcribed_items
from audiolm.intervals import Interval

TITLE = "Phone probes: share of instants of 40 ms whose phone a linear probe names"
TARGET = "semantic tokens over coarse acoustic tokens"
NUM_ITEMS = 120


@dataclass(frozen=True)
class Spoken:
    """Instants [n] of one utterance that hold a phone: its name, and features [n, D] by kind of token."""

    group: str
    names: list[str]
    features: dict[str, Tensor]


def phones_at(phones: Sequence[Phone], num_positions: int) -> list[str | None]:
    """The phone in the middle of each semantic position; None in silence, noise and beyond what was aligned."""
    found: list[str | None] = [None] * num_positions
    for phone in phones:
        first, end = (math.ceil(edge_s * SEMANTIC_RATE_HZ - 0.5) for edge_s in (phone.start_s, phone.end_s))
        for position in range(first, min(end, num_positions)):
            found[position] = None if phone.is_filler else phone.name
    return found


@torch.inference_mode()
def spoken(inputs: Inputs, item: Item, recogniser: Recogniser) -> Spoken | None:
    """None where the transcript does not fit the sound."""
    codec, semantic = inputs.subject.codec, inputs.subject.semantic
    waveform, pair = inputs.holdout.waveform(item), inputs.holdout.encode(item)
    names = phones_at(recogniser.phones(waveform, normalised(item.transcript)), pair.semantic.shape[0])
    chosen = torch.tensor([position for position, name in enumerate(names) if name is not None], dtype=torch.long)
    if not len(chosen):
        return None
    ids, codes = pair.semantic, pair.codes[:, : codec.config.num_coarse_levels]
    vectors = coarse_vectors(codes, codec.codebooks().float()).unflatten(0, (-1, FRAMES_PER_SEMANTIC)).mean(dim=1)
    features = {
        "vector, semantic": semantic.centroids.float()[ids],
        "vector, coarse": vectors,
        "vector, before k-means": semantic.features(waveform[None])[0].float(),
    }
    if max(codes.shape[1] * codec.codebook_size, semantic.codebook_size) <= MAX_DIMENSIONS:
        features["ids, semantic"] = F.one_hot(ids, semantic.codebook_size).float()
        features["ids, coarse"] = one_hot_pairs(codes, codec.codebook_size)
    chosen_features = {kind: rows[chosen] for kind, rows in features.items()}
    return Spoken(item.group, [name for name in names if name is not None], chosen_features)


def probe_figures(utterances: Sequence[Spoken]) -> tuple[tuple[Figure, ...], list[Interval]]:
    """Accuracy of every probe over speakers it was not trained on, and the differences semantic - coarse.

    The first half of the speakers trains; intervals are over utterances of the others, since their instants hang
    together.
    """
    speakers = sorted({one.group for one in utterances})
    training = set(speakers[: len(speakers) // 2])
    numbers = {name: number for number, name in enumerate(sorted({name for one in utterances for name in one.names}))}
    labels = torch.tensor([numbers[name] for one in utterances for name in one.names])
    train = torch.tensor([one.group in training for one in utterances for _ in one.names])
    sizes = [len(one.names) for one in utterances if one.group not in training]

    def share(values: Tensor) -> Interval:
        return ratio_interval([float(part.sum()) for part in values.double().split(sizes)], sizes)

    right = {
        kind: probe(torch.cat([one.features[kind] for one in utterances]), labels, train)
        for kind in utterances[0].features
    }
    figures = [Figure.of(f"probe on {kind}", share(values)) for kind, values in right.items()]
    gaps = []
    for kind in dict.fromkeys(kind.split(",")[0] for kind in right):
        gaps.append(share(right[f"{kind}, semantic"].double() - right[f"{kind}, coarse"].double()))
        figures.append(Figure.of(f"{kind}: semantic - coarse", gaps[-1]))
    commonest = labels[train].bincount().argmax()
    figures.append(Figure.of("commonest answer", share(labels[~train] == commonest)))
    return tuple(figures), gaps


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError for piano, or without the recogniser, both tokenizers, or recordings with transcripts."""
    inputs.subject.require("codec", "semantic")
    recogniser = Recogniser(inputs.work)
    items = transcribed_items(inputs, NUM_ITEMS, recogniser.knows)
    utterances = [one for item in inputs.progress(items, "P") if (one := spoken(inputs, item, recogniser)) is not None]
    if len({one.group for one in utterances}) < 2:
        raise EvaluationError("needs two speakers whose transcripts fit the sound")
    figures, gaps = probe_figures(utterances)
    instants, phones = sum(len(one.names) for one in utterances), len({n for one in utterances for n in one.names})
    notes = (
        f"{instants} instants of {phones} phones in {len(utterances)} utterances, silence left out; phones as "
        f"{recogniser.name} aligns the transcript, so not beyond doubt",
        "half of the speakers train the probe, the others test it; intervals over utterances; all words are in the "
        "recogniser's dictionary",
        "met: no interval of a difference reaches 0; C3 has the speaker probes of the same tokens",
    )
    return RowReport("P", TITLE, TARGET, figures, all((gap.low or -1.0) > 0.0 for gap in gaps), notes)
