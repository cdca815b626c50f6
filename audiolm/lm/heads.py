"""From a state of the Transformer body to the logits of each level."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthLevel(nn.Module):
    """One level of the depth head: a residual MLP, [..., D] -> [..., D], normalised for the output table."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)
        self.out_norm = nn.LayerNorm(width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.contract(F.gelu(self.expand(self.norm(x))))
        return self.out_norm(x)


class DepthHead(nn.Module):
    """State and lower levels of the same step -> what level l's output table is multiplied with.

    `lower_tables` projects the input embeddings once a table rather than once a token. Level l sees
    `state + sum of the lower levels' projected embeddings`.
    """

    def __init__(self, num_levels: int, width: int, depth_width: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, depth_width, bias=False)
        self.lower = nn.Linear(width, depth_width, bias=False) if num_levels > 1 else None
        self.levels = nn.ModuleList(DepthLevel(depth_width) for _ in range(num_levels))

    def lower_tables(self, tables: list[Tensor]) -> list[Tensor]:
        """Input tables [V_l, D] -> [V_l, D_depth], for all levels but the last."""
        return [] if self.lower is None else [self.lower(table) for table in tables[:-1]]

    def forward(self, states: Tensor, lower_tables: list[Tensor], targets: Tensor) -> list[Tensor]:
        """Teacher forced: states [M, D], targets [M, L] -> L tensors [M, D_depth]."""
        x = self.state(states)
        outputs = []
        for level, module in enumerate(self.levels):
            outputs.append(module(x))
            if level < len(lower_tables):
                x = x + F.embedding(targets[:, level], lower_tables[level])
        return outputs


class FlatHead(nn.Module):
    """The flattened layout's: the state at each position is normalised already; one linear map to the table's width."""

    def __init__(self, width: int, depth_width: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, depth_width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.state(states)


def logits(x: Tensor, table: Tensor) -> Tensor:
    """x [..., D], output table [V, D] -> [..., V]; x has unit variance, so tables of std 0.02 start nearly uniform."""
    return torch.matmul(x, table.t())
