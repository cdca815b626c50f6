"""The application as a server process of its own, for benchmarks that come as visitors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiolm.errors import AudioLMError

ROOT = Path(__file__).resolve().parents[2]
START_S = 180.0


@contextmanager
def running_server(*options: str) -> Iterator[str]:
    """The address of `app.py OPTIONS`, which ends with the block. Raises AudioLMError where it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="audiolm-benchmark-") as folder:
        environment = {**os.environ, "GRADIO_TEMP_DIR": f"{folder}/cache", "GRADIO_ANALYTICS_ENABLED": "False"}
        command = [sys.executable, "app.py", "--port", str(port), "--studies", f"{folder}/studies", *options]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AudioLMError(f"the server did not answer within {START_S:g} s")
