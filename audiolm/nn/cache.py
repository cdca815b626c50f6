"""The key/value cache of causal attention for rows of different lengths: explicit, static, one tensor a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64
"""Places are allotted and looked at in whole blocks: on one CPU thread the sum over a row's keys then has the same bits
however many blocks of masked places follow it."""
LARGEST_FLOAT16 = torch.finfo(torch.float16).max


@dataclass
class SlotCache:
    """`whole` is [layers, 2, B, C, H, D / H], keys and values; position p of a row lies in place p % C.

    A row sees at most `window` positions. C is a multiple of BLOCK; where no row can become longer than the window C is
    as small as the rows allow, else it holds the window, and places are written round and round.
    """

    whole: Tensor
    window: int

    @classmethod
    def allocate(
        cls,
        num_layers: int,
        shape: tuple[int, int, int, int],
        window: int | None,
        like: Tensor,
        dtype: torch.dtype | None = None,
    ) -> SlotCache:
        """shape = (B, H, positions a row may have, D / H); the device, and dtype where none is given, are `like`'s."""
        batch, heads, positions, width = shape
        kept = positions if window is None else min(positions, window)
        places = -(-kept // BLOCK) * BLOCK
        whole = like.new_zeros(num_layers, 2, batch, places, heads, width, dtype=dtype)
        return cls(whole, positions if window is None else window)

    @property
    def num_places(self) -> int:
        return self.whole.shape[3]

    def fill(self, slot: int, keys_values: list[Tensor]) -> None:
        """Writes a row's first n positions, one [2, H, n, D / H] a layer."""
        count = keys_values[0].shape[2]
        kept = torch.arange(max(0, count - self.num_places), count, device=keys_values[0].device)
        for layer, known in zip(self.whole, keys_values, strict=True):
            new = known[:, :, kept].transpose(1, 2)
            if layer.dtype == torch.float16:  # an infinity would outlive its row: no share of it is 0
                new = new.clamp(-LARGEST_FLOAT16, LARGEST_FLOAT16)
            layer[:, slot, kept % self.num_places] = new.to(layer.dtype)

    def copy(self, source: int, target: int) -> None:
        self.whole[:, :, target] = self.whole[:, :, source]

    def num_visible(self, longest: int) -> int:
        """Places to look at where the longest row has `longest` positions, the newest included."""
        return min(-(-longest // BLOCK) * BLOCK, self.num_places)

    def targets(self, positions: Tensor) -> Tensor:
        """Where rows 0..B' - 1 write their next positions [B'], as indices for `write`."""
        rows = torch.arange(positions.shape[0], device=positions.device) * self.num_places
        return rows + positions % self.num_places

    def write(self, layer: int, targets: Tensor, keys_values: Tensor) -> None:
        """keys_values [B', 2, H, D / H], one position of each of the first B' rows."""
        self.whole[layer].flatten(1, 2).index_copy_(1, targets, keys_values.transpose(0, 1))

    def visible(self, layer: int, num_rows: int, num_places: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first rows and places, [B', H, C', D / H] each."""
        keys, values = self.whole[layer, :, :num_rows, :num_places].transpose(2, 3)
        return keys, values

    def mask(self, positions: Tensor, num_places: int) -> Tensor:
        """What is added to attention scores: [B', 1, 1, C'], 0 where a query at its row's position may look, else -inf.

        The age of what lies in place j is (position - j) mod C; it is visible where it is younger than the window and
        was written at all.
        """
        places = torch.arange(num_places, device=positions.device)
        positions = positions[:, None]
        age = (positions - places) % self.num_places
        hidden = age > positions.clamp_max(self.window - 1)
        return torch.zeros(hidden.shape, device=positions.device).masked_fill_(hidden, float("-inf"))[:, None, None]
