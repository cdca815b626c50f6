"""One position of each of several rows through a Transformer body: what `Transformer.forward` computes, as decoding
needs it. Few operations on static tensors, no attribute changed, so that it can be compiled or captured as a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.nn.attention import rotary_angles
from audiolm.nn.cache import SlotCache
from audiolm.nn.packing import Matrix, matrix
from audiolm.nn.transformer import Transformer, TransformerBlock


@dataclass(frozen=True)
class BlockSteps:
    """The weights of one block."""

    attention_norm: Tensor
    qkv: Matrix
    out: Matrix
    feed_forward_norm: Tensor
    feed_in: Matrix
    feed_out: Matrix

    @classmethod
    def of(cls, block: TransformerBlock, packed: bool, dtype: torch.dtype) -> BlockSteps:
        return cls(
            block.attention_norm.weight.to(dtype),
            matrix(block.attention.qkv.weight.to(dtype), packed),
            matrix(block.attention.out.weight.to(dtype), packed),
            block.feed_forward_norm.weight.to(dtype),
            matrix(block.feed_in.weight.to(dtype), packed),
            matrix(block.feed_out.weight.to(dtype), packed),
        )


@dataclass(frozen=True)
class Place:
    """Where rows stand: rotary factors [B, 3, 1, D / H] twice, cache indices [B], the attention's mask and width."""

    cosines: Tensor
    sines: Tensor
    targets: Tensor
    mask: Tensor
    num_places: int


class BodySteps:
    """[B, D] -> [B, D], rows of different lengths side by side; everything they remember is in the cache."""

    def __init__(self, body: Transformer, packed: bool, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.window = body.config, body.window
        self.blocks = [BlockSteps.of(block, packed, dtype) for block in body.blocks]
        self.norm = body.norm.weight.to(dtype)

    @property
    def head_width(self) -> int:
        return self.config.width // self.config.num_heads

    @property
    def matrices(self) -> list[Matrix]:
        return [each for block in self.blocks for each in (block.qkv, block.out, block.feed_in, block.feed_out)]

    def init_cache(self, num_rows: int, num_positions: int, dtype: torch.dtype | None = None) -> SlotCache:
        """For rows of at most `num_positions` positions, of which only `window` are kept; `dtype`: or the weights'."""
        shape = (num_rows, self.config.num_heads, num_positions, self.head_width)
        return SlotCache.allocate(self.config.num_layers, shape, self.window, self.norm, dtype)

    def rotary(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """Factors by position, [P, 3, 1, D / H]: of queries, of keys, and 1 and 0 for values, which are not turned."""
        angles = rotary_angles(torch.arange(num_positions, device=self.norm.device), self.head_width)
        cosines, sines = (angle.to(self.norm.dtype) for angle in angles)
        cosines, sines = torch.cat([cosines, cosines], dim=1), torch.cat([-sines, sines], dim=1)
        cosines = torch.stack([cosines, cosines, torch.ones_like(cosines)], dim=1)
        sines = torch.stack([sines, sines, torch.zeros_like(sines)], dim=1)
        return cosines[:, :, None], sines[:, :, None]

    def place(self, cache: SlotCache, rotary: tuple[Tensor, Tensor], positions: Tensor, longest: int) -> Place:
        """For the first rows of the cache at `positions` [B], the longest of which that counts is `longest` - 1."""
        num_places = cache.num_visible(longest)
        mask = cache.mask(positions, num_places).to(self.norm.dtype)
        return Place(rotary[0][positions], rotary[1][positions], cache.targets(positions), mask, num_places)

    def step(self, x: Tensor, cache: SlotCache, place: Place) -> Tensor:
        """x [B, D], the inputs at the rows' next positions -> states [B, D], final norm included."""
        shape = (x.shape[0], 3, self.config.num_heads, self.head_width)
        size = (self.config.width,)
        for number, block in enumerate(self.blocks):
            qkv = block.qkv(F.layer_norm(x, size, block.attention_norm)).view(shape)
            turned = torch.addcmul(qkv * place.cosines, qkv.roll(self.head_width // 2, -1), place.sines)
            cache.write(number, place.targets, turned[:, 1:])
            keys, values = cache.visible(number, x.shape[0], place.num_places)
            heads = F.scaled_dot_product_attention(turned[:, 0, :, None], keys, values, attn_mask=place.mask)
            x = block.out.plus(x, heads.flatten(1))
            hidden = F.gelu(block.feed_in(F.layer_norm(x, size, block.feed_forward_norm)))
            x = block.feed_out.plus(x, hidden)
        return F.layer_norm(x, size, self.norm)
