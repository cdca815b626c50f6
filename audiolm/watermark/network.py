"""Perth's network (Resemble AI, MIT licence), out of the installed package resemble-perth, loaded once a process.

The package's own entry is passed by: it needs pkg_resources, which setuptools has dropped, and librosa, and prints.
Only the modules of the network are imported, under a name of their own. Its weights are a pickle: they are read when
their SHA-256 is the known one, and then as tensors alone (`weights_only`), so that nothing in the file is ever run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import sys
import threading
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audiolm.errors import WatermarkError

VERSION = "1.0.1"
WEIGHTS = "pretrained/implicit/perth_net_250000.pth.tar"
WEIGHTS_SHA256 = "a15bce457ebc53ce5e6c9c3f11df78cf7ee2bf9cdab0a798902135b4c4027670"

_MODULES = "perth_net_implicit"
_INSTALL = f"pip install resemble-perth=={VERSION}, or switch the watermark off"
_lock = threading.Lock()


def require() -> Path:
    """The folder of the network and its weights; finds them, and loads nothing.

    Raises WatermarkError, saying what to install, where the package is missing.
    """
    found = importlib.util.find_spec("perth")
    for place in (found and found.submodule_search_locations) or ():
        folder = Path(place) / "perth_net"
        if (folder / WEIGHTS).is_file():
            return folder
    raise WatermarkError(f"the watermark needs the package resemble-perth: {_INSTALL}")


def network() -> nn.Module:
    """The network, on the CPU. It keeps no state of a run, so threads may share it.

    Raises WatermarkError where the package is missing, or is not the version whose weights are known.
    """
    with _lock:
        return _load()


@cache
def _load() -> nn.Module:
    folder = require()
    state = _weights(folder / WEIGHTS)
    try:
        spec = PathFinder.find_spec(_MODULES, [str(folder)])
        package = importlib.util.module_from_spec(spec)
        sys.modules[_MODULES] = package
        spec.loader.exec_module(package)
        config = importlib.import_module(f"{_MODULES}.config").default_hp
        model = importlib.import_module(f"{_MODULES}.model.perth_net").PerthNet(config)
    except (ImportError, AttributeError) as error:
        raise WatermarkError(f"resemble-perth cannot be used ({error}): {_INSTALL}") from error
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _weights(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise WatermarkError(
            f"the weights of resemble-perth have SHA-256 {found[:12]}…, known are {WEIGHTS_SHA256[:12]}…: {_INSTALL}"
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["model"]
