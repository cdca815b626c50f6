"""Decoder-only Transformer body: pre-norm blocks, rotary positions (one position at a time: `audiolm.nn.steps`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import TransformerConfig
from audiolm.nn.attention import SelfAttention, rotary_angles

INITIAL_STD = 0.02


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); dropout on both branches."""

    def __init__(self, config: TransformerConfig, window: int | None, causal: bool) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(config.width, bias=False)
        self.attention = SelfAttention(config.width, config.num_heads, window, causal)
        self.feed_forward_norm = nn.LayerNorm(config.width, bias=False)
        self.feed_in = nn.Linear(config.width, config.feed_forward, bias=False)
        self.feed_out = nn.Linear(config.feed_forward, config.width, bias=False)
        for linear in (self.attention.qkv, self.feed_in):
            nn.init.normal_(linear.weight, std=INITIAL_STD)
        for linear in (self.attention.out, self.feed_out):  # the sum over layers starts at the scale of one
            nn.init.normal_(linear.weight, std=INITIAL_STD / math.sqrt(2 * config.num_layers))

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + F.dropout(attended, self.dropout, self.training)
        fed = self.feed_out(F.gelu(self.feed_in(self.feed_forward_norm(x))))
        return x + F.dropout(fed, self.dropout, self.training)


class Transformer(nn.Module):
    """[B, N, D] -> [B, N, D], final norm included. `window` bounds the attention; not causal: both ways."""

    def __init__(self, config: TransformerConfig, window: int | None = None, causal: bool = True) -> None:
        super().__init__()
        self.config = config
        self.window = window
        self.blocks = nn.ModuleList(TransformerBlock(config, window, causal) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, bias=False)

    def _rotary(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        positions = torch.arange(count, device=device)
        return rotary_angles(positions, self.config.width // self.config.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        rotary = self._rotary(x.shape[1], x.device)
        for block in self.blocks:
            x = block.add(x, block.attention(block.attention_norm(x), rotary))
        return self.norm(x)

    def prefill(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x [B, N, D] -> states [B, N, D], as `forward`, and a layer's keys and values [2, B, H, N, D / H]."""
        rotary = self._rotary(x.shape[1], x.device)
        known = []
        for block in self.blocks:
            attended, keys_values = block.attention.prefill(block.attention_norm(x), rotary)
            x = block.add(x, attended)
            known.append(keys_values)
        return self.norm(x), known
