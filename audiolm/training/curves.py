"""`python -m audiolm.training curves RUN… --out PNG`: the losses of runs as a picture, from their log.jsonl."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiolm.checkpoints.info import CONFIG_FILE
from audiolm.checkpoints.strict_json import read_object
from audiolm.errors import TrainingError
from audiolm.training.runs import STATE, read_state

LOG_FILE = "log.jsonl"
SMOOTHED = 40  # points that a training curve keeps, each the mean of its share
SUFFIXES = (".png", ".svg", ".pdf")
AXES = {"hours": ("hours of training", 3600.0), "steps": ("steps", 1.0)}


@dataclass(frozen=True)
class Curves:
    """A run's losses: `train` [N, 3] and `valid` [M, 3] hold steps, seconds and loss."""

    name: str
    component: str
    train: np.ndarray
    valid: np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; those of one component share a row")
    parser.add_argument("--out", type=Path, required=True, help="picture to write: .png, .svg or .pdf")
    parser.add_argument("--over", choices=AXES, default="hours")


def run(args: argparse.Namespace) -> None:
    """Raises TrainingError for a folder without a log, or a picture of another kind."""
    if args.out.suffix not in SUFFIXES:
        raise TrainingError(f"--out: a picture ends in {', '.join(SUFFIXES)}, found {args.out.name!r}")
    draw([read_log(folder) for folder in args.runs], args.out, args.over)
    print(args.out)


def read_log(folder: Path) -> Curves:
    """What a resumed run did again replaces what it had done after its last save; a half-written line is left out.

    Raises TrainingError where there is no log, nothing in it, or a row whose figures are no numbers.
    """
    try:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{folder}: no readable {LOG_FILE}; not a training run ({error})") from error
    points: dict[str, list[tuple[float, float, float]]] = {"train": [], "valid": []}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            kind, step, seconds, loss = str(row["kind"]), row["step"], row["seconds"], _loss(row)
        except (ValueError, KeyError, TypeError):
            continue
        if not all(isinstance(value, int | float) for value in (step, seconds, 0 if loss is None else loss)):
            found = ", ".join(map(repr, (step, seconds, loss)))
            raise TrainingError(f"{folder / LOG_FILE}:{number}: step, seconds and loss must be numbers, found {found}")
        for kept in points.values():
            while kept and kept[-1][0] > step:
                kept.pop()
        if kind in points and loss is not None:
            points[kind].append((step, seconds, loss))
    if not points["train"] and not points["valid"]:
        raise TrainingError(f"{folder / LOG_FILE}: no losses in it")
    train, valid = (np.array(kept, dtype=float).reshape(-1, 3) for kept in points.values())
    return Curves(folder.name, _component(folder), train, valid)


def _loss(row: dict[str, float]) -> float | None:
    """The validation's "loss"; in training that of the first optimizer group."""
    return next((value for name, value in row.items() if name == "loss" or name.endswith("_loss")), None)


def _component(folder: Path) -> str:
    """As config.json says; before the first save, the folder's name. A guided stage's loss is another one."""
    if not (folder / CONFIG_FILE).is_file():
        return folder.name
    name = str(read_object(folder / CONFIG_FILE).get("component", folder.name))
    is_guided = (folder / STATE).is_file() and "guidance" in read_state(folder)
    return f"{name}, guided" if is_guided else name


def draw(curves: Sequence[Curves], path: Path, over: str = "hours") -> None:
    """A row of two panels for every component: validation loss, training loss."""
    from matplotlib.figure import Figure  # training itself needs no pictures

    components = list(dict.fromkeys(one.component for one in curves))
    figure = Figure(figsize=(9.0, 0.6 + 2.2 * len(components)), dpi=100, layout="constrained")
    panels = figure.subplots(len(components), 2, squeeze=False, sharex="row")
    for row, component in zip(panels, components, strict=True):
        for panel, kind in zip(row, ("valid", "train"), strict=True):
            for one in (one for one in curves if one.component == component):
                points = one.valid if kind == "valid" else _smoothed(one.train)
                column = points[:, 1] if over == "hours" else points[:, 0]
                marker = "o" if kind == "valid" else ""
                panel.plot(column / AXES[over][1], points[:, 2], marker=marker, markersize=3, label=one.name)
            panel.set_title(f"{component}: {'validation' if kind == 'valid' else 'training'} loss", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.grid(alpha=0.3)
        row[0].legend(fontsize=7)
    for panel in panels[-1]:
        panel.set_xlabel(AXES[over][0], fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _smoothed(points: np.ndarray) -> np.ndarray:
    """[N, 3] -> at most 40 points, each the mean of its neighbours, without the very first, which dwarfs the others."""
    points = points[1:] if len(points) > 2 else points
    if len(points) <= SMOOTHED:
        return points
    return np.stack([part.mean(axis=0) for part in np.array_split(points, SMOOTHED)])
