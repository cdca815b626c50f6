"""The key/value cache of causal attention: an explicit value, one preallocated tensor a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class KeyValueCache:
    """Keys and values seen so far; `layers[i]` is [2, B, H, capacity, D / H], `length` the positions written.

    Position p lives in slot `p % capacity`. Only a cache as large as the attention window may be written round and
    round (the slots overwritten have left the window); a smaller one is full after `capacity` positions.
    """

    layers: list[Tensor]
    window: int | None = None
    length: int = 0

    @classmethod
    def allocate(
        cls, num_layers: int, shape: tuple[int, int, int, int], window: int | None, like: Tensor
    ) -> KeyValueCache:
        """shape = (B, H, capacity, D / H); dtype and device are those of `like`."""
        batch, heads, capacity, width = shape
        capacity = capacity if window is None else min(capacity, window)
        return cls([like.new_zeros(2, batch, heads, capacity, width) for _ in range(num_layers)], window)

    @property
    def capacity(self) -> int:
        return self.layers[0].shape[3]

    @property
    def batch(self) -> int:
        return self.layers[0].shape[1]

    def expand(self, batch: int) -> KeyValueCache:
        """A cache of `batch` rows, each a copy of this one's single row."""
        return KeyValueCache([layer.repeat(1, batch, 1, 1, 1) for layer in self.layers], self.window, self.length)

    def require_room(self, num_positions: int) -> None:
        """Raises IndexError where `num_positions` more do not fit."""
        if self.capacity != self.window and self.length + num_positions > self.capacity:
            raise IndexError(f"cache holds {self.capacity} positions, {self.length + num_positions} asked for")

    def write(self, layer: int, keys_values: Tensor) -> Tensor:
        """Stores keys_values [2, B, H, n, D / H] at the next n positions -> all that a following query may see.

        `length` stays as it is: advance it once all layers have written.
        """
        store, start, count = self.layers[layer], self.length, keys_values.shape[3]
        if start + count <= self.capacity:
            store[:, :, :, start : start + count] = keys_values
        else:
            kept = keys_values[:, :, :, -self.capacity :]
            end = start + count
            slots = torch.arange(end - kept.shape[3], end, device=store.device) % self.capacity
            store[:, :, :, slots] = kept
        return store[:, :, :, : min(start + count, self.capacity)]

    def advance(self, num_positions: int) -> None:
        self.length += num_positions
