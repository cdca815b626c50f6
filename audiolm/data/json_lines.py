"""Files of one JSON object a line, each written after the packed audio or frames that it speaks of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Raises OSError, ValueError for a missing or damaged file."""
    with open(path, encoding="utf-8") as lines:  # not splitlines(), which ends a line at more than its end
        return [json.loads(line) for line in lines]


def mended_lines(path: Path) -> list[dict[str, Any]]:
    """What was written so far: none in a missing file, and not the line that a run was killed in, which is cut off."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def add_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
