"""Logs of one line each, as text or as JSON, without addresses of visitors and without the names of their files."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from pathlib import Path

_UPLOAD = re.compile(r"/[0-9a-f]{64}/[^/\n\"']+")
_ADDRESS = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}"
)


def set_up(as_json: bool, cache_folder: Path) -> None:
    """All logging of this process goes to standard error; from this application also what is merely informative."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(as_json, cache_folder))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("app").setLevel(logging.INFO if as_json else logging.WARNING)


def without_visitors(text: str, cache_folder: Path | str) -> str:
    """`text` with neither addresses nor files of the cache."""
    text = _UPLOAD.sub("/[file]", text.replace(str(cache_folder), "[cache]"))
    return _ADDRESS.sub("[address]", text)


class Lines(logging.Formatter):
    """`LEVEL logger: message {fields}`, or an object with time, level, logger, message, fields and traceback.

    Fields are given as `logger.info("…", extra={"fields": {…}})`.
    """

    def __init__(self, as_json: bool, cache_folder: Path) -> None:
        super().__init__()
        self._as_json, self._cache_folder = as_json, cache_folder

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if not self._as_json:
            told = f"{record.levelname} {record.name}: {record.getMessage()}{f' {fields}' if fields else ''}"
            return without_visitors(f"{told}\n{trace}" if trace else told, self._cache_folder)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        texts = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if trace:
            texts["traceback"] = trace
        clean = {name: without_visitors(text, self._cache_folder) for name, text in texts.items()}
        return json.dumps({"time": when, **clean, **fields}, default=str)
