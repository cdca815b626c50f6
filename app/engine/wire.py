"""Values of this project as bytes and back, for the connection to the engine process. Nothing is pickled.

JSON for the structure, then the bytes of tensors, arrays and byte strings as they are. Dataclasses and named tuples
come back as the same class of this project, made by its own constructor; nothing else of the other side is run.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import EngineError

PACKAGES = ("app.", "audiolm.")
_LENGTH = struct.Struct("<Q")


def pack(value: Any) -> bytes:
    """Raises TypeError for what is neither plain data nor a dataclass, named tuple or error of this project."""
    blobs: list[bytes] = []
    head = json.dumps(_plain(value, blobs)).encode()
    return b"".join(_LENGTH.pack(len(part)) + part for part in (head, *blobs))


def unpack(data: bytes) -> Any:
    """What `pack` was given. Tensors are on the CPU. Raises ValueError or TypeError for what it did not write."""
    parts, place = [], 0
    while place < len(data):
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        parts.append(data[place : place + length])
        place += length
    return _value(json.loads(parts[0]), parts[1:])


def _plain(value: Any, blobs: list[bytes]) -> Any:
    """As JSON knows it: an object is always {kind: content}."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_plain(one, blobs) for one in value]
    if isinstance(value, bytes):
        return {"bytes": _put(value, blobs)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Tensor):
        array = value.detach().cpu().numpy()
        return {"tensor": [array.dtype.str, list(array.shape), _put(array.tobytes(), blobs)]}
    if isinstance(value, np.ndarray):
        return {"array": [value.dtype.str, list(value.shape), _put(value.tobytes(), blobs)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {"map": [[_plain(key, blobs), _plain(one, blobs)] for key, one in value.items()]}
    if isinstance(value, BaseException):
        return {"error": [*_name(type(value)), str(value)]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name), blobs) for field in dataclasses.fields(value)}
        return {"value": [*_name(type(value)), fields]}
    if isinstance(value, tuple):
        items = [_plain(one, blobs) for one in value]
        return {"tuple": items} if type(value) is tuple else {"named": [*_name(type(value)), items]}
    raise TypeError(f"a {type(value).__name__} cannot be sent to or from the engine")


def _put(data: bytes, blobs: list[bytes]) -> int:
    blobs.append(data)
    return len(blobs) - 1


def _name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _value(plain: Any, blobs: list[bytes]) -> Any:
    if isinstance(plain, list):
        return [_value(one, blobs) for one in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    return _READERS[kind](content, blobs)


def _read_array(content: list[Any], blobs: list[bytes]) -> np.ndarray:
    dtype, shape, place = content
    return np.frombuffer(blobs[place], np.dtype(dtype)).reshape(shape).copy()


def _read_dataclass(content: list[Any], blobs: list[bytes]) -> Any:
    module, name, fields = content
    kind = _own(module, name)
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{module}.{name} is no dataclass")
    return kind(**{field: _value(one, blobs) for field, one in fields.items()})


def _read_named_tuple(content: list[Any], blobs: list[bytes]) -> Any:
    module, name, items = content
    kind = _own(module, name)
    if not issubclass(kind, tuple):
        raise TypeError(f"{module}.{name} is no tuple")
    return kind(*(_value(one, blobs) for one in items))


def _read_error(content: list[str], blobs: list[bytes]) -> Exception:
    """An error of this project as itself; every other one, which nobody foresaw, as an EngineError that names it."""
    module, name, message = content
    if module.startswith(PACKAGES):
        kind = _own(module, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            with suppress(TypeError):  # one that takes more than a message
                return kind(message)
    return EngineError(f"the engine met an error that nobody foresaw ({name}); the server's log says more")


def _own(module: str, name: str) -> Any:
    if not module.startswith(PACKAGES):
        raise TypeError(f"{module}.{name} is none of this project's")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


_READERS = {
    "bytes": lambda content, blobs: blobs[content],
    "path": lambda content, blobs: Path(content),
    "tensor": lambda content, blobs: torch.from_numpy(_read_array(content, blobs)),
    "array": _read_array,
    "tuple": lambda content, blobs: tuple(_value(one, blobs) for one in content),
    "map": lambda content, blobs: {_value(key, blobs): _value(one, blobs) for key, one in content},
    "error": _read_error,
    "value": _read_dataclass,
    "named": _read_named_tuple,
}
