"""Token streams that one stage still makes while the next one reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


class Growing:
    """Tokens [N, n, L] that are still being made, of `total` steps in the end. Who reads waits for what it needs."""

    def __init__(self, start: Tensor, total: int) -> None:
        """Starts as `start` [N, n0, L]."""
        self.total = total
        self._steps = list(start.unbind(1))

    def __len__(self) -> int:
        return len(self._steps)

    def append(self, step: Tensor) -> None:
        """One more step [N, L]; beyond the total nothing is kept."""
        if len(self._steps) < self.total:
            self._steps.append(step)

    def until(self, length: int) -> Iterator[None]:
        """Yields as long as there are fewer steps."""
        while len(self._steps) < length:
            yield None

    def span(self, start: int, end: int) -> Tensor:
        """[N, end - start, L]."""
        return torch.stack(self._steps[start:end], dim=1)


@dataclass(frozen=True)
class Excerpt:
    """Steps `start` to `end` of a growing stream; where `length` is more than that, its last step goes on."""

    source: Growing
    start: int
    end: int
    length: int

    def __len__(self) -> int:
        """How many of its steps are known."""
        return self.length if self.is_complete else max(0, len(self.source) - self.start)

    @property
    def is_complete(self) -> bool:
        return len(self.source) >= self.end

    def of_row(self, row: int, first: int) -> Tensor:
        """[n, L], what is known of it from its step `first` on."""
        end = min(self.end, len(self.source))  # looked at once: another thread may append meanwhile
        known = self.source.span(self.start, end)[row]
        if end == self.end:
            known = torch.cat([known, known[-1:].expand(self.length - len(known), -1)])
        return known[first:]

    def whole(self) -> Tensor:
        """[N, length, L], once it is complete."""
        known = self.source.span(self.start, self.end)
        return torch.cat([known, known[:, -1:].expand(-1, self.length - known.shape[1], -1)], dim=1)
