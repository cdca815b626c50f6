"""Token embeddings and output weights as tables, both with a linear map of the codec's own codebook vectors.

A code's vector says what it sounds like: codes close in the codebook start close in the model. Written as whole tables
[V, D] because a batch looks up many more tokens than there are codes, and decoding can keep the tables.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INITIAL_STD = 0.02


class LevelTables(nn.Module):
    """One table [V_l, D] a level: learned rows plus, where there are codebook features, `features[l] @ map_l`."""

    def __init__(self, levels: tuple[int, ...], width: int, feature_dimension: int) -> None:
        super().__init__()
        self.rows = nn.ParameterList(nn.Parameter(torch.randn(size, width) * INITIAL_STD) for size in levels)
        num_maps = len(levels) if feature_dimension else 0
        self.maps = nn.ParameterList(
            nn.Parameter(torch.randn(feature_dimension, width) * (INITIAL_STD / feature_dimension**0.5))
            for _ in range(num_maps)
        )

    def forward(self, features: Tensor | None) -> list[Tensor]:
        """features [L, K, D_f] -> L tables [V_l, D]."""
        if not len(self.maps) or features is None:
            return list(self.rows)
        return [rows + feature @ matrix for rows, feature, matrix in zip(self.rows, features, self.maps, strict=True)]


def embed(tables: list[Tensor], ids: Tensor) -> Tensor:
    """Sum over levels: ids [..., L] -> [..., D]; the L of `ids` may be any number of the first levels."""
    total = nn.functional.embedding(ids[..., 0], tables[0])
    for level in range(1, ids.shape[-1]):
        total = total + nn.functional.embedding(ids[..., level], tables[level])
    return total
