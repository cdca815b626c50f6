"""Sampling one token a row: temperature, top-k, top-p, one random generator a row."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.config import SamplingConfig

BLOCK_STEPS = 64


class Uniforms:
    """Uniform numbers [B, L] a step, each row from its own generator, so that a row draws the same alone or in a batch.

    Drawn in blocks of a fixed size: how many steps are wanted in the end changes nothing.
    """

    def __init__(self, generators: list[torch.Generator], num_levels: int, device: torch.device) -> None:
        self.generators, self.num_levels, self.device = generators, num_levels, device
        self.block = torch.empty(0)
        self.used = BLOCK_STEPS

    def next(self) -> Tensor:
        if self.used == BLOCK_STEPS:
            rows = [
                torch.rand(BLOCK_STEPS, self.num_levels, generator=generator, device=generator.device).to(self.device)
                for generator in self.generators
            ]
            self.block, self.used = torch.stack(rows, dim=1), 0
        self.used += 1
        return self.block[self.used - 1]


def truncate(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """[B, V] -> [B, V] with -inf outside the top k and outside the smallest set whose probability reaches top_p."""
    if 0 < top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities >= top_p
        logits = logits.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
    return logits


def sample(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """logits [B, V], uniforms [B] in [0, 1) -> ids [B]; temperature 0 takes the likeliest.

    Inverts the cumulative distribution, so a row depends on its own logits and its own uniform number alone, and an id
    of probability zero is never taken.
    """
    if config.temperature == 0.0:
        return logits.argmax(-1)
    logits = truncate(logits.float() / config.temperature, config.top_k, config.top_p)
    cumulative = logits.softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    threshold = torch.minimum(uniforms[:, None] * total, total * (1 - 1e-6))
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
