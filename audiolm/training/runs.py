"""Run folders: config.json, weights.safetensors (to ship), train.safetensors (weights, optimizers), state.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiolm.checkpoints.format import as_shipped, build_component, read_run
from audiolm.config import Config
from audiolm.errors import TrainingError

WEIGHTS, TRAINING, CONFIG, STATE = "weights.safetensors", "train.safetensors", "config.json", "state.json"


def write_run(folder: Path, component: str, module: nn.Module, config: Config, made_for: dict[str, str]) -> None:
    """Writes what a run ships: config.json and weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / WEIGHTS, module.state_dict())
    _write_json(folder / CONFIG, {"component": component, "config": config.to_dict(), "made_for": made_for})


def load_run(folder: Path, device: str | torch.device = "cpu") -> tuple[str, nn.Module, dict[str, str]]:
    """Returns (component, module in eval mode, made_for), with the values that ship: tokens must not change on export.

    Raises CheckpointError for a missing or foreign folder.
    """
    component, config, state, made_for = read_run(Path(folder))
    module = build_component(component, config)
    module.load_state_dict(as_shipped(state))
    return component, module.to(device).eval(), made_for


def load_weights(folder: Path, module: nn.Module) -> None:
    module.load_state_dict(load_file(folder / WEIGHTS))


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


def load_training(
    folder: Path, component: str, modules: nn.Module, optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Restores modules and optimizers in place; returns state.json. Raises TrainingError naming what is missing."""
    for name in (CONFIG, TRAINING, STATE):
        if not (folder / name).is_file():
            raise TrainingError(f"cannot resume: {folder / name} does not exist")
    found = json.loads((folder / CONFIG).read_text())["component"]
    if found != component:
        raise TrainingError(f"cannot resume: {folder} holds a run of {found!r}, not {component!r}")
    tensors = load_file(folder / TRAINING)
    modules.load_state_dict({k.removeprefix("modules/"): v for k, v in tensors.items() if k.startswith("modules/")})
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        state["state"] = _moments(tensors, f"optimizer/{name}/")
        optimizer.load_state_dict(state)
    return json.loads((folder / STATE).read_text())


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
