"""The interval that goes beside every rate."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


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
