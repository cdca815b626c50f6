"""Residual vector quantizer (SoundStream, arXiv 2107.03312, section III-C).

k-means start, exponential-moving-average codebooks, revival of dead codes, quantizer dropout. Every level codes what
the levels before it left over. Search and updates run in float32 whatever the surrounding precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiolm.config import QuantizerConfig


class ResidualQuantizer(nn.Module):
    """Latents [B, F, D] <-> codes [B, F, Q]. Only the codebooks are stored; usage statistics live while training."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        shape = (config.num_levels, config.codebook_size)
        self.register_buffer("codebooks", torch.randn(*shape, config.dimension) * 0.1)
        self.register_buffer("usage", torch.ones(shape), persistent=False)
        self.register_buffer("sums", self.codebooks.clone(), persistent=False)
        # Averages of other codebooks would overwrite loaded ones at the first update.
        self.register_load_state_dict_post_hook(lambda module, _: module.reset_statistics())

    def encode(self, latents: Tensor, num_levels: int | None = None) -> Tensor:
        """[B, F, D] -> codes [B, F, q] long, q = num_levels or all."""
        residual = latents.float()
        codes = []
        for codebook in self.codebooks[: num_levels or self.config.num_levels].float():
            ids = _nearest(residual, codebook)
            residual = residual - codebook[ids]
            codes.append(ids)
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, F, q] -> [B, F, D]: the sum over the first q levels' code vectors."""
        levels = torch.arange(codes.shape[-1], device=codes.device)
        return self.codebooks[levels, codes].sum(dim=-2)

    def forward(self, latents: Tensor, levels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Straight-through quantisation while training.

        latents [B, F, D]; levels [B] long: how many levels each row uses (None: all; 0: not quantised at all). Returns
        the quantised latents, the codes [B, F, Q] of all levels, and the commitment loss. In train mode the codebooks
        are updated.
        """
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            residual, total = latents.detach(), torch.zeros_like(latents)
            codes, commitment = [], latents.new_zeros(())
            depth = latents.new_full((latents.shape[0],), self.config.num_levels) if levels is None else levels
            for level in range(self.config.num_levels):
                used = (depth > level).float()
                ids = _nearest(residual, self.codebooks[level])
                vectors = self.codebooks[level][ids]
                if self.training:
                    self._update(level, residual, ids)
                total = total + vectors * used[:, None, None]
                error = ((latents - total.detach()) ** 2).mean(dim=(1, 2))
                commitment = commitment + (error * used).sum() / used.sum().clamp(min=1.0)
                residual = residual - vectors
                codes.append(ids)
            quantised = latents + ((total - latents) * (depth > 0)[:, None, None]).detach()
            return quantised, torch.stack(codes, dim=-1), commitment / self.config.num_levels

    @torch.no_grad()
    def initialise(self, latents: Tensor, generator: torch.Generator, iterations: int = 10) -> None:
        """k-means start of every level on latents [N, D]; of several ranks, all take the codebooks of the first."""
        residual = latents.float()
        size = self.config.codebook_size
        for level in range(self.config.num_levels):
            picks = torch.randint(residual.shape[0], (size,), generator=generator)
            centroids = residual[picks.to(residual.device)]
            for _ in range(iterations):
                ids = _nearest(residual, centroids)
                counts, sums = _statistics(residual, ids, size)
                centroids = torch.where((counts > 0)[:, None], sums / counts.clamp(min=1)[:, None], centroids)
            ids = _nearest(residual, centroids)
            self.codebooks[level] = centroids
            residual = residual - centroids[ids]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(self.codebooks, 0)
        self.reset_statistics()

    @torch.no_grad()
    def reset_statistics(self) -> None:
        """Starts the moving averages from the codebooks as they stand (after k-means or loading)."""
        self.usage.fill_(1.0)
        self.sums.copy_(self.codebooks)

    @torch.no_grad()
    def _update(self, level: int, residual: Tensor, ids: Tensor) -> None:
        config = self.config
        vectors = residual.reshape(-1, config.dimension)
        counts, sums = _statistics(vectors, ids.reshape(-1), config.codebook_size)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        self.usage[level].lerp_(counts, 1 - config.ema_decay)
        self.sums[level].lerp_(sums, 1 - config.ema_decay)
        usage = self.usage[level]
        self.codebooks[level] = self.sums[level] / usage.clamp(min=1e-6)[:, None]
        mean = usage.mean()
        dead = usage < config.dead_code_ratio * mean
        if dead.any():
            picks = torch.randint(vectors.shape[0], (int(dead.sum()),), device=vectors.device)
            self.codebooks[level, dead] = vectors[picks]
            self.usage[level, dead] = mean
            self.sums[level, dead] = vectors[picks] * mean
        if torch.distributed.is_initialized():
            for value in (self.codebooks, self.usage, self.sums):
                torch.distributed.broadcast(value[level].contiguous(), 0)


def _nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """[..., D] x [K, D] -> [...] index of the closest code (|x|^2 is the same for all and left out)."""
    scores = vectors @ codebook.T - 0.5 * (codebook**2).sum(dim=-1)
    return scores.argmax(dim=-1)


def _statistics(vectors: Tensor, ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(ids, minlength=size).to(vectors.dtype)
    sums = torch.zeros(size, vectors.shape[-1], device=vectors.device, dtype=vectors.dtype).index_add_(0, ids, vectors)
    return counts, sums


def perplexity(codes: Tensor, codebook_size: int) -> Tensor:
    """exp(entropy) of code use at every level: codes [..., Q] -> [Q]."""
    flat = codes.reshape(-1, codes.shape[-1])
    counts = torch.stack([torch.bincount(column, minlength=codebook_size) for column in flat.T]).float()
    shares = counts / counts.sum(dim=-1, keepdim=True)
    return torch.exp(-(shares * torch.log(shares.clamp(min=1e-12))).sum(dim=-1))


def draw_levels(batch: int, config: QuantizerConfig, generator: torch.Generator) -> Tensor:
    """Quantizer dropout: [B] levels a row: 0 (not quantised) with `bypass_probability`, all of them with
    `full_depth_probability`, else uniform in 1..Q.

    Rows that are not quantised (as in Moshi's Mimi, arXiv 2410.00037) keep the latents from shrinking to what the first
    level codes well.
    """
    some = torch.randint(1, config.num_levels + 1, (batch,), generator=generator)
    chance = torch.rand(batch, generator=generator)
    some[chance < config.bypass_probability + config.full_depth_probability] = config.num_levels
    some[chance < config.bypass_probability] = 0
    return some


__all__ = ["ResidualQuantizer", "draw_levels", "perplexity"]
