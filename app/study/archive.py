"""Backup and restore: the database and every study's files as one ZIP archive. It holds personal data and secrets."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
import zipfile
from pathlib import Path

from app.study.definition import Study
from app.study.errors import ConflictError, StoreError
from app.study.library import CLIPS, DATABASE, DEFINITION, OWNER_TOKEN, Library, keep_file

_NAME = re.compile(rf"(?P<study>[0-9a-z-]{{1,64}})/(?P<file>{DEFINITION}|{OWNER_TOKEN}|{CLIPS}/[0-9a-z-]{{1,64}}\.wav)")


def backup(library: Library, target: Path) -> int:
    """Writes the archive while studies run; readable by its owner alone. Returns the number of files.

    Raises StoreError where the target exists.
    """
    if target.exists():
        raise StoreError(f"{target} exists already")
    with tempfile.TemporaryDirectory(dir=library.folder) as folder:
        copy, archive = Path(folder) / DATABASE, Path(folder) / "archive.zip"
        library.store.backup(copy)
        files = [path for study_id in library.store.studies() for path in _files(library.folder / study_id)]
        archive.touch(mode=0o600)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as kept:
            kept.write(copy, DATABASE)
            for path in files:
                kept.write(path, path.relative_to(library.folder).as_posix())
        with archive.open("rb") as written:
            os.fsync(written.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(archive, target)
    return len(files) + 1


def restore(library: Library, source: Path) -> int:
    """Takes over an archive: sessions and answers are then the archive's, less those withdrawn since.

    Studies of the folder that the archive does not know stay, without sessions. Do not serve meanwhile. Returns the
    number of studies.

    Raises StoreError: not an archive of ours, or damaged; ConflictError where a study of the same id is another one.
    Nothing is changed then.
    """
    staging = library.folder / f".restore-{secrets.token_hex(4)}"
    try:
        studies = _unpacked(source, staging)
        for study in studies:
            path = library.folder / study.id / DEFINITION
            if path.exists() and Study.from_json(path.read_bytes()) != study:
                raise ConflictError(f"study {study.id} is here already, with another definition")
        library.store.restore(staging / DATABASE)
        for study in studies:
            if not (library.folder / study.id).exists():
                (staging / study.id).rename(library.folder / study.id)
        library.register()
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(studies)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unpacked(source: Path, folder: Path) -> list[Study]:
    """The archive's files in `folder`, checked against their definitions, and the studies."""
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
            strange = [name for name in names if name != DATABASE and not _NAME.fullmatch(name)]
            if strange or DATABASE not in names:
                raise StoreError(f"{source}: not a backup of studies ({', '.join(strange[:3]) or 'no database'})")
            for name in names:
                keep_file(folder, name, archive.read(name))
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"{source}: {error}") from error
    studies = [Study.from_json(path.read_bytes()) for path in sorted(folder.glob(f"*/{DEFINITION}"))]
    for study in studies:
        for clip in study.clips:
            path = folder / study.id / CLIPS / f"{clip.id}.wav"
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != clip.sha256:
                raise StoreError(f"{source}: clip {clip.id} of study {study.id} is missing or damaged")
    return studies
