"""Fair times: interleaved runs, medians, and the time that reading memory alone would take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

MIN_RUN_S = 0.02  # shorter works are repeated within a run


@dataclass(frozen=True)
class Times:
    """Seconds of one call, over runs that took turns with those of the others; `processor_s` over all threads."""

    median_s: float
    fastest_s: float
    processor_s: float
    runs: int


def interleaved(works: Mapping[str, Callable[[], object]], runs: int) -> dict[str, Times]:
    """Each work twice to warm up, then `runs` rounds in which every one has its turn.

    What else the machine does, and how warm it is, meets all of them alike.
    """
    counts = {name: _calls(work) for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    processor: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            wall, busy = time.perf_counter(), time.process_time()
            for _ in range(counts[name]):
                work()
            seconds[name].append((time.perf_counter() - wall) / counts[name])
            processor[name].append((time.process_time() - busy) / counts[name])
    return {
        name: Times(statistics.median(values), min(values), statistics.median(processor[name]), runs)
        for name, values in seconds.items()
    }


def _calls(work: Callable[[], object]) -> int:
    work()
    start = time.perf_counter()
    work()
    return max(1, round(MIN_RUN_S / max(time.perf_counter() - start, 1e-6)))


def reading(num_bytes: int, device: torch.device) -> Callable[[], object]:
    """A work that does nothing but read so many bytes once: the floor of whatever has to read as much.

    Where weights fit the processor's cache, so do these bytes.
    """
    buffer = torch.ones(max(1, num_bytes // 4), device=device)

    def read() -> float:
        return float(buffer.sum())

    return read
