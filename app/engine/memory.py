"""How much memory a process has, and may have."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

SHARE = 0.75  # of the machine's, for the engine: the rest is the page's, and the system's
CONTROL_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def used_bytes() -> int:
    """By this process, now; where that cannot be read, the most that it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
    return pages * resource.getpagesize()


def usable_bytes() -> int:
    """What the engine may take of this machine, or of the container that it runs in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in CONTROL_GROUPS:
        try:
            limits.append(int(Path(place).read_text(encoding="ascii")))
        except (OSError, ValueError):  # another version, or "max"
            continue
    return int(SHARE * min(limits))
