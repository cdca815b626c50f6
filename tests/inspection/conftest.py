from __future__ import annotations

import pytest

from audiolm.checkpoints.format import load_checkpoint
from audiolm.pipeline import Pipeline
from tests.pipeline.material import finish, recording, request
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_tiny_checkpoint(folder)
    return Pipeline(load_checkpoint(folder))


@pytest.fixture(scope="session")
def flattened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "flattened"
    make_tiny_checkpoint(folder, layout="flattened", with_detector=False)
    return Pipeline(load_checkpoint(folder))


@pytest.fixture(scope="session")
def continuation(pipeline):
    """The first of two rows: 1 s of prompt, whose last 40 ms are made anew, and 0.6 s."""
    return finish(pipeline.continue_prompt(recording(1.5), request())).continuations[0]
