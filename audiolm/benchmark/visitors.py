"""Many visitors at once against one after the other: total throughput, and whether each gets the same tokens."""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiolm.audio import files
from audiolm.benchmark.server import running_server
from audiolm.benchmark.stages import processor_name, synthetic_prompt


@dataclass(frozen=True)
class Visitors:
    """Medians over rounds, in each of which the same runs are made alone, one after the other, and all at once.

    `speed_up` is the throughput at once over that alone; `identical` counts the runs whose tokens were the same.
    """

    checkpoint: str
    processor: str
    visitors: int
    seconds: float
    rounds: int
    alone_s: float
    at_once_s: float
    slowest_at_once_s: float
    speed_up: float
    identical: int
    runs: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_visitors(
    checkpoint: str, visitors: int, seconds: float, rounds: int, options: tuple[str, ...] = ()
) -> Visitors:
    """Real clients of a real server. `options` are the server's. Raises AudioLMError where it does not start."""
    alone, at_once, slowest, same = [], [], [], 0
    with running_server(*options) as url, tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder) / "prompt.wav"
        files.write_wav(prompt, synthetic_prompt(3.0))
        with ThreadPoolExecutor(visitors) as pool:
            clients = list(pool.map(lambda _: _client(url), range(visitors)))

            def run(number: int) -> tuple[str, float]:
                return _run(clients[number], prompt, checkpoint, seconds, number)

            run(0)  # loads what is not loaded yet
            for _ in range(rounds):
                begun = time.monotonic()
                apart = [run(number) for number in range(visitors)]
                alone.append(time.monotonic() - begun)
                begun = time.monotonic()
                together = list(pool.map(run, range(visitors)))
                at_once.append(time.monotonic() - begun)
                slowest.append(max(took for _, took in together))
                same += sum(one[0] == other[0] for one, other in zip(apart, together, strict=True))
    return Visitors(
        checkpoint,
        processor_name(),
        visitors,
        seconds,
        rounds,
        statistics.median(alone),
        statistics.median(at_once),
        statistics.median(slowest),
        statistics.median(alone) / statistics.median(at_once),
        same,
        rounds * visitors,
    )


def _client(url: str) -> Any:
    from gradio_client import Client  # needed by nothing else

    return Client(url, verbose=False)


def _run(client: Any, prompt: Path, checkpoint: str, seconds: float, seed: int) -> tuple[str, float]:
    """-> (hash of the tokens, seconds it took)."""
    from gradio_client import handle_file

    begun = time.monotonic()
    summary, _ = client.predict(
        audio=handle_file(prompt),
        checkpoint=checkpoint,
        continuation_s=seconds,
        num_continuations=1,
        seed=seed,
        api_name="/continue",
    )
    return summary["continuations"][0]["receipt"]["tokens_sha256"], time.monotonic() - begun
