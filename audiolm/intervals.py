"""What goes beside every figure: its interval, and the number of items behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """An estimate over `n` items or ratings with its 95 % interval; no bounds where too few of them allow none."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class NamedEstimate:
    """A figure of a report with its 95 % interval; `value` None where it cannot be had."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """95 % score interval of a rate (Wilson 1927); unlike a bootstrap it has a width at 0 and at 1.

    >>> [round(x, 3) for x in wilson_interval(20, 20)]
    [0.839, 1.0]
    """
    if count == 0:
        return 0.0, 1.0
    share, spread = successes / count, Z_95**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
