"""Counts and durations of this process, written as Prometheus text. They name no visitor."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
Labels = tuple[tuple[str, str], ...]

HELP = {
    "audiolm_runs_total": ("counter", "Runs that ended, by kind and outcome"),
    "audiolm_refused_total": ("counter", "Runs that were not taken on"),
    "audiolm_run_seconds": ("histogram", "From the first step of a run to its result"),
    "audiolm_wait_seconds": ("histogram", "From asking for a run to its first step"),
    "audiolm_stage_seconds": ("histogram", "Each stage of a run"),
    "audiolm_runs_in_line": ("gauge", "Runs under way or waiting"),
    "audiolm_cache_bytes": ("gauge", "Uploads and results on disk"),
    "audiolm_resident_bytes": ("gauge", "Memory of this process"),
    "audiolm_engine_restarts_total": ("counter", "How often the engine was started again"),
    "audiolm_engine_runs": ("gauge", "Runs that the engine works on"),
    "audiolm_engine_waiting": ("gauge", "Runs that wait for the engine"),
    "audiolm_engine_resident_bytes": ("gauge", "Memory of the engine's process"),
    "audiolm_device_bytes": ("gauge", "Memory that the engine takes of a graphics processor"),
    "audiolm_up_seconds": ("gauge", "Since this process began to serve"),
}


class Metrics:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._gauges: dict[str, Callable[[], float]] = {}
        began = time.monotonic()
        self.gauge("audiolm_up_seconds", lambda: time.monotonic() - began)
        self.gauge("audiolm_resident_bytes", resident_bytes)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._counts[name, tuple(labels.items())] += amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Into the histogram `name`."""
        fixed = tuple(labels.items())
        with self._lock:
            for bound in BUCKETS_S:
                self._counts[f"{name}_bucket", (*fixed, ("le", f"{bound:g}"))] += seconds <= bound
            self._counts[f"{name}_bucket", (*fixed, ("le", "+Inf"))] += 1
            self._counts[f"{name}_sum", fixed] += seconds
            self._counts[f"{name}_count", fixed] += 1

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """`read` is called whenever the text is asked for."""
        self._gauges[name] = read

    def text(self) -> str:
        """Prometheus' exposition format, version 0.0.4."""
        with self._lock:
            samples = [(name, labels, float(value)) for (name, labels), value in self._counts.items()]
        samples += [(name, (), float(read())) for name, read in self._gauges.items()]
        lines = []
        for family, (kind, told) in HELP.items():
            own = [sample for sample in samples if sample[0].removeprefix(family) in ("", "_bucket", "_sum", "_count")]
            if own:
                lines += [f"# HELP {family} {told}", f"# TYPE {family} {kind}"]
                lines += [f"{name}{_labels(labels)} {value:g}" for name, labels, value in own]
        return "\n".join(lines) + "\n"


def resident_bytes() -> float:
    """Memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
