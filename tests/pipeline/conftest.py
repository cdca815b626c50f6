from __future__ import annotations

import pytest

from audiolm.checkpoints.format import load_checkpoint
from audiolm.pipeline import Pipeline
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline(tiny_folder):
    return Pipeline(load_checkpoint(tiny_folder))


@pytest.fixture(scope="session")
def flattened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "flattened"
    make_tiny_checkpoint(folder, layout="flattened", with_detector=False)
    return Pipeline(load_checkpoint(folder))
