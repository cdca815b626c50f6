"""Results as files: CSV that no spreadsheet takes for formulas, JSON, a data dictionary, and a paragraph of methods."""

from __future__ import annotations

from app.study.records import StudyRecords


def export_files(records: StudyRecords, with_ids: bool = False) -> dict[str, bytes]:
    """Name -> content: study.json, sessions.csv, answers.csv, clips.csv, results.json, dictionary.csv, methods.txt.

    `with_ids` adds the recruiting platform's ids to sessions.csv (for paying people, not for publishing).
    """
    raise NotImplementedError


def export_zip(records: StudyRecords, with_ids: bool = False) -> bytes:
    """`export_files` as one archive."""
    raise NotImplementedError


def methods(records: StudyRecords) -> str:
    """A paragraph for a paper, every number of it from the data."""
    raise NotImplementedError
