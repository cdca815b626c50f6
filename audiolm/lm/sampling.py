"""Sampling one token a row: temperature, top-k, top-p, one random generator a row."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.config import SamplingConfig

BLOCK_STEPS = 64
LARGEST_UNIFORM = 1 - 1e-6


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


def invert(logits: Tensor, uniforms: Tensor) -> Tensor:
    """logits [B, V], uniforms [B] in [0, 1) -> ids [B], by inverting the cumulative distribution.

    So a row depends on its own logits and its own uniform number alone, and an id of probability zero is never taken.
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    threshold = uniforms.clamp_max(LARGEST_UNIFORM)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]


def sample(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """logits [B, V], uniforms [B] in [0, 1) -> ids [B]; temperature 0 takes the likeliest."""
    if config.temperature == 0.0:
        return logits.argmax(-1)
    return invert(truncate(logits.float() / config.temperature, config.top_k, config.top_p), uniforms)


class RowSampling:
    """`sample` for rows with settings and generators of their own.

    Uniform numbers are drawn from a row's generator in blocks of a fixed size: how many steps are wanted in the end
    changes nothing. One generator may serve several rows, one after another, not at the same time.

    `settings` [B, 3]: 1 / temperature, or 0 where the likeliest is taken; top k; top p. `block` [B, steps, L]: numbers.
    """

    def __init__(self, num_rows: int, num_levels: int, device: torch.device) -> None:
        self.settings = torch.ones(num_rows, 3, device=device)
        self.block = torch.zeros(num_rows, BLOCK_STEPS, num_levels, device=device)
        self._rows = torch.arange(num_rows, device=device)
        self._configs: dict[int, SamplingConfig] = {}
        self._generators: dict[int, torch.Generator] = {}
        self._used: dict[int, int] = {}

    def join(self, row: int, config: SamplingConfig, generator: torch.Generator) -> None:
        self._configs[row], self._generators[row], self._used[row] = config, generator, BLOCK_STEPS
        inverse = 1.0 / config.temperature if config.temperature else 0.0
        self.settings[row] = torch.tensor([inverse, config.top_k, config.top_p])

    def leave(self, row: int) -> None:
        del self._configs[row], self._generators[row], self._used[row]

    def advance(self, rows: list[int]) -> list[int]:
        """Which steps of `block` are the next uniform numbers of `rows`."""
        places = []
        for row in rows:
            if self._used[row] == BLOCK_STEPS:
                generator = self._generators[row]
                with torch.inference_mode():
                    numbers = torch.rand(self.block.shape[1:], generator=generator, device=generator.device)
                    self.block[row], self._used[row] = numbers, 0
            places.append(self._used[row])
            self._used[row] += 1
        return places

    def draw(self, rows: list[int], num_rows: int) -> Tensor:
        """The next uniform numbers of `rows`, within [num_rows, L]; other rows hold anything."""
        places = dict(zip(rows, self.advance(rows), strict=True))
        used = [places.get(row, 0) for row in range(num_rows)]
        return self.block[self._rows[:num_rows], torch.tensor(used, device=self.block.device)]

    def choose(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """logits [B, V] of the first B rows, uniforms [B] -> ids [B]."""
        num_rows = logits.shape[0]
        scaled = logits.float() * self.settings[:num_rows, :1]
        for (top_k, top_p), rows in self._truncated(num_rows).items():
            scaled[rows] = truncate(scaled[rows], top_k, top_p)
        ids = invert(scaled, uniforms)
        if any(config.temperature == 0.0 for config in self._configs.values()):
            ids = torch.where(self.settings[:num_rows, 0] == 0, logits.argmax(-1), ids)
        return ids

    def _truncated(self, num_rows: int) -> dict[tuple[int, float], list[int]]:
        """Rows that truncate, by what they truncate to."""
        groups: dict[tuple[int, float], list[int]] = {}
        for row, config in self._configs.items():
            if row < num_rows and (config.top_k > 0 or config.top_p < 1.0):
                groups.setdefault((config.top_k, config.top_p), []).append(row)
        return groups
