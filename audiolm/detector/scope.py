"""How far a clip lies from those that a detector was calibrated on (K. Lee et al., arXiv 1807.03888, one Gaussian)."""

from __future__ import annotations

import torch
from torch import Tensor

SHRINKAGE = 0.05  # of the variances towards their mean: rare directions are not trusted beyond that
LEAST_SPREAD = 0.05  # of a figure, against the others': below it lies rounding
KEPT = 0.94  # of the clips that the limit is taken from lie within it: with more, other synthesisers pass (D7)


def fit_scope(pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pooled [N, E] -> (mean [E], std [E], map [E, E]): mapped, these clips have unit variance in every direction."""
    x = pooled.double()
    mean, std = x.mean(dim=0), x.std(dim=0)
    std = std.clamp_min(LEAST_SPREAD * float(std.mean()))
    variances, directions = torch.linalg.eigh(torch.cov(((x - mean) / std).T))
    variances = (1 - SHRINKAGE) * variances.clamp_min(0.0) + SHRINKAGE * variances.mean()
    return mean.float(), std.float(), (directions / variances.sqrt()).T.float()


def scope_distances(pooled: Tensor, mean: Tensor, std: Tensor, mapping: Tensor) -> Tensor:
    """[N, E] -> [N]: Mahalanobis, root mean square over directions; about 1 for clips like those of the fit."""
    return (((pooled.float() - mean) / std) @ mapping.mT).square().mean(dim=1).sqrt()


def scope_limit(distances: Tensor) -> float:
    """The distance within which the share `KEPT` of clips [N] lies that it was not fitted on."""
    return float(torch.quantile(distances, KEPT))
