from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from audiolm.audio import files
from audiolm.receipt import Receipt
from tests.app.conftest import write_tone
from tests.journeys.conftest import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    client = server.client()
    yield client
    client.close()


def run(client: Client, server: Server, prompt: Path, **fields):
    values = {"audio": handle_file(prompt), "checkpoint": server.tiny, "continuation_s": 1, "num_continuations": 1}
    return client.predict(**{**values, **fields}, api_name="/continue")


def test_a_client_gets_two_continuations_with_their_files(client, server, prompt):
    summary, paths = run(
        client, server, prompt, checkpoint=server.speech, continuation_s=2, num_continuations=2, seed=3
    )
    assert summary["status"] == "done"
    assert summary["checkpoint"]["name"] == server.speech
    assert len(summary["continuations"]) == 2
    assert len(paths) == 8
    for number, one in enumerate(summary["continuations"]):
        whole, alone, tokens, receipt = (Path(path) for path in paths[4 * number : 4 * number + 4])
        assert one["generated"] is True
        assert one["verdict"]["scope"]
        assert one["verdict"]["model_sha256"] == summary["checkpoint"]["components"]["detector"]
        assert (one["watermark"] or {"name": ""})["name"] == one["receipt"]["watermark"]
        assert one["receipt"]["verdict"]["label"] == one["verdict"]["label"]
        assert soundfile.info(whole).subtype == "PCM_16"
        assert soundfile.info(whole).duration == pytest.approx(5.0)
        assert soundfile.info(alone).duration == pytest.approx(2.04)  # the prompt's last 40 ms are made anew
        assert one["prompt_s"] == pytest.approx(2.96)
        assert tokens.stat().st_size > 0
        assert Receipt.from_json(receipt.read_text()) == Receipt.from_json(files.read_comment(whole))
        assert json.loads(receipt.read_text())["request"]["seed"] == 3


def test_the_same_seed_gives_the_same_tokens_twice(client, server, prompt):
    hashes = [
        run(client, server, prompt, seed=seed)[0]["continuations"][0]["receipt"]["tokens_sha256"] for seed in (8, 8, 9)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_progress_comes_while_it_runs_and_a_cancelled_job_makes_room(client, server, prompt):
    long = {"checkpoint": server.speech, "continuation_s": 30, "num_continuations": 4}
    job = client.submit(audio=handle_file(prompt), **long, api_name="/continue")
    for summary, _ in job:
        assert summary["status"] == "running"
        if summary["stage"] in ("semantic", "coarse"):
            break
    else:
        pytest.fail("the job ended without a running stage")
    assert job.cancel()
    assert run(client, server, prompt)[0]["status"] == "done"


def test_a_recording_goes_down_the_levels(client, server, prompt):
    summary, paths = client.predict(handle_file(prompt), server.tiny, [12, 1], api_name="/reconstruct")
    assert summary["levels"] == [4, 1]  # the tiny codec has four
    assert len(paths) == 3
    assert len({soundfile.info(path).frames for path in paths}) == 1


def test_a_recording_is_inspected(client, server, prompt):
    summary, paths = client.predict(handle_file(prompt), server.tiny, api_name="/inspect")
    assert summary["status"] == "done"
    assert summary["generated"] is False
    assert {lane["family"] for lane in summary["lanes"]} == {"semantic", "coarse", "fine"}
    assert all(lane["whole"]["mean_nats"] > 0 for lane in summary["lanes"])
    assert [Path(path).suffix for path in paths] == [".wav", ".png", ".svg", ".csv", ".safetensors", ".json"]


def test_a_recording_comes_back_in_versions(client, server, prompt):
    clip, short = handle_file(prompt), {"prompt_s": 1, "seed": 4}
    for endpoint, fields, count in (
        ("/ladder", {"seed": 4, "num_draws": 1}, 5),  # the tiny codec has four levels
        ("/voices", {"voice": handle_file(prompt), "num_voices": 2, **short}, 3),
        ("/ablate", {"continuation_s": 1, **short}, 4),
    ):
        summary, paths = client.predict(audio=clip, checkpoint=server.tiny, **fields, api_name=endpoint)
        assert summary["status"] == "done"
        assert len(summary["versions"]) == len(paths) == count
        assert len({soundfile.info(path).frames for path in paths}) == 1
        for version, path in zip(summary["versions"], paths, strict=True):
            if version["receipt"] is not None:
                assert version["generated"] is True
                assert Receipt.from_json(files.read_comment(path)).to_dict() == version["receipt"]


@pytest.mark.parametrize(
    ("endpoint", "fields", "words"),
    [
        ("/ladder", {"num_draws": 5}, "num_draws must be 1 to 4, found 5"),
        ("/voices", {"num_voices": 0}, "num_voices must be 1 to 4, found 0"),
        ("/ablate", {"continuation_s": 31}, "continuation_s must be 1 to 30 s, found 31"),
        ("/inspect", {"checkpoint": "no-such"}, "no embedded checkpoint"),
        ("/inspect", {"audio": None}, "there is no recording"),
    ],
)
def test_inspections_beyond_the_limits_are_refused_by_name(client, server, prompt, endpoint, fields, words):
    values = {"audio": handle_file(prompt), "checkpoint": server.tiny, **fields}
    with pytest.raises(AppError, match=words):
        client.predict(**values, api_name=endpoint)


def test_a_recording_gets_a_verdict_with_all_that_belongs_to_it(client, server, prompt):
    verdict = client.predict(handle_file(prompt), server.speech, api_name="/detect")
    assert verdict["label"] in ("generated", "original", "uncertain", "withheld")
    assert "only for audio of these checkpoints" in verdict["scope"]
    assert verdict["model_sha256"] == verdict["checkpoint"]["components"]["detector"]
    assert 0.0 < verdict["threshold"] < 1.0
    assert min(verdict["num_originals"], verdict["num_generated"]) > 0
    assert verdict["watermark"]["found"] is False
    assert verdict["receipt"] is None
    assert verdict["control"]["model_sha256"] == verdict["model_sha256"]


def test_a_continuation_is_found_to_be_one(client, server, prompt):
    _, paths = run(client, server, prompt, checkpoint=server.speech, continuation_s=5)
    alone = handle_file(paths[1])  # the prompt before it has no mark, and would be most of what is searched
    verdict = client.predict(alone, server.speech, api_name="/detect")
    assert verdict["watermark"]["found"] is True
    assert verdict["receipt"] == json.loads(Path(paths[3]).read_text())


def test_a_verdict_on_too_short_a_recording_is_withheld_in_words(client, server, tmp_path):
    short = write_tone(tmp_path / "short.wav", 0.7)
    verdict = client.predict(handle_file(short), server.speech, api_name="/detect")
    assert verdict["label"] == verdict["control"]["label"] == "withheld"
    assert verdict["probability"] is None
    assert verdict["headline"].startswith("Withheld: too short: 0.70 s")


def test_the_checkpoints_are_listed(client, server):
    names = [row["name"] for row in client.predict(api_name="/checkpoints")]
    assert {server.speech, server.tiny} <= set(names)


def hostile(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file, and what its refusal must say."""
    (folder / "text.wav").write_text("this is no sound")
    (folder / "empty.wav").write_bytes(b"")
    write_tone(folder / "short.wav", 0.2)
    write_tone(folder / "long.wav", 1200.0, 4_000)
    nan = np.zeros(16_000, dtype=np.float32)
    nan[100] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16_000, subtype="FLOAT")
    soundfile.write(folder / "wide.wav", np.zeros((16_000, 32), dtype=np.int16), 16_000)
    soundfile.write(folder / "silent.wav", np.zeros(16_000, dtype=np.int16), 16_000)
    whole = write_tone(folder / "whole.flac", 3.0).read_bytes()
    (folder / "truncated.flac").write_bytes(whole[: len(whole) // 3])
    said = {
        "text.wav": "not an audio file",
        "empty.wav": "empty (0 bytes)",
        "short.wav": "0.2 s of sound; at least 0.5 s",
        "long.wav": "1200.0 s long; at most 600 s",
        "nan.wav": "NaN",
        "wide.wav": "32 channels; 1 to 8",
        "silent.wav": "silence",
        "truncated.flac": "damaged or truncated",
    }
    return {name: (folder / name, words) for name, words in said.items()}


def test_bad_recordings_are_refused_in_plain_words_and_the_server_lives(client, server, prompt, tmp_path):
    for name, (path, words) in hostile(tmp_path).items():
        with pytest.raises(AppError) as refused:
            run(client, server, path)
        assert words in str(refused.value), f"{name}: {refused.value}"
        assert str(server.folder) not in str(refused.value)
    assert server.alive()
    assert run(client, server, prompt)[0]["status"] == "done"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"continuation_s": 31}, "continuation_s must be 1 to 30 s, found 31"),
        ({"num_continuations": 5}, "num_continuations must be 1 to 4, found 5"),
        ({"coarse_temperature": -1}, "coarse_temperature must be 0 to 2, found -1"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"prompt_part": "both"}, "prompt_part must be one of codec, original"),
        ({"checkpoint": "no-such"}, "no embedded checkpoint"),
        ({"checkpoint": ""}, "checkpoint must be a name"),
        ({"audio": None}, "there is no recording"),
    ],
)
def test_requests_beyond_the_limits_are_refused_by_name(client, server, prompt, fields, words):
    with pytest.raises(AppError, match=words):
        run(client, server, prompt, **fields)


def test_a_truncated_checkpoint_is_refused_and_the_server_lives(client, server, prompt):
    from tests.tiny import make_tiny_checkpoint

    folder = server.folder / "truncated"
    make_tiny_checkpoint(folder)
    weights = folder / "stage_coarse.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(AppError, match=r"stage_coarse\.safetensors"):
        run(client, server, prompt, checkpoint=str(folder))
    assert server.alive()


def post(server: Server, route: str, body: dict) -> tuple[int, str]:
    request = urllib.request.Request(
        f"{server.url}{route}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("place", ["/etc/passwd", "http://127.0.0.1:9/a.wav", "https://example.org/a.wav", "../app.py"])
@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}])
def test_files_of_the_server_and_addresses_are_no_uploads(server, place, meta):
    status, answer = post(server, "/gradio_api/call/detect", {"data": [{"path": place, **meta}, server.tiny]})
    assert status == 403
    assert "must be uploaded here first" in answer
    assert server.alive()


@pytest.mark.parametrize(
    "route",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=app.py",
        "/gradio_api/file=requirements.txt",
        "/monitoring",
        "/gradio_api/monitoring",
    ],
)
def test_routes_give_away_no_files_and_no_monitoring(server, route):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}{route}", timeout=30)
    assert refused.value.code in (403, 404)
