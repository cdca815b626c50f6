"""What a second of sound costs in each stage, against how many seconds are made: flat, where nothing is read twice."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm.benchmark.timing import interleaved
from audiolm.checkpoints import registry
from audiolm.config import FRAME_RATE_HZ, SEMANTIC_RATE_HZ, STAGES, SamplingConfig
from audiolm.lm import StageModel
from audiolm.stages import StageRun, finished, run_coarse, run_fine, run_semantic

SECONDS = (2, 4, 8, 16, 30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--seconds", type=int, nargs="+", default=list(SECONDS), help="of sound")
    parser.add_argument("--plot", type=Path, help="picture to write (.png)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    models = registry.load(args.checkpoint, None, torch.device("cpu")).stages
    rows = []
    for stage in STAGES:
        works: dict[str, Callable[[], object]] = {
            str(seconds): partial(make, models[stage], seconds) for seconds in args.seconds
        }
        times = interleaved(works, args.runs)
        rows += [{"stage": stage, "seconds": s, "ms_per_s": times[str(s)].median_s / s * 1e3} for s in args.seconds]
    if args.plot is not None:
        plot(rows, args.plot)
    return {"costs": rows}


def make(model: StageModel, seconds: int) -> Tensor:
    """One stage's tokens of so many seconds, from nothing, given random tokens of the stage before it."""
    run, stage = StageRun(model, SamplingConfig(), [0]), model.config.stage
    if stage == "semantic":
        return finished(run_semantic(run, torch.zeros(0, dtype=torch.long), seconds * SEMANTIC_RATE_HZ, [0]))
    none = torch.zeros(0, len(model.config.levels), dtype=torch.long)
    known = torch.randint(
        model.config.condition_levels[0], (1, seconds * FRAME_RATE_HZ, len(model.config.condition_levels))
    )
    if stage == "coarse":
        return finished(run_coarse(run, known[:, :: model.config.condition_stride, 0], none, seconds * FRAME_RATE_HZ))
    return finished(run_fine(run, known, none))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for stage in STAGES:
        own = [row for row in rows if row["stage"] == stage]
        axes.plot([row["seconds"] for row in own], [row["ms_per_s"] for row in own], marker="o", label=stage)
    axes.set_xlabel("length (s)")
    axes.set_ylabel("ms for a second of sound")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def table(result: dict[str, Any]) -> str:
    lengths = sorted({row["seconds"] for row in result["costs"]})
    lines = ["ms for a second of sound, by length"]
    lines.append(f"{'stage':10}" + "".join(f"{seconds:>8d} s" for seconds in lengths))
    for stage in STAGES:
        own = {row["seconds"]: row["ms_per_s"] for row in result["costs"] if row["stage"] == stage}
        lines.append(f"{stage:10}" + "".join(f"{own[seconds]:10.1f}" for seconds in lengths))
    return "\n".join(lines)
