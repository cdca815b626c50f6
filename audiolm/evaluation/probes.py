"""C3: what linear probes read out of semantic and of coarse acoustic tokens: speakers, or pitch classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.config import FRAMES_PER_SEMANTIC, SAMPLES_PER_SEMANTIC
from audiolm.data.corpus import Item
from audiolm.errors import EvaluationError
from audiolm.evaluation.holdout import TokenPair
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate, grouped_ratio
from audiolm.intervals import Interval

TITLES = {
    "speech": "Speaker probes: share of utterances whose speaker a linear probe names",
    "piano": "Pitch-class probes: share of instants whose loudest pitch class a linear probe names",
}
TARGETS = {
    "speech": "semantic tokens well under coarse acoustic tokens",
    "piano": "semantic tokens well over coarse acoustic tokens",
}
NUM_ITEMS = {"speech": 400, "piano": 150}
MAX_S = 10.0
MIN_ITEMS_A_SPEAKER = 4
MIN_PIECES = 4  # a probe that has heard one piece knows its key, not pitch
FRAMES_AN_ITEM = 50
CHROMA_RANGE_DB = 40.0  # instants this far below the loudest one of their item have no pitch to name
MAX_DIMENSIONS = 8192  # of a one-hot probe: memory and time grow with the square and the cube
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # a penalty of 1 weighs as much as the data


@dataclass(frozen=True)
class Probed:
    """Features [n, D] by kind of token, labels [n] long, which rows train the probe [n] bool, and the speaker or piece
    of each row [n]."""

    features: dict[str, Tensor]
    labels: Tensor
    train: Tensor
    groups: list[str]

    @property
    def test_groups(self) -> list[str]:
        """Those of the rows that test the probe."""
        return [group for group, known in zip(self.groups, self.train.tolist(), strict=True) if not known]

    @property
    def majority(self) -> int:
        """The commonest label of the training rows: the best guess without looking."""
        return int(torch.bincount(self.labels[self.train]).argmax())


def ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """x [n, D], y [n, C] -> weights [D, C] of least squares with an L2 penalty relative to the data's variance."""
    n, dimension = x.shape
    strength = penalty * max(float(x.square().sum()), 1e-6) / min(n, dimension)  # all-zero data: weights of zero
    if n < dimension:
        return x.T @ torch.linalg.solve(x @ x.T + strength * torch.eye(n, dtype=x.dtype), y)
    return torch.linalg.solve(x.T @ x + strength * torch.eye(dimension, dtype=x.dtype), x.T @ y)


def probe(features: Tensor, labels: Tensor, train: Tensor) -> Tensor:
    """Trains a ridge classifier on the rows `train`; -> [m] bool, which of the other rows it names right.

    features [n, D], labels [n] long, train [n] bool. Features are standardised on the training rows; the penalty is the
    one that names most of every fifth training row right when trained on the others.
    """
    x, held_out = features[train].double(), ~train
    mean, scale = x.mean(dim=0), x.std(dim=0)
    scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale))
    x, test = (x - mean) / scale, (features[held_out].double() - mean) / scale
    answers = F.one_hot(labels, int(labels.max()) + 1).double()
    y = answers[train] - answers[train].mean(dim=0)
    offset = answers[train].mean(dim=0)
    fifth = torch.arange(x.shape[0]) % 5 == 4

    def score(penalty: float) -> float:
        named = (x[fifth] @ ridge(x[~fifth], y[~fifth], penalty) + offset).argmax(dim=1)
        return float((named == labels[train][fifth]).double().mean())

    best = max(PENALTIES, key=score)
    return (test @ ridge(x, y, best) + offset).argmax(dim=1) == labels[held_out]


def histogram(ids: Tensor, size: int) -> Tensor:
    """ids [N, L] -> [L * size] square roots of the shares of each id at each level (Hellinger: no id dominates)."""
    shares = [torch.bincount(level, minlength=size).double() / level.shape[0] for level in ids.T]
    return torch.cat(shares).sqrt().float()


def coarse_vectors(codes: Tensor, codebooks: Tensor) -> Tensor:
    """codes [F, L], codebooks [Q, K, D] -> [F, D] what the first L levels stand for."""
    return codebooks[torch.arange(codes.shape[1]), codes].sum(dim=1)


def one_hot_pairs(codes: Tensor, size: int) -> Tensor:
    """codes [2 S, L] at 50 Hz -> [S, L * size] mean one-hot vectors of two frames: one row a semantic position."""
    hot = F.one_hot(codes, size).float().flatten(1)
    return hot.unflatten(0, (-1, FRAMES_PER_SEMANTIC)).mean(dim=1)


def speaker_rows(pairs: list[TokenPair], inputs: Inputs) -> Probed:
    """One row an utterance; of each speaker the first half trains and the second half tests."""
    by_speaker: dict[str, list[TokenPair]] = {}
    for pair in pairs:
        by_speaker.setdefault(pair.group, []).append(pair)
    kept = {group: own for group, own in by_speaker.items() if len(own) >= MIN_ITEMS_A_SPEAKER}
    if len(kept) < 2:
        needed = f"needs 2 speakers with {MIN_ITEMS_A_SPEAKER} utterances each"
        raise EvaluationError(f"{needed}, found {len(kept)}: take more items")
    ordered = [pair for own in kept.values() for pair in own]
    labels = [label for label, own in enumerate(kept.values()) for _ in own]
    train = [index < len(own) // 2 for own in kept.values() for index in range(len(own))]
    makers = _speaker_features(inputs)
    features = {name: torch.stack([make(pair) for pair in ordered]) for name, make in makers.items()}
    return Probed(features, torch.tensor(labels), torch.tensor(train), [pair.group for pair in ordered])


def _speaker_features(inputs: Inputs) -> dict[str, Callable[[TokenPair], Tensor]]:
    codec, semantic = inputs.subject.codec, inputs.subject.semantic
    num_coarse, codebooks, centroids = (
        codec.config.num_coarse_levels,
        codec.codebooks().float(),
        semantic.centroids.float(),
    )
    return {
        "histogram, semantic": lambda pair: histogram(pair.semantic[:, None], semantic.codebook_size),
        "histogram, coarse": lambda pair: histogram(pair.codes[:, :num_coarse], codec.codebook_size),
        "mean vector, semantic": lambda pair: centroids[pair.semantic].mean(dim=0),
        "mean vector, coarse": lambda pair: coarse_vectors(pair.codes[:, :num_coarse], codebooks).mean(dim=0),
    }


def pitch_rows(items: list[Item], inputs: Inputs) -> Probed:
    """Up to 50 instants an item, labelled with the loudest pitch class; pieces of the first half train."""
    from audiolm.evaluation.music import chroma  # librosa, which speech does without

    codec, semantic = inputs.subject.codec, inputs.subject.semantic
    num_coarse, size = codec.config.num_coarse_levels, codec.codebook_size
    pieces = sorted({item.group for item in items})
    if len(pieces) < MIN_PIECES:
        raise EvaluationError(f"needs {MIN_PIECES} pieces, found {len(pieces)}")
    training = set(pieces[: len(pieces) // 2])
    labels, groups, columns = [], [], {"semantic ids": [], "coarse ids": [], "semantic": [], "coarse": []}
    for item in inputs.progress(items, "C3"):
        waveform, pair = inputs.holdout.waveform(item, MAX_S), inputs.holdout.encode(item, MAX_S)
        # Column k of the chroma is centred on sample 640 k: half a position on, it is centred on position k.
        energy = chroma(F.pad(waveform[SAMPLES_PER_SEMANTIC // 2 :], (0, SAMPLES_PER_SEMANTIC)), SAMPLES_PER_SEMANTIC)
        chosen = sounding_instants(energy[:, : pair.semantic.shape[0]])
        labels.append(torch.from_numpy(energy.argmax(axis=0))[chosen])
        groups += [item.group] * len(chosen)
        frames = pair.codes[:, :num_coarse].unflatten(0, (-1, FRAMES_PER_SEMANTIC))[chosen]  # [m, 2, L]
        columns["semantic ids"].append(pair.semantic[chosen])
        columns["coarse ids"].append(frames)
        columns["semantic"].append(semantic.centroids.float()[pair.semantic[chosen]])
        vectors = coarse_vectors(frames.flatten(0, 1), codec.codebooks().float())
        columns["coarse"].append(vectors.unflatten(0, (-1, FRAMES_PER_SEMANTIC)).mean(dim=1))
    joined = {name: torch.cat(parts) for name, parts in columns.items()}
    features = {"vector, semantic": joined["semantic"], "vector, coarse": joined["coarse"]}
    if max(num_coarse * size, semantic.codebook_size) <= MAX_DIMENSIONS:
        features["ids, semantic"] = F.one_hot(joined["semantic ids"], semantic.codebook_size).float()
        features["ids, coarse"] = one_hot_pairs(joined["coarse ids"].flatten(0, 1), size)
    return Probed(features, torch.cat(labels).long(), torch.tensor([group in training for group in groups]), groups)


def sounding_instants(energy: np.ndarray, count: int = FRAMES_AN_ITEM) -> Tensor:
    """chroma energy [12, S] -> indices of at most `count` evenly chosen columns within 40 dB of the loudest."""
    total = energy.sum(axis=0)
    loud = torch.from_numpy(np.flatnonzero(total > total.max() * 10.0 ** (-CHROMA_RANGE_DB / 10.0)))
    if len(loud) <= count:
        return loud
    return loud[torch.arange(count) * len(loud) // count]


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without both tokenizers, recordings, or enough speakers or pieces."""
    inputs.subject.require("codec", "semantic")
    if inputs.domain == "speech":
        items = inputs.holdout.items(NUM_ITEMS["speech"], each=MIN_ITEMS_A_SPEAKER)
        pairs = [inputs.holdout.encode(item, MAX_S) for item in inputs.progress(items, "C3")]
        probed, split = speaker_rows(pairs, inputs), "of each speaker the first half of the utterances trains the probe"
    else:
        items = inputs.holdout.items(NUM_ITEMS["piano"])
        probed, split = pitch_rows(items, inputs), "half of the pieces train the probe, the others test it"
    if (tested := len(set(probed.test_groups))) < 2:
        raise EvaluationError(f"needs 2 speakers or pieces that test the probe, found {tested}")
    figures, gaps = probe_figures(probed)
    sign = -1.0 if inputs.domain == "speech" else 1.0
    met = all(min(sign * gap.low, sign * gap.high) > 0.0 for gap in gaps)
    notes = (
        f"{split}; {int(probed.train.sum())} rows train",
        f"intervals over the {tested} speakers or pieces that test it",
        "met: no interval of a difference reaches 0",
    )
    return RowReport("C3", TITLES[inputs.domain], TARGETS[inputs.domain], figures, met, notes)


def probe_figures(probed: Probed) -> tuple[tuple[Figure, ...], list[Interval]]:
    """Accuracy of every probe, and for each kind of feature the difference semantic - coarse."""
    right = {name: probe(rows, probed.labels, probed.train).double() for name, rows in probed.features.items()}
    groups = probed.test_groups
    figures = [Figure.of(f"probe on {name}", grouped_rate(values, groups)) for name, values in right.items()]
    gaps = []
    for kind in dict.fromkeys(name.split(",")[0] for name in right):
        gap = grouped_ratio(right[f"{kind}, semantic"] - right[f"{kind}, coarse"], torch.ones(len(groups)), groups)
        figures.append(Figure.of(f"{kind}: semantic - coarse", gap))
        gaps.append(gap)
    commonest = (probed.labels[~probed.train] == probed.majority).double()
    figures.append(Figure.of("commonest answer", grouped_rate(commonest, groups)))
    return tuple(figures), gaps
