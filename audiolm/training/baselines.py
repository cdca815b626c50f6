"""What a stage must beat: unigram and bigram models of the same steps, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

MIXTURES = (0.5, 0.7, 0.8, 0.9, 0.95)


def unigram_nats(train: Tensor, valid: Tensor, levels: tuple[int, ...]) -> list[float]:
    """train [N, L], valid [M, L] -> nats a step of each level under add-one unigrams."""
    return [float(-_unigram(train[:, level], size).log()[valid[:, level]].mean()) for level, size in enumerate(levels)]


def bigram_nats(train: list[Tensor], valid: list[Tensor], size: int) -> float:
    """Sequences [N] of ids -> nats an id given the one before, interpolated with the unigram.

    The best of a few mixtures on `valid` itself, which favours the baseline.
    """
    (seen_before, seen_after), (before, after) = _pairs(train), _pairs(valid)
    keys = torch.cat([seen_before * size + seen_after, before * size + after])
    _, pairs = torch.unique(keys, return_inverse=True)  # size * size counts would be gigabytes for large vocabularies
    num_seen = len(seen_before)
    counts = torch.bincount(pairs[:num_seen], minlength=len(keys))[pairs[num_seen:]]
    totals = torch.bincount(seen_before, minlength=size)[before]
    bigram, unigram = counts / totals.clamp_min(1), _unigram(torch.cat(train), size)[after]
    weights = [share * (totals > 0) for share in MIXTURES]
    return min(float(-(weight * bigram + (1 - weight) * unigram).log().mean()) for weight in weights)


def _pairs(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([ids[:-1] for ids in sequences]), torch.cat([ids[1:] for ids in sequences])


def _unigram(ids: Tensor, size: int) -> Tensor:
    counts = torch.bincount(ids, minlength=size).float() + 1
    return counts / counts.sum()
