"""Many visitors at once against one after the other: total throughput, and whether each gets the same tokens."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from audiolm.audio import files
from audiolm.benchmark.server import running_server
from audiolm.benchmark.stages import synthetic_prompt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=7.0, help="length of each one's continuation")
    parser.add_argument("--device", default="auto")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds, in each of which the same runs are made alone, one after the other, and all at once.

    `speed_up` is the throughput at once over that alone; `identical` counts the runs whose tokens were the same. Raises
    AudioLMError where the server does not start.
    """
    checkpoint, visitors, seconds = options.checkpoint, options.visitors, options.seconds
    server = ("--device", options.device, "--runs-at-once", str(visitors), "--threads", str(options.threads))
    alone, at_once, slowest, same = [], [], [], 0
    with running_server(*server) as url, tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder) / "prompt.wav"
        files.write_wav(prompt, synthetic_prompt(3.0))
        with ThreadPoolExecutor(visitors) as pool:
            clients = list(pool.map(lambda _: _client(url), range(visitors)))

            def visit(number: int) -> tuple[str, float]:
                return _run(clients[number], prompt, checkpoint, seconds, number)

            visit(0)  # loads what is not loaded yet
            for _ in range(options.runs):
                begun = time.monotonic()
                apart = [visit(number) for number in range(visitors)]
                alone.append(time.monotonic() - begun)
                begun = time.monotonic()
                together = list(pool.map(visit, range(visitors)))
                at_once.append(time.monotonic() - begun)
                slowest.append(max(took for _, took in together))
                same += sum(one[0] == other[0] for one, other in zip(apart, together, strict=True))
    alone_s, at_once_s = statistics.median(alone), statistics.median(at_once)
    return {
        "checkpoint": checkpoint,
        "device": options.device,
        "visitors": visitors,
        "seconds": seconds,
        "alone_s": alone_s,
        "at_once_s": at_once_s,
        "slowest_at_once_s": statistics.median(slowest),
        "speed_up": alone_s / at_once_s,
        "audio_s_per_s": visitors * seconds / at_once_s,
        "identical": same,
        "visits": options.runs * visitors,
    }


def table(result: dict[str, Any]) -> str:
    return (
        "{visitors} visitors of {checkpoint} ({device}), {seconds:g} s each: one after the other {alone_s:.1f} s, "
        "at once {at_once_s:.1f} s (the slowest {slowest_at_once_s:.1f} s), {speed_up:.2f} times the throughput; "
        "{identical} of {visits} with the tokens of the run alone"
    ).format(**result)


def _client(url: str) -> Any:
    from gradio_client import Client  # needed by nothing else

    return Client(url, verbose=False, download_files=False)


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
