"""Runs a script as two processes of one gloo group, as `torchrun` would."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_ranks(script: str, *arguments: str) -> list[str]:
    """The standard output of each rank; fails where one does not end well."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, **group, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [(*rank.communicate(timeout=240), rank.returncode) for rank in ranks]
    assert [code for *_, code in ended] == [0, 0], "\n".join(errors for _, errors, _ in ended)
    return [output for output, *_ in ended]


def _free_port() -> int:
    """Below those that the system gives to outgoing connections: none takes it before the first rank does."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("of 100 ports none is free")
