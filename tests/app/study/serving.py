"""A store behind a pipe, to be killed: one JSON request a line in, one JSON answer a line out.

`python -m tests.app.study.serving DATABASE` says "ready", then answers. An answer is written after
the store's call has returned, and never else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app.study.errors import StudyError
from app.study.store import Store

METHODS = ("consent", "next_trial", "answer", "finish", "session")


def main() -> None:
    store = Store(Path(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(_answer(store, method, arguments)), flush=True)


def _answer(store: Store, method: str, arguments: list[Any]) -> dict[str, Any]:
    assert method in METHODS
    try:
        found = getattr(store, method)(*arguments)
    except StudyError as error:
        return {"error": type(error).__name__}
    return {"found": None if found is None else found.to_dict()}


if __name__ == "__main__":
    main()
