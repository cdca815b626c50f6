"""Run folders: config.json, weights.safetensors (to ship), train.safetensors (weights, optimizers), state.json."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiolm.checkpoints.format import RUN_WEIGHTS_FILE, load_run, read_run
from audiolm.checkpoints.info import CONFIG_FILE
from audiolm.checkpoints.strict_json import read_object
from audiolm.checkpoints.tensors import read_tensors
from audiolm.config import Config
from audiolm.errors import CheckpointError, TrainingError

__all__ = [
    "Tensors", "load_fitting", "load_run", "load_training", "load_weights", "read_state", "require_resumable",
    "write_run", "write_training",
]  # fmt: skip

Tensors = dict[str, Tensor]
TRAINING, STATE = "train.safetensors", "state.json"
MAY_DIFFER = ("dropout", "calibration", "scope_limit", "withheld")  # the last three are measured once a run is done


def write_run(folder: Path, component: str, module: nn.Module, config: Config, made_for: dict[str, str]) -> None:
    """Writes what a run ships: config.json and weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / RUN_WEIGHTS_FILE, module.state_dict())
    _write_json(folder / CONFIG_FILE, {"component": component, "config": config.to_dict(), "made_for": made_for})


def load_weights(
    folder: Path, component: str, module: nn.Module, convert: Callable[[Tensors], Tensors] | None = None
) -> None:
    """Loads a run's weights, as trained or as `convert` makes them, into a module.

    Raises CheckpointError for an unreadable folder, TrainingError for a run of another component or of other sizes.
    """
    found, _, tensors, _ = read_run(folder)
    if found != component:
        raise TrainingError(f"{folder} holds a run of {found!r}, not of {component!r}")
    _load(folder, module, tensors if convert is None else convert(tensors))


def load_fitting(module: nn.Module, tensors: Tensors) -> None:
    """Loads what the module has under the same name and in the same size; all else of it stays as it is."""
    own = module.state_dict()
    fitting = {name: value for name, value in tensors.items() if name in own and value.shape == own[name].shape}
    module.load_state_dict(fitting, strict=False)


def write_training(
    folder: Path, modules: nn.Module, optimizers: dict[str, torch.optim.Optimizer], state: dict[str, Any]
) -> None:
    """Writes everything a resumed run needs. Optimizer moments are stored as plain tensors: no pickle."""
    tensors = {f"modules/{name}": value for name, value in modules.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    _save(folder / TRAINING, tensors)
    _write_json(folder / STATE, state)


def require_resumable(folder: Path, component: str, config: Config, made_for: dict[str, str]) -> dict[str, Any]:
    """state.json of a run of this component and config, made for these other components (hashes by name).

    Of the config, dropout and what is measured once a run is done may differ; what an older run does not say is the
    default. Raises TrainingError for another run, CheckpointError for an unreadable folder, ConfigError for a config
    that cannot be.
    """
    state = read_state(folder)
    found, values, _, others = read_run(folder)
    if found != component:
        raise TrainingError(f"cannot resume: {folder} holds a run of {found!r}, not of {component!r}")
    for name in sorted({*others, *made_for}):
        own, wanted = (hashes.get(name, "none")[:12] for hashes in (others, made_for))
        if own != wanted:
            raise TrainingError(f"cannot resume: {folder} was made for {name} {own}, not {wanted}")
    own, wanted = (_fields(one.to_dict()) for one in (type(config).from_dict(values), config))
    if unlike := [f"{name} {own[name]}, not {wanted[name]}" for name in own if own[name] != wanted[name]]:
        raise TrainingError(f"cannot resume: {folder} has {'; '.join(unlike)}")
    return state


def load_training(folder: Path, modules: nn.Module, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    """Restores modules and optimizers in place.

    Raises TrainingError for a run of other sizes, CheckpointError for an unreadable one.
    """
    tensors = read_tensors([folder / TRAINING])
    prefix = "modules/"
    _load(folder, modules, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, optimizer in optimizers.items():
        moments = _moments(tensors, f"optimizer/{name}/")
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def read_state(folder: Path) -> dict[str, Any]:
    """state.json: `step`, `seconds` and what the task adds. Raises CheckpointError where it is none."""
    state = read_object(folder / STATE)
    if not isinstance(state.get("step"), int):
        raise CheckpointError(f"{folder / STATE}: no step; not the state of a training run")
    return state


def _fields(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a config that a resumed run must share, nested ones as `transformer.width`."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in MAY_DIFFER:
            fields |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return fields


def _load(folder: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(f"{folder} does not fit this model: {textwrap.shorten(str(error), 300)}") from error


def _moments(tensors: dict[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split("/")
            moments.setdefault(int(index), {})[name] = value
    return moments


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Atomic: a run that is stopped while it writes keeps its previous file."""
    temporary = path.with_suffix(".tmp")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary)
    os.replace(temporary, path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
