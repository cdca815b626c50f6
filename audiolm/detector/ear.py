"""Reads what a checkpoint's own models hear in a clip (`audiolm.checkpoints.listener`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import SEMANTIC_RATE_HZ

SEGMENTS_PER_S = 4
LARGEST = 5.0  # deviations beyond this many standard deviations are cut off


class Ear(nn.Module):
    """Figures [B, D, S] at 25 Hz -> a logit every 0.25 s, from half a second to either side, and one for the clip.

    The clip's logit reads the mean and the spread of everything over time; a sum over many weak hints, which is why no
    deep network is needed. Buffers: mean, std [D] of the training clips.
    """

    def __init__(self, num_figures: int, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_figures))
        self.register_buffer("std", torch.ones(num_figures))
        self.near = nn.Conv1d(num_figures, width, 5, padding=2)
        self.far = nn.Conv1d(width, width, 5, padding=4, dilation=2)
        self.dropout = nn.Dropout(dropout)
        self.clip = nn.Linear(2 * (num_figures + width), 1)
        self.segment = nn.Linear(num_figures + width, 1)

    def forward(self, figures: Tensor, num_segments: int) -> tuple[Tensor, Tensor, Tensor]:
        """-> (segment logits [B, num_segments], clip logits [B], mean figures [B, D])."""
        x = self.hear(figures)
        pooled = pool(x)
        segments = self.segment(self.dropout(self.around(x, num_segments)))[:, :, 0]
        return segments, self.clip(self.dropout(pooled))[:, 0], pooled[:, : figures.shape[1]]

    def hear(self, figures: Tensor) -> Tensor:
        """[B, D, S] -> [B, D + width, S]: deviations from the mean, and what two convolutions make of them."""
        x = self.deviations(figures)
        near = F.gelu(self.near(x))
        return torch.cat([x, near + F.gelu(self.far(self.dropout(near)))], dim=1)

    def deviations(self, figures: Tensor) -> Tensor:
        """[B, D, S] -> the same in standard deviations from the mean."""
        return ((figures - self.mean[:, None]) / self.std[:, None]).clamp(-LARGEST, LARGEST)

    def around(self, x: Tensor, num_segments: int) -> Tensor:
        """[B, E, S] -> [B, num_segments, E]: what lies around the centre of each segment."""
        return (x @ surroundings(x.shape[2], num_segments).to(x)).mT


def pool(x: Tensor) -> Tensor:
    """[B, E, S] -> [B, 2 E]: means over time, then spreads."""
    return torch.cat([x.mean(dim=2), x.std(dim=2, correction=0)], dim=1)


def surroundings(num_positions: int, num_segments: int) -> Tensor:
    """[S, num_segments] weights that average what lies within 0.25 s of each segment's centre; columns add up to 1.

    The last centre may lie a little beyond the last position; it always has some before it.
    """
    frames = (torch.arange(num_positions) + 0.5) / SEMANTIC_RATE_HZ
    centres = torch.arange(num_segments) / SEGMENTS_PER_S
    near = ((frames[:, None] - centres).abs() <= 1 / SEGMENTS_PER_S).float()
    return near / near.sum(dim=0)
