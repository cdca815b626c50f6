from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app import service as real
from app.engine.launching import in_a_thread
from app.results import Finished
from app.schemas import CheckpointChoice, ContinueRequest
from app.settings import Settings
from tests.tiny import make_tiny_checkpoint

Service = partial(real.Service, launch=in_a_thread)
"""The service with its engine on a thread: what a test patches is patched in the engine too."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tiny checkpoints, speech and piano."""
    folder = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(folder / "tiny-speech")
    make_tiny_checkpoint(folder / "tiny-piano", "piano", seed=1)
    return folder


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of example prompts, and of files that are none."""
    folder = tmp_path_factory.mktemp("prompts")
    for name in ("speech_two words.wav", "piano_scale.flac", "other.wav"):
        write_tone(folder / name)
    (folder / "README.md").write_text("not a prompt")
    return folder


@pytest.fixture(scope="session")
def settings(checkpoints: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    studies = tmp_path_factory.mktemp("studies")
    return Settings(device="cpu", checkpoints=(str(checkpoints),), prompts_folder=prompts, studies_folder=studies)


@pytest.fixture
def service(settings: Settings) -> real.Service:
    return Service(settings)


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tone(tmp_path_factory.mktemp("recordings") / "tone.wav")


@pytest.fixture(scope="session")
def finished(settings: Settings, recording: Path) -> Finished:
    """A finished run of two continuations, seed 11; its files are gone."""
    fields = {"prompt_s": 1.0, "continuation_s": 1.0, "seed": 11}
    request = ContinueRequest.from_fields(recording, CheckpointChoice("tiny-speech"), fields)
    return next(event for event in Service(settings).continue_prompt(request) if isinstance(event, Finished))


def write_tone(path: Path, seconds: float = 2.0, rate_hz: int = 16_000) -> Path:
    """A gliding tone with a little noise."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).normal(size=t.shape)
    samples = 0.3 * np.sin(2 * np.pi * (220 + 40 * t) * t) + 0.01 * noise
    soundfile.write(path, samples.astype(np.float32), rate_hz)
    return path
