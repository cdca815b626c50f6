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
