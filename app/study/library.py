"""A folder of studies: `ID/study.json`, `ID/clips/*.wav`, `ID/owner-token`, and the database beside them.

The folder lies outside everything that is served: clips reach a browser through `Library.clip_file` alone.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from app.study.definition import Study
from app.study.errors import ConflictError, NoSessionError, StudyError, UnknownStudyError
from app.study.preflight import require_fit
from app.study.store import Store

DATABASE, DEFINITION, CLIPS, OWNER_TOKEN = "studies.sqlite3", "study.json", "clips", "owner-token"
_FILE_TIME_S = 1_577_836_800  # 2020-01-01: no file's date says when, and so in which order, it was made

logger = logging.getLogger(__name__)


class Library:
    """The folder with its store (`store`), in which every study found in the folder is registered."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises StoreError."""
        self.folder = folder
        self.store = Store(folder / DATABASE, clock)
        self.register()

    def register(self) -> None:
        """Takes in studies that another process has put into the folder; one that cannot be is logged and left out."""
        for path in sorted(self.folder.glob(f"[!.]*/{DEFINITION}")):
            try:
                self.store.create_study(Study.from_json(path.read_bytes()))
            except StudyError as error:
                logger.warning("%s is left out: %s", path, error)

    def add(self, study: Study, clips: Mapping[str, bytes], owner_token: str) -> Path:
        """Keeps a study that passes the pre-flight: all of it, or nothing. Returns its folder.

        `clips` maps clip ids to WAV files. Raises PreflightError, ConflictError.
        """
        require_fit(study, clips)
        folder = self.folder / study.id
        if folder.exists():
            raise ConflictError(f"study {study.id} exists already")
        staging = self.folder / f".{study.id}-{secrets.token_hex(4)}"
        kept = {f"{CLIPS}/{clip_id}.wav": content for clip_id, content in clips.items()}
        kept |= {DEFINITION: study.to_json().encode(), OWNER_TOKEN: owner_token.encode()}
        try:
            for name, content in kept.items():
                keep_file(staging, name, content)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.store.create_study(study)
        return folder

    def clip_file(self, study_id: str, clip_id: str) -> Path:
        """Raises UnknownStudyError; NoSessionError for a clip that is not the study's."""
        if clip_id not in {clip.id for clip in self.store.study(study_id).clips}:
            raise NoSessionError("there is no such sound")
        return self.folder / study_id / CLIPS / f"{clip_id}.wav"

    def clip_files(self, study_id: str) -> dict[str, bytes]:
        """Clip id -> WAV file, of those that are there. Raises UnknownStudyError."""
        paths = {clip.id: self.clip_file(study_id, clip.id) for clip in self.store.study(study_id).clips}
        return {clip_id: path.read_bytes() for clip_id, path in paths.items() if path.is_file()}

    def owner_token(self, study_id: str) -> str:
        """The secret of the results page. Raises UnknownStudyError."""
        self.store.study(study_id)
        try:
            return (self.folder / study_id / OWNER_TOKEN).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UnknownStudyError(f"study {study_id} has no owner's secret in {self.folder}") from error


def keep_file(folder: Path, name: str, content: bytes) -> None:
    """Writes a new file, `name` being its path in the folder: it and the folders on the way are their owner's alone."""
    path = folder / name
    for made in (folder, *(folder / one for one in reversed(Path(name).parents[:-1]))):
        made.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    os.utime(path, (_FILE_TIME_S, _FILE_TIME_S))
