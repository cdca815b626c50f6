"""What the tests of inspection share."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import torch

Value = TypeVar("Value")


def outcome(events: Generator[object, None, Value]) -> Value:
    """The return value of a generator."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value


def random(*shape: int, high: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))
