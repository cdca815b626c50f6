"""The engine as a process of its own, with the tiny checkpoint; the long test kills it twenty times."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from app.results import Finished
from app.schemas import CheckpointChoice, ContinueRequest
from app.service import Service
from app.settings import Settings
from audiolm.events import Chunk
from audiolm.receipt import hash_tokens

BACK_S = 30.0
VISITORS = 3


@pytest.fixture(scope="module")
def service(settings: Settings) -> Service:
    service = Service(settings)
    yield service
    service.close()


class Visitor(threading.Thread):
    """Runs one request to its end; `working` once its tokens come."""

    def __init__(self, service: Service, recording: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.working, self.tokens, self.error = threading.Event(), [], None
        fields = {"prompt_s": 1.0, "continuation_s": 6.0, "num_continuations": 1, "seed": seed}
        self._request = ContinueRequest.from_fields(recording, CheckpointChoice("tiny-speech"), fields)
        self._service, self._name = service, f"visitor {seed}"
        self.start()

    def run(self) -> None:
        try:
            for event in self._service.continue_prompt(self._request, self._name):
                if isinstance(event, Chunk):
                    self.working.set()
                if isinstance(event, Finished):
                    assert all(path.stat().st_size for saved in event.saved for path in saved.paths)
                    self.tokens = [hash_tokens(s.continuation.semantic, s.continuation.acoustic) for s in event.saved]
        except Exception as error:
            self.error = error
        finally:
            self.working.set()


def finished(visitors: list[Visitor]) -> list[list[str]]:
    for visitor in visitors:
        visitor.join(300)
        assert visitor.error is None
        assert len(visitor.tokens) == 1
    return [visitor.tokens for visitor in visitors]


def kill_in_mid_job(service: Service, visitors: list[Visitor]) -> float:
    """-> how long it took until there was another engine, ready for work."""
    assert visitors[0].working.wait(120)
    lost = service.status().process
    assert lost != os.getpid()
    os.kill(lost, signal.SIGKILL)
    killed = time.monotonic()
    while service.status().state != "ready" or service.status().process == lost:
        assert time.monotonic() - killed < BACK_S
        time.sleep(0.02)
    return time.monotonic() - killed


def test_runs_among_others_and_after_a_kill_give_the_tokens_of_each_alone(service, recording):
    alone = [finished([Visitor(service, recording, seed)])[0] for seed in range(VISITORS)]
    assert len({tokens for rows in alone for tokens in rows}) == VISITORS
    visitors = [Visitor(service, recording, seed) for seed in range(VISITORS)]
    kill_in_mid_job(service, visitors)
    assert finished(visitors) == alone
    assert service.status().restarts == 1


def test_a_signal_to_all_processes_of_a_service_leaves_the_engine_its_runs(service, recording):
    visitor, before = Visitor(service, recording, 9), service.status().restarts
    assert visitor.working.wait(120)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(service.status().process, number)
    finished([visitor])
    assert service.status().restarts == before


@pytest.mark.long
def test_twenty_kills_in_mid_job_lose_nobody_and_the_engine_is_back_within_30_s(service, recording):
    alone = [finished([Visitor(service, recording, seed)])[0] for seed in range(VISITORS)]
    before, times = service.status().restarts, []
    for _ in range(20):
        visitors = [Visitor(service, recording, seed) for seed in range(VISITORS)]
        times.append(kill_in_mid_job(service, visitors))
        assert finished(visitors) == alone
    assert service.status().restarts == before + 20
    print(f"\n20 kills, {20 * VISITORS} runs, all whole; back after {max(times):.1f} s at most")
