import shutil
from pathlib import Path

import pytest

from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    make_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def checkpoint(tiny_source: Path, tmp_path: Path) -> Path:
    """A checkpoint of the test's own, to be damaged at will."""
    return Path(shutil.copytree(tiny_source, tmp_path / "checkpoint"))
