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
    counts = torch.zeros(size * size)
    for ids in train:
        counts += torch.bincount(ids[:-1] * size + ids[1:], minlength=size * size)
    rows = counts.view(size, size)
    bigram = rows / rows.sum(1, keepdim=True).clamp_min(1)
    unigram = _unigram(torch.cat(train), size)
    before, after = torch.cat([ids[:-1] for ids in valid]), torch.cat([ids[1:] for ids in valid])
    known = rows.sum(1)[before] > 0
    nats = []
    for share in MIXTURES:
        weight = known.float() * share
        nats.append(float(-(weight * bigram[before, after] + (1 - weight) * unigram[after]).log().mean()))
    return min(nats)


def _unigram(ids: Tensor, size: int) -> Tensor:
    counts = torch.bincount(ids, minlength=size).float() + 1
    return counts / counts.sum()
