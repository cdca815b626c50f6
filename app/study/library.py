"""A folder of studies: `ID/study.json`, `ID/clips/*.wav`, `ID/owner-token`, and the database beside them.

The folder lies outside everything that is served: clips reach a browser through `Library.clip_file` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.study.definition import Study
from app.study.store import Store


class Library:
    """Opens the folder's store (`studies.sqlite3`), registering every study found beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store

    def add(self, study: Study, clips: Mapping[str, bytes], owner_token: str) -> Path:
        """Writes a study that passes the pre-flight: files first, then its folder gets its name. Returns the folder.

        `clips` maps clip ids to WAV files. Raises PreflightError, ConflictError.
        """

    def clip_file(self, study_id: str, clip_id: str) -> Path:
        """Raises UnknownStudyError, NoSessionError."""

    def owner_token(self, study_id: str) -> str:
        """The secret of the results page. Raises UnknownStudyError."""
