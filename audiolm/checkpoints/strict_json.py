"""JSON that comes from elsewhere: bounded, without duplicate keys, with exactly the fields and types expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audiolm.checkpoints.tensors import read_bytes
from audiolm.errors import CheckpointError

MAX_JSON_BYTES = 2**20


def read_object(path: Path) -> dict[str, Any]:
    """The object a JSON file holds.

    Raises CheckpointError: missing, too large, not JSON, a key twice, not an object.
    """
    content = read_bytes(path, MAX_JSON_BYTES)
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def require_fields(where: str, value: Any, types: dict[str, type]) -> dict[str, Any]:
    """`value` itself, when it is an object with exactly the named fields of the named types, else CheckpointError."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected an object, found {type(value).__name__}")
    if missing := sorted(set(types) - set(value)):
        raise CheckpointError(f"{where}: missing field(s) {', '.join(missing)}")
    if unknown := sorted(set(value) - set(types)):
        raise CheckpointError(f"{where}: unknown field(s) {', '.join(unknown)}")
    for name, expected in types.items():
        if type(value[name]) is not expected:
            found = type(value[name]).__name__
            raise CheckpointError(f"{where}: field {name} must be {expected.__name__}, found {found}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
