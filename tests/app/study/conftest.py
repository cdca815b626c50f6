from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.study.store import Store
from tests.app.study.studies import Clock

MEMORY = Path("/dev/shm")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(quick_folder: Path, clock: Clock) -> Iterator[Store]:
    store = Store(quick_folder / "studies.sqlite3", clock)
    yield store
    store.close()


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of commits to a disk take a while."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)
