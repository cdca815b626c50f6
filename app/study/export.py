"""Results as files: CSV that no spreadsheet takes for formulas, JSON, a data dictionary, and a paragraph of methods."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.study.analysis import analyse, exclusions
from app.study.dictionary import COLUMNS
from app.study.methods import methods
from app.study.records import AnswerRecord, SessionRecord, StudyRecords

__all__ = ["export_files", "export_zip", "methods", "safe_cell"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a cell must not begin with, full-width signs included: spreadsheets compute such cells."""


def export_files(records: StudyRecords, with_ids: bool = False) -> dict[str, bytes]:
    """Name -> content: study.json, sessions.csv, answers.csv, clips.csv, results.json, dictionary.csv, methods.txt.

    `with_ids` adds the recruiting platform's ids to sessions (for paying people, not for publishing).
    """
    excluded = exclusions(records)
    sessions = [_session(session, excluded[session.id], with_ids) for session in records.sessions]
    answers = [_answer(records, answer) for answer in records.answers]
    results = analyse(records)
    everything = {
        "study": records.study.to_dict(),
        "results": results.to_dict(),
        "sessions": sessions,
        "answers": answers,
        "declined": records.num_declined,
        "withdrawn": records.num_withdrawn,
    }
    return {
        "study.json": records.study.to_json().encode(),
        "sessions.csv": _csv("sessions", sessions),
        "answers.csv": _csv("answers", answers),
        "clips.csv": _csv("clips", [_clip(records, clip.id) for clip in records.study.clips]),
        "results.json": (json.dumps(everything, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "dictionary.csv": _dictionary(),
        "methods.txt": (methods(records, results) + "\n").encode(),
    }


def export_zip(records: StudyRecords, with_ids: bool = False) -> bytes:
    """`export_files` as one archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in export_files(records, with_ids).items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def safe_cell(value: Any) -> Any:
    """Numbers as they are; a text that a spreadsheet would compute gets an apostrophe in front, as it is told to do."""
    if not isinstance(value, str):
        return value
    risky = value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA)
    return f"'{value}" if risky else value


def _session(session: SessionRecord, excluded: str, with_ids: bool) -> dict[str, Any]:
    row = {name: value for name, value in dataclasses.asdict(session).items() if name != "external_ids"}
    row["excluded"] = excluded
    return row | ({"external_ids": dict(session.external_ids)} if with_ids else {})


def _answer(records: StudyRecords, answer: AnswerRecord) -> dict[str, Any]:
    clips = [records.study.clip(clip) for clip in answer.clips]
    facts = {"items": [clip.item for clip in clips], "conditions": [clip.condition for clip in clips]}
    return dataclasses.asdict(answer) | facts


def _clip(records: StudyRecords, clip_id: str) -> dict[str, Any]:
    clip = records.study.clip(clip_id)
    row = {name: value for name, value in dataclasses.asdict(clip).items() if name not in ("detector", "origin")}
    score = clip.detector
    row |= {
        "detector_label": score.label if score else "",
        "detector_probability": score.probability if score else None,
        "detector_threshold": score.threshold if score else None,
        "detector_sha256": score.model_sha256 if score else "",
        "origin": dict(clip.origin),
    }
    return row


def _csv(table: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Every text quoted, lists and objects as JSON, nothing for None; the columns of the data dictionary."""
    return _written([name for name, _ in COLUMNS[table]], rows)


def _dictionary() -> bytes:
    rows = [
        {"table": table, "column": column, "meaning": meaning}
        for table, columns in COLUMNS.items()
        for column, meaning in columns
    ]
    return _written(["table", "column", "meaning"], rows)


def _written(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([safe_cell(_flat(row.get(column))) for column in columns])
    return text.getvalue().encode("utf-8-sig")  # without the mark, spreadsheets take it for another encoding


def _flat(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value
