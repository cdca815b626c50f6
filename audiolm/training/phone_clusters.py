"""K-means centroids moved so that tokens tell more of the phones: for speech that is aligned (`kmeans --phones`).

k-means spends its clusters on whatever varies most in the features. Here a position belongs to the clusters softly, by
distance; each cluster says how likely every phone is there and right before and after it; centroids and these tables
learn to be right, while the softness is taken away: the information bottleneck (Tishby et al., arXiv physics/0004057)
by annealing, as a learning vector quantization (Kohonen, 1990) of phones, with the distortion of k-means beside it. In
use nothing changes: the nearest centroid. As with the encoder's `--phones`, AudioLM knows no text in training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.data.phones import NUM_LABELS, UNKNOWN
from audiolm.errors import DataError
from audiolm.semantic.kmeans import assign

WEIGHTS = (0.3, 1.0, 0.3)  # of the phones before, at and after a position
DISTORTION_WEIGHT = 1.0  # of what k-means minimises, relative to what it came to
SOFTNESS = (0.3, 0.1)  # first and last, relative to the mean squared distance
LEARNING_RATE = 0.02
NUM_STEPS, BATCH = 500, 4096
PSEUDO_COUNT = 0.5
LEAST_PROBABILITY = 1e-6
LEAST_DISTANCE = 1e-6  # mean squared, of points that are their own clusters


def around(labels: Tensor) -> Tensor:
    """Labels [S] of a stretch of sound -> [S, 3]: before, at and after each position; UNKNOWN beyond its ends."""
    return F.pad(labels, (1, 1), value=UNKNOWN).unfold(0, 3, 1)


def move_to_phones(points: Tensor, labels: Tensor, centroids: Tensor, generator: torch.Generator) -> Tensor:
    """points [N, D], labels [N, 3] (`around`), centroids [K, D] of k-means -> centroids [K, D].

    The generator is a CPU one. Raises DataError where no label is known.
    """
    labels = labels.to(points.device)
    if not bool((labels[:, 1] != UNKNOWN).any()):
        raise DataError("no phone of these recordings is known; align them with `python -m audiolm.data phones`")
    ids, distances = assign(points, centroids)
    unit = max(float(distances.mean()), LEAST_DISTANCE)
    moved = centroids.clone().requires_grad_()
    tables = _tables(ids, labels, len(centroids)).log().requires_grad_()
    optimizer = torch.optim.Adam([moved, tables], LEARNING_RATE)
    for step in range(NUM_STEPS):
        softness = unit * SOFTNESS[0] * (SOFTNESS[1] / SOFTNESS[0]) ** (step / NUM_STEPS)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, 2.0 * (1.0 - step / NUM_STEPS))
        drawn = torch.randint(len(points), (BATCH,), generator=generator).to(points.device)
        loss = _loss(points[drawn], labels[drawn], moved, tables, softness, unit)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return moved.detach()


def _tables(ids: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """[3, K, labels]: how likely phones are in a cluster, from counts."""
    counts = torch.full((labels.shape[1], num_clusters, NUM_LABELS), PSEUDO_COUNT, device=labels.device)
    for table, own in zip(counts, labels.T, strict=True):
        known = own != UNKNOWN
        table.index_put_((ids[known], own[known]), table.new_ones(()), accumulate=True)
    return counts / counts.sum(dim=2, keepdim=True)


def _loss(x: Tensor, labels: Tensor, centroids: Tensor, tables: Tensor, softness: float, unit: float) -> Tensor:
    """Nats of the known phones, and the mean squared distance in units of what it was."""
    distances = x.square().sum(dim=1, keepdim=True) - 2.0 * x @ centroids.T + centroids.square().sum(dim=1)
    belonging = (-distances / softness).softmax(dim=1)
    loss = DISTORTION_WEIGHT * (belonging * distances).sum(dim=1).mean() / unit
    for weight, table, own in zip(WEIGHTS, tables, labels.T, strict=True):
        known = own != UNKNOWN
        if bool(known.any()):
            told = (belonging[known] @ table.softmax(dim=1)).gather(1, own[known, None])
            loss = loss - weight * told.clamp_min(LEAST_PROBABILITY).log().mean()
    return loss
