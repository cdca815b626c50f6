"""K-means in torch: k-means++ start (Arthur & Vassilvitskii, 2007), mini-batches, dead clusters revived."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.errors import ConfigError

CHUNK = 8192
SEEDING_POINTS_PER_CLUSTER = 40
DEAD_RATIO = 0.1  # clusters with less than this share of the mean population are moved
FORGETTING = 0.9


def assign(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """points [..., D], centroids [K, D] -> (nearest ids [...] long, squared distances [...])."""
    flat = points.reshape(-1, points.shape[-1])
    half_norms = 0.5 * centroids.square().sum(dim=-1)
    ids, gains = [], []
    for chunk in flat.split(CHUNK):
        gain, index = (chunk @ centroids.T - half_norms).max(dim=-1)
        ids.append(index)
        gains.append(chunk.square().sum(dim=-1) - 2.0 * gain)
    shape = points.shape[:-1]
    return torch.cat(ids).reshape(shape), torch.cat(gains).clamp_min(0.0).reshape(shape)


def seed_centroids(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centroid is a point drawn in proportion to its squared distance to those so far. [K, D]."""
    chosen = [points[int(torch.randint(len(points), (1,), generator=generator))]]
    distances = (points - chosen[0]).square().sum(dim=-1)
    for _ in range(num_clusters - 1):
        # Identical points leave no distance to draw from; then any point will do.
        weights = distances.double().cpu() + 1e-12
        index = int(torch.searchsorted(weights.cumsum(0), weights.sum() * torch.rand(1, generator=generator).double()))
        chosen.append(points[min(index, len(points) - 1)])
        distances = torch.minimum(distances, (points - chosen[-1]).square().sum(dim=-1))
    return torch.stack(chosen)


def fit_kmeans(
    points: Tensor, num_clusters: int, generator: torch.Generator, *, num_epochs: int = 12, batch_size: int = 16_384
) -> Tensor:
    """points [N, D] float -> centroids [K, D]. The generator is a CPU one; the same state gives the same centroids.

    Raises: ConfigError with fewer points than clusters.
    """
    if len(points) < num_clusters:
        raise ConfigError(f"k-means needs at least as many points as clusters ({num_clusters}), found {len(points)}")
    subset = torch.randperm(len(points), generator=generator)[: SEEDING_POINTS_PER_CLUSTER * num_clusters]
    centroids = seed_centroids(points[subset.to(points.device)], num_clusters, generator)
    counts, sums = torch.zeros_like(centroids[:, 0]), torch.zeros_like(centroids)
    for epoch in range(num_epochs):
        population = torch.zeros_like(counts)
        for batch in torch.randperm(len(points), generator=generator).split(batch_size):
            chosen = points[batch.to(points.device)]
            new_counts, new_sums, distances = _totals(chosen, centroids)
            counts, sums = FORGETTING * counts + new_counts, FORGETTING * sums + new_sums
            centroids = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1e-6)[:, None], centroids)
            population += new_counts
        if epoch < num_epochs - 2:
            dead = population < DEAD_RATIO * population.mean()
            centroids = _revive(centroids, dead, chosen, distances, generator)
            counts, sums = counts * ~dead, sums * ~dead[:, None]
    return _full_pass(points, centroids)


def usage(ids: Tensor, num_clusters: int) -> tuple[float, float]:
    """ids [S] -> (perplexity of cluster usage, at most K; share of positions that repeat their predecessor)."""
    shares = torch.bincount(ids.flatten(), minlength=num_clusters).double() / max(1, ids.numel())
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
    return float(entropy.exp()), float((ids[1:] == ids[:-1]).double().mean()) if len(ids) > 1 else 0.0


def _totals(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ids, distances = assign(points, centroids)
    sums = torch.zeros_like(centroids).index_add_(0, ids, points)
    return torch.bincount(ids, minlength=len(centroids)).to(points.dtype), sums, distances


def _revive(centroids: Tensor, dead: Tensor, points: Tensor, distances: Tensor, generator: torch.Generator) -> Tensor:
    """Dead clusters move to points of the last batch, drawn in proportion to their squared distance."""
    num_dead = int(dead.sum())
    if num_dead == 0:
        return centroids
    weights = distances.double().cpu() + 1e-12
    drawn = torch.multinomial(weights, min(num_dead, len(points)), generator=generator).to(points.device)
    moved = centroids.clone()
    moved[dead.nonzero()[: len(drawn), 0]] = points[drawn]
    return moved


def _full_pass(points: Tensor, centroids: Tensor) -> Tensor:
    """One exact Lloyd step over all points, so that the result does not depend on the order of the last batches."""
    counts, sums, _ = _totals(points, centroids)
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1.0)[:, None], centroids)
