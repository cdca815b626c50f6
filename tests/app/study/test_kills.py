"""Acceptance S1: no acknowledged answer lost and none doubled, with the server killed over and over.

The long run: `python -m pytest tests/app/study/test_kills.py -m long -s` (1000 kills, some minutes).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.study.definition import Plan
from app.study.store import Store
from tests.app.study.studies import CODES, make_study

ROOT = Path(__file__).resolve().parents[3]
FIRST_WINDOW_S, STEP = 0.06, 1.05
VALUES = ("original", "generated")


@dataclass
class Client:
    """Calls the server again, with the same words, until it answers; kills it at random moments while it works.

    A kill comes within `window_s` of the call, which shrinks when the answer was faster and grows when it was not: so
    about half of the kills cut a call short, on any machine.
    """

    database: Path
    random: random.Random
    kills_left: int
    server: subprocess.Popen | None = None
    window_s: float = FIRST_WINDOW_S
    kills: int = 0
    cut_short: int = 0  # calls that got no answer and were made again
    acknowledged: dict[tuple[str, int], str] = field(default_factory=dict)

    def call(self, method: str, *arguments: Any) -> Any:
        while True:
            answer = self._try(json.dumps([method, arguments]))
            if answer is not None:
                assert "error" not in answer, (method, answer)
                return answer["found"]
            self.cut_short += 1

    def _try(self, request: str) -> dict[str, Any] | None:
        """None where the server died before its whole answer was here."""
        server = self.server = self.server or self._started()
        timer = threading.Timer(self.random.uniform(0.0, self.window_s), server.kill) if self.kills_left else None
        try:
            server.stdin.write(request + "\n")
            if timer:
                timer.start()
            line = server.stdout.readline()
        except BrokenPipeError:
            line = ""
        if timer:
            timer.join()
            server.wait()
            self.server, self.kills, self.kills_left = None, self.kills + 1, self.kills_left - 1
            self.window_s *= 1 / STEP if line.endswith("\n") else STEP
        return json.loads(line) if line.endswith("\n") else None

    def _started(self) -> subprocess.Popen:
        """A server that is ready: killing it while it starts would prove little."""
        command = [sys.executable, "-m", "tests.app.study.serving", str(self.database)]
        server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert server.stdout.readline() == "ready\n"
        return server

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()


def run_people(client: Client, study, until_kills: int) -> list[str]:
    """One participant after the other takes part to the end, until there were enough kills. Returns their tokens."""
    tokens = []
    while client.kills < until_kills:
        name = f"person {len(tokens)}"
        token = client.call("consent", study.id, {"PROLIFIC_PID": name}, True)["token"]
        while (view := client.call("next_trial", token)) is not None:
            value = client.random.choice(VALUES)
            given = {"plays": [1] * len(view["clips"]), "listened_s": [0.1] * len(view["clips"])}
            given |= {"text": value} if view["phase"] == "comment" else {"value": value}
            receipt = client.call("answer", token, view["key"], given, f"{name} step {view['number']}")
            assert receipt["done"] == view["number"]
            client.acknowledged[token.partition(".")[0], view["number"] - 1] = value
        assert client.call("finish", token)["code"] == CODES.complete
        tokens.append(token)
    return tokens


def kill_loop(folder: Path, kills: int, seed: int) -> Client:
    """Raises AssertionError where anything acknowledged is not there exactly once, as it was given."""
    database = folder / "studies.sqlite3"
    study, _ = make_study(items=20, plan=Plan(target_sessions=10_000))
    store = Store(database)
    store.create_study(study)
    store.close()
    client = Client(database, random.Random(seed), kills)
    try:
        tokens = run_people(client, study, kills)
    finally:
        client.close()
    store = Store(database)
    records = store.results(study.id)
    assert {(one.session, one.index): one.value for one in records.answers} == client.acknowledged
    assert len(records.answers) == len(client.acknowledged)
    assert [session.state for session in records.sessions] == ["complete"] * len(tokens)
    with store._database.reading() as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    store.close()
    return client


def test_no_acknowledged_answer_is_lost_or_doubled_over_kills(quick_folder):
    client = kill_loop(quick_folder, kills=12, seed=1)
    assert client.kills == 12
    assert client.acknowledged


@pytest.mark.long
def test_no_acknowledged_answer_is_lost_or_doubled_over_1000_kills(tmp_path):
    client = kill_loop(tmp_path, kills=1000, seed=2)
    print(
        f"\n{client.kills} kills, {client.cut_short} calls cut short and made again, "
        f"{len(client.acknowledged)} answers acknowledged: all there, each once"
    )
    assert client.kills == 1000
    assert client.cut_short > 300  # the kills do come in between
