"""Which device a name means: the one place that decides."""

from __future__ import annotations

import torch

from audiolm.errors import RequestError


def pick_device(name: str) -> torch.device:
    """ "auto" is cuda where there is one, else cpu; "cuda" is the current one, with its index.

    Raises RequestError for a device torch does not know or this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise RequestError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def require_device(name: str) -> None:
    """As `pick_device`, but leaves an accelerator untouched, for a process that does not compute on it.

    Raises RequestError.
    """
    if name != "auto" and not name.startswith("cuda"):
        pick_device(name)
        return
    try:
        index = 0 if name == "auto" else torch.device(name).index or 0
    except RuntimeError as error:
        raise RequestError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    if name != "auto" and index >= torch.cuda.device_count():
        raise RequestError(f"device {name!r} cannot be used: this machine has {torch.cuda.device_count()} of its kind")


def is_out_of_memory(error: BaseException) -> bool:
    """Also on the CPU, where torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
