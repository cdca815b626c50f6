"""R7: forty visitors at once, ten minutes (LOAD_MINUTES), on the first embedded checkpoint; and a burst of all of them.

python -m pytest tests/hostile/test_load.py -m long -s
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file

from app.visitors import COOKIE, new_token
from tests.app.conftest import write_tone
from tests.hostile.corpus import SINE, wav
from tests.journeys.conftest import EMBEDDED, ROOT, free_port
from tests.tiny import make_tiny_checkpoint

pytestmark = pytest.mark.long
NUM_VISITORS, MINUTES = 40, float(os.environ.get("LOAD_MINUTES", "10"))
MAX_RUNS = 16
RUN = {"continuation_s": 2, "num_continuations": 1, "prompt_s": 2}
BUSY = re.compile(r"under way or waiting, and no more are taken\. Please try again in about (\d+) (s|minutes)")


@dataclass
class Seen:
    """What all visitors met with. Times in seconds."""

    done_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def told(self) -> str:
        done, refused = np.array(self.done_s or [np.nan]), np.array(self.refused_s or [np.nan])
        return (
            f"{len(self.done_s)} runs done (median {np.median(done):.1f} s, longest {done.max():.1f} s), "
            f"{len(self.refused_s)} refused (median {np.median(refused):.2f} s, 99 % "
            f"{np.quantile(refused, 0.99):.2f} s, longest {refused.max():.2f} s), lost: {Counter(self.lost)}"
        )


@dataclass(frozen=True)
class Loaded:
    url: str
    checkpoint: str
    process: subprocess.Popen

    def resident_mib(self) -> float:
        """Of the application and of all that it started."""
        tree, mib = {self.process.pid}, 0.0
        statuses = {}
        for path in Path("/proc").glob("[0-9]*/status"):
            try:
                statuses[int(path.parent.name)] = dict(
                    line.split(":", 1) for line in path.read_text().splitlines() if ":" in line
                )
            except OSError:
                continue
        for pid in sorted(statuses):
            if pid in tree or int(statuses[pid]["PPid"]) in tree:
                tree.add(pid)
                mib += int(statuses[pid].get("VmRSS", "0 kB").split()[0]) / 1024
        return mib


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    folder, port = tmp_path_factory.mktemp("load"), free_port()
    embedded = (EMBEDDED / "config.json").exists()
    source = "speech-small" if embedded else str(make_tiny_checkpoint(folder / "tiny-speech").folder)
    command = [sys.executable, "app.py", "--port", str(port), "--device", "cpu", "--checkpoints", source]
    command += ["--studies", str(folder / "studies"), "--max-runs", str(MAX_RUNS), "--metrics"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder / "cache")}
    with (folder / "log").open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx.get(f"{url}/healthz").json()["engine"] == "ready":
                break
        except (httpx.HTTPError, KeyError):
            pass
        time.sleep(0.5)
    yield Loaded(url, "speech-small" if embedded else "tiny-speech", process)
    print((folder / "log").read_text()[-2000:])
    process.terminate()
    process.wait(30)


def visit(loaded: Loaded, recording: Path, seen: Seen, until: float, pause_s: float) -> None:
    """One visitor: runs one after the other; where it is refused, it waits for a while as a person would."""
    try:
        cookie, downloads = {"Cookie": f"{COOKIE}={new_token()}"}, str(recording.with_name("downloads"))
        client = Client(loaded.url, headers=cookie, verbose=False, download_files=downloads)
    except Exception as error:
        seen.lost.append(f"did not get in: {_told(error)}"[:200])
        return
    while True:
        began = time.monotonic()
        try:
            summary, files = client.predict(
                handle_file(recording), loaded.checkpoint, seed=random.randrange(10**6), **RUN, api_name="/continue"
            )
            assert summary["status"] == "done"
            assert soundfile.info(files[0]).duration == pytest.approx(4.0, abs=0.1)
            seen.done_s.append(time.monotonic() - began)
        except Exception as error:
            if BUSY.search(_told(error)):
                seen.refused_s.append(time.monotonic() - began)
            else:
                seen.lost.append(_told(error)[:200])
        if time.monotonic() > until:
            break
        time.sleep(random.uniform(0.5, 1.5) * pause_s)
    client.close()


def _told(error: Exception) -> str:
    """With the server's words, where they were read: a file's answer is not."""
    is_read = isinstance(error, httpx.HTTPStatusError) and error.response.is_stream_consumed
    return f"{error!r} {error.response.text}" if is_read else repr(error)


def all_visit(loaded: Loaded, folder: Path, seconds: float, pause_s: float) -> Seen:
    seen, until = Seen(), time.monotonic() + seconds
    recording = write_tone(folder / "tone.wav", 3.0)
    threads = [
        threading.Thread(target=visit, args=(loaded, recording, seen, until, pause_s)) for _ in range(NUM_VISITORS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_forty_visitors_lose_nothing_and_memory_stays(loaded, tmp_path):
    """Forty clients share one interpreter, which makes them slow: how soon the server refuses is asked by one alone."""
    all_visit(loaded, tmp_path, 60.0, 5.0)  # caches fill
    before = loaded.resident_mib()
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        asked = alone.apply_async(ask_alone, (loaded.url, loaded.checkpoint, 60 * MINUTES))
        seen = all_visit(loaded, tmp_path, 60 * MINUTES, 5.0)
        refused, others = asked.get()
    time.sleep(5)
    drift = loaded.resident_mib() / before - 1.0
    print(
        f"\n{NUM_VISITORS} visitors, {MINUTES:g} minutes: {seen.told()}; memory {before:.0f} MiB, drift {drift:+.1%}; "
        f"asked by itself: {len(refused)} refused (median {np.median(refused):.2f} s, 99 % "
        f"{np.quantile(refused, 0.99):.2f} s, longest {max(refused):.2f} s), others {Counter(others)}"
    )
    assert seen.lost == []
    assert drift < 0.05
    assert set(others) <= {"done"}
    assert np.quantile(refused, 0.99) < 1.0


def ask_alone(url: str, checkpoint: str, seconds: float) -> tuple[list[float], list[str]]:
    """(how long each refusal took, how the other requests ended) of one plain client that asks every two seconds."""
    refused, others, until = [], [], time.monotonic() + seconds
    body = _body(url, checkpoint)
    while time.monotonic() < until:
        first_s, told = _ask(_connection(url), body)
        if BUSY.search(told):
            refused.append(first_s)
        else:
            others.append("done" if '"done"' in told else told[:80])
        time.sleep(2)
    return refused, others


def test_ten_times_too_many_requests_are_refused_at_once(loaded):
    """A burst of 160 at one moment, over connections that are there already: what the server alone takes."""
    answers: list[tuple[float, str]] = []
    body, all_there = _body(loaded.url, loaded.checkpoint), threading.Barrier(10 * MAX_RUNS)

    def ask() -> None:
        connection = _connection(loaded.url)
        connection.connect()
        all_there.wait()
        answers.append(_ask(connection, body))

    threads = [threading.Thread(target=ask) for _ in range(10 * MAX_RUNS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = np.array([seconds for seconds, told in answers if BUSY.search(told)])
    done = sum('"done"' in told for _, told in answers)
    others = Counter(told[:80] for _, told in answers if not BUSY.search(told) and '"done"' not in told)
    print(
        f"\nburst of {len(answers)}: {done} done, {len(refused)} refused with an estimate, median "
        f"{np.median(refused):.2f} s, 99 % {np.quantile(refused, 0.99):.2f} s, longest {refused.max():.2f} s; {others}"
    )
    assert done == MAX_RUNS
    assert done + len(refused) == 10 * MAX_RUNS
    assert np.quantile(refused, 0.99) < 1.0


def _connection(url: str) -> http.client.HTTPConnection:
    """The lightest of clients."""
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)


def _ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, str]:
    """(seconds to the first word of an answer, the last one) of a call of /continue."""
    began = time.monotonic()
    connection.request("POST", "/gradio_api/call/continue", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    told = answer.read()
    if answer.status != 200:
        return time.monotonic() - began, told.decode()
    connection.request("GET", f"/gradio_api/call/continue/{json.loads(told)['event_id']}")
    last, first_s = "", None
    for line in connection.getresponse():
        if line.startswith(b"data: ") and line != b"data: null\n":
            first_s = first_s or time.monotonic() - began
            last = line.decode()
    connection.close()
    return first_s or time.monotonic() - began, last


def _body(url: str, checkpoint: str) -> bytes:
    """The endpoint's values, defaults but for the recording, which is uploaded, and the length."""
    files = {"files": ("a.wav", wav(SINE.tobytes() * 3))}
    path = httpx.post(f"{url}/gradio_api/upload", files=files).json()[0]
    own = {"audio": {"path": path, "meta": {"_type": "gradio.FileData"}}, "checkpoint": checkpoint, **RUN}
    info = httpx.get(f"{url}/gradio_api/info").json()["named_endpoints"]["/continue"]["parameters"]
    values = [own.get(one["parameter_name"], one.get("parameter_default")) for one in info]
    return json.dumps({"data": values}).encode()
