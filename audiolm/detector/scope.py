"""How far a clip lies from those that a detector was calibrated on (K. Lee et al., arXiv 1807.03888, one Gaussian)."""

from __future__ import annotations

import torch
from torch import Tensor

SHRINKAGE = 0.05  # of the variances towards their mean: rare directions are not trusted beyond that
KEPT = 0.995  # of the clips that the limit is taken from lie within it


def fit_scope(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """pooled [N, E] -> (mean [E], map [E, E]), under which these clips have unit variance in every direction."""
    x = pooled.double()
    mean = x.mean(dim=0)
    unit = (x - mean).std(dim=0).clamp_min(1e-6)
    variances, directions = torch.linalg.eigh(torch.cov(((x - mean) / unit).T))
    variances = (1 - SHRINKAGE) * variances.clamp_min(0.0) + SHRINKAGE * variances.mean()
    return mean.float(), (directions / variances.sqrt() / unit[:, None]).T.float()


def scope_distances(pooled: Tensor, mean: Tensor, mapping: Tensor) -> Tensor:
    """[N, E] -> [N]: Mahalanobis, root mean square over directions; about 1 for clips like those of the fit."""
    return ((pooled.float() - mean) @ mapping.mT).square().mean(dim=1).sqrt()


def scope_limit(pooled: Tensor, groups: tuple[str, ...]) -> float:
    """The distance within which 99.5 % of clips [N, E] lie that it was not fitted on: halves by group, in turn."""
    order = {group: index for index, group in enumerate(sorted(set(groups)))}
    half = torch.tensor([order[group] % 2 == 0 for group in groups])
    parts = [(pooled[a], pooled[~a]) for a in (half, ~half) if bool(a.any()) and bool((~a).any())]
    distances = [scope_distances(out, *fit_scope(fitted)) for fitted, out in parts]
    return float(torch.quantile(torch.cat(distances or [scope_distances(pooled, *fit_scope(pooled))]), KEPT))
