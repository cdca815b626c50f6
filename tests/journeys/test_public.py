"""A server as it is run for others: it asks for a login, tells its figures, and ends without losing anybody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.app.conftest import write_tone
from tests.journeys.conftest import ROOT, free_port
from tests.tiny import make_tiny_checkpoint

START_S, GRACE_S, END_S = 240, 1, 20


@dataclass(frozen=True)
class Public:
    url: str
    process: subprocess.Popen
    log: Path

    def client(self) -> Client:
        downloads = str(self.log.with_name("downloads"))
        return Client(self.url, auth=("anna", "secret"), verbose=False, download_files=downloads)


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Public]:
    make_tiny_checkpoint(tmp_path / "tiny-speech")
    logins, log, port = tmp_path / "logins", tmp_path / "log", free_port()
    logins.write_text("anna:secret\n")
    logins.chmod(0o600)
    command = [sys.executable, "app.py", "--port", str(port), "--device", "cpu", "--studies", str(tmp_path / "studies")]
    command += ["--checkpoints", str(tmp_path / "tiny-speech"), "--auth", str(logins), "--metrics", "--log-json"]
    command += ["--grace", str(GRACE_S)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/healthz").raise_for_status()
            break
        except httpx.HTTPError:
            time.sleep(0.3)
    else:
        pytest.fail(f"no answer:\n{log.read_text()[-3000:]}")
    yield Public(url, process, log)
    process.kill()
    process.wait()


def test_a_login_is_asked_for_and_the_end_loses_nobody(public, tmp_path):
    for route in ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x"):
        assert httpx.get(f"{public.url}{route}").status_code == 401
    with pytest.raises(ValueError, match="Could not login"):
        Client(public.url, auth=("anna", "wrong"), verbose=False)
    client, prompt = public.client(), handle_file(write_tone(tmp_path / "anna's voice.wav", 4.0))
    one = client.predict(prompt, "tiny-speech", continuation_s=1, num_continuations=1, api_name="/continue")
    assert one[0]["status"] == "done"

    text = httpx.get(f"{public.url}/metrics").text
    assert 'audiolm_runs_total{kind="continue_prompt",outcome="done"} 1' in text
    assert 'audiolm_stage_seconds_count{stage="semantic"} 1' in text

    job = client.submit(prompt, "tiny-speech", continuation_s=30, num_continuations=4, api_name="/continue")
    next(iter(job))
    public.process.send_signal(signal.SIGTERM)
    with pytest.raises(AppError, match=r"the server is being restarted\. Please try again in a minute"):
        job.result(timeout=END_S)
    assert public.process.wait(END_S) == 0
    lines = [json.loads(line) for line in public.log.read_text().splitlines() if line.startswith("{")]
    ended = [line for line in lines if line["message"] == "run ended"]
    assert [line["outcome"] for line in ended] == ["done", "refused"]
    assert ended[0]["semantic"] > 0
    log = public.log.read_text()
    assert "anna" not in log
    assert "Traceback" not in log
