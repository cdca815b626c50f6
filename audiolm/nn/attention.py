"""Multi-head self-attention with rotary positions (RoFormer, arXiv 2104.09864).

The paper uses T5 relative position biases; rotary positions are relative as well, cost no table, and leave the
attention to one fused kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0
BLOCK = 128


def rotary_angles(positions: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """positions [N] -> (cosines, sines), each float32 [N, D / H / 2]."""
    half = head_width // 2
    frequencies = ROTARY_BASE ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angles = positions.float()[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotates pairs (i, i + half) of x [..., D / H] by its position's angles, which broadcast against it."""
    first, second = x.chunk(2, dim=-1)
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def blockwise_causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Each [B, H, N, D / H] -> the same: causal attention as plain matrix products, a block of queries at a time.

    For training on a CPU, where the backward pass of the fused kernel takes twice as long; later keys of a block's
    queries are not even computed.
    """
    steps = queries.shape[2]
    queries = queries * queries.shape[-1] ** -0.5
    hidden = torch.full((steps, steps), float("-inf"), dtype=queries.dtype, device=queries.device).triu(1)
    blocks = []
    for start in range(0, steps, BLOCK):
        end = min(start + BLOCK, steps)
        scores = queries[:, :, start:end] @ keys[:, :, :end].mT + hidden[start:end, :end]
        blocks.append(scores.softmax(-1).to(values.dtype) @ values[:, :, :end])
    return torch.cat(blocks, dim=2)


def full_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Each [B, H, N, D / H] -> the same: every position attends to all, as plain matrix products (as above)."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    return scores.softmax(-1).to(values.dtype) @ values


class SelfAttention(nn.Module):
    """[B, N, D] -> [B, N, D]; position n attends to the `window` positions up to n (all of them where None).

    Not causal: to all positions, before and after.
    """

    def __init__(self, width: int, num_heads: int, window: int | None = None, causal: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def _project(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """-> queries [B, H, N, D / H], keys and values [2, B, H, N, D / H]."""
        batch, steps, width = x.shape
        qkv = self.qkv(x).view(batch, steps, 3, self.num_heads, width // self.num_heads)
        turned = rotate(qkv[:, :, :2], *(angle[:, None, None] for angle in rotary))  # of queries and keys, every head
        queries = turned[:, :, 0].transpose(1, 2)
        keys_values = torch.stack([turned[:, :, 1], qkv[:, :, 2]]).transpose(2, 3)
        return queries, keys_values

    def _merge(self, heads: Tensor) -> Tensor:
        return self.out(heads.transpose(1, 2).flatten(2))

    def _attend(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        steps = queries.shape[2]
        if not self.causal:
            return full_attention(queries, keys_values[0], keys_values[1])
        if self.window is None or steps <= self.window:
            if queries.requires_grad and queries.device.type == "cpu":
                return blockwise_causal_attention(queries, keys_values[0], keys_values[1])
            return F.scaled_dot_product_attention(queries, keys_values[0], keys_values[1], is_causal=True)
        ones = torch.ones(steps, steps, dtype=torch.bool, device=queries.device)
        banded = ones.tril() & ~ones.tril(-self.window)
        return F.scaled_dot_product_attention(queries, keys_values[0], keys_values[1], attn_mask=banded)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        return self._merge(self._attend(*self._project(x, rotary)))

    def prefill(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """`forward`, and the keys and values [2, B, H, N, D / H] that later steps look back at."""
        queries, keys_values = self._project(x, rotary)
        return self._merge(self._attend(queries, keys_values)), keys_values
