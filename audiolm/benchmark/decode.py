"""A step of each stage against what reading its weights takes, against slower twins, and against other software."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch

from audiolm.benchmark.peers import coarse_peers
from audiolm.benchmark.timing import interleaved, reading
from audiolm.checkpoints import registry
from audiolm.config import STAGES, SamplingConfig, StageConfig, TransformerConfig
from audiolm.lm import SlotBatch, StageModel
from audiolm.nn.packing import unpack_rows

LARGE = {"coarse, 0.1 B": 8, "coarse, 0.3 B": 24}
"""Layers."""
LARGE_STEP = -47  # 2 ** (-47 / 4) times uniform integers: a deviation of 0.02
TWINS = ("float32", "compiled", "uncached")
OFF_THE_GRID = 1.0001  # times this, weights are no longer what int8 holds: the float32 twin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16], help="decoded side by side")
    parser.add_argument("--length", type=int, default=250, help="steps before those that are timed")
    parser.add_argument("--peers", action="store_true", help="other software too, at 400 frames (8 s)")
    parser.add_argument("--compiled", action="store_true", help="also the float32 twin compiled by torch (inductor)")
    parser.add_argument("--large", action="store_true", help="also coarse stages of 0.1 B and 0.3 B random weights")


def run(args: argparse.Namespace) -> dict[str, Any]:
    twins = tuple(twin for twin in TWINS if args.compiled or twin != "compiled")
    models = dict(registry.load(args.checkpoint, None, torch.device("cpu")).stages)
    rows = [
        _figures(stage, model, num_rows, min(args.length, model.config.max_steps // 2), args.runs, twins)
        for stage, model in ((stage, models[stage]) for stage in STAGES)
        for num_rows in args.rows
    ]
    if args.large:
        for name, num_layers in LARGE.items():
            model = large_model(num_layers)
            rows += [_figures(name, model, num_rows, args.length, args.runs, ()) for num_rows in (1, 4)]
    peers = _against_peers(models["coarse"], args.runs) if args.peers else []
    return {"steps": rows, "peers": peers}


def _figures(
    name: str, model: StageModel, num_rows: int, length: int, runs: int, twins: tuple[str, ...]
) -> dict[str, Any]:
    """Milliseconds of a step of `num_rows` rows after `length` steps, and the same of the floor and of the twins."""
    batch, step = stepping(model, num_rows, length)
    works: dict[str, Callable[[], object]] = {
        "step": step,
        "floor": reading(batch.bytes_read(length), torch.device("cpu")),
    }
    make = {
        "float32": lambda: stepping(_off_the_grid(model), num_rows, length)[1],
        "compiled": lambda: _compiled(model, num_rows, length),
        "uncached": lambda: _uncached(model, num_rows, length),
    }
    works |= {twin: make[twin]() for twin in twins}
    times = {name: each.median_s * 1e3 for name, each in interleaved(works, runs).items()}
    return {
        "stage": name,
        "rows": num_rows,
        "megabytes_read": batch.bytes_read(length) / 1e6,
        **{f"{name}_ms": value for name, value in times.items()},
        "share_of_floor": times["floor"] / times["step"],
        **{f"times_{twin}": times[twin] / times["step"] for twin in TWINS if twin in times},
        "tokens_per_s": num_rows * len(model.config.levels) / times["step"] * 1e3,
    }


def _off_the_grid(model: StageModel) -> StageModel:
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(OFF_THE_GRID)
    return twin


def stepping(
    model: StageModel, num_rows: int, length: int, compiled: bool = False
) -> tuple[SlotBatch, Callable[[], object]]:
    """A batch whose rows are `length` steps long, and the work of a step there, over and over."""
    config = model.config
    batch = SlotBatch(model, num_rows, config.max_steps, compiled=compiled)
    prompt = torch.stack([torch.randint(size, (length,)) for size in config.levels], dim=1)
    num_condition = -(-config.max_steps // config.condition_stride)
    known = [torch.randint(size, (num_condition,)) for size in config.condition_levels]
    condition = torch.stack(known, dim=1) if known else None
    options = {"sampling": SamplingConfig(), "num_steps": config.max_steps - length}
    first = batch.join(prompt, condition, generator=torch.Generator().manual_seed(0), **options)
    for row in range(1, num_rows):
        batch.fork(first, generator=torch.Generator().manual_seed(row), sampling=SamplingConfig())

    def work() -> None:
        batch.step()
        batch.rewind(length)

    return batch, work


def _compiled(model: StageModel, num_rows: int, length: int) -> Callable[[], object]:
    torch._dynamo.reset()  # it gives up after a few sizes of one function
    return stepping(_off_the_grid(model), num_rows, length, compiled=True)[1]


def _uncached(model: StageModel, num_rows: int, length: int) -> Callable[[], object]:
    """What one step costs where nothing is kept: the whole sequence again."""
    config = model.config
    targets = torch.stack([torch.randint(size, (num_rows, length)) for size in config.levels], dim=2)
    known = [torch.randint(size, (num_rows, length)) for size in config.condition_levels]
    condition = torch.stack(known, dim=2) if known else None

    def work() -> None:
        with torch.inference_mode():
            model.logits(targets, condition)

    return work


def large_model(num_layers: int) -> StageModel:
    """A coarse stage of the paper's width with random weights: where reading them is nearly all that a step does."""
    body = TransformerConfig(width=1024, num_layers=num_layers, num_heads=16, feed_forward=4096)
    with torch.device("meta"):  # whose weights cost nothing
        model = StageModel(
            StageConfig("coarse", "depth", (1024,) * 4, (512,), 2, 500, depth_width=512, transformer=body)
        )
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            integers = torch.empty(module.weight.shape, dtype=torch.int8).random_(-127, 128)
            module.weight.copy_(unpack_rows(integers, torch.full(integers.shape[:1], LARGE_STEP)))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name else 0.0)
        elif "rows" in name or "spread" in name:
            parameter.normal_(std=0.02)
    return model


def _against_peers(model: StageModel, runs: int) -> list[dict[str, Any]]:
    """Coarse tokens a second at 8 s, one row, of this and of what else is installed."""
    num_frames, levels = 400, len(model.config.levels)
    peers = coarse_peers(model.config, num_frames, 1)
    works: dict[str, Callable[[], object]] = {"this": stepping(model, 1, num_frames)[1]}
    for peer in peers:
        works[peer.name] = peer.work
        if peer.base is not None:
            works[f"{peer.name}, base"] = peer.base
    times = interleaved(works, runs)
    own = times["this"].median_s
    found = [{"name": "this", "ms_per_frame": own * 1e3, "tokens_per_s": levels / own, "times": 1.0}]
    for peer in peers:
        base = 0.0 if peer.base is None else times[f"{peer.name}, base"].median_s
        seconds = (times[peer.name].median_s - base) / peer.frames
        found.append(
            {
                "name": peer.name,
                "ms_per_frame": seconds * 1e3,
                "tokens_per_s": levels / seconds,
                "times": seconds / own,
            }
        )
    return found


def _times(row: dict[str, Any], twin: str) -> str:
    return f"{row[f'times_{twin}']:.1f}x" if f"times_{twin}" in row else ""


def table(result: dict[str, Any]) -> str:
    head = f"{'stage':14} rows  MB read  step ms  floor ms  of floor  float32  compiled  uncached  tokens/s"
    lines = [head]
    for row in result["steps"]:
        lines.append(
            f"{row['stage']:14} {row['rows']:4d} {row['megabytes_read']:8.1f} {row['step_ms']:8.2f} "
            f"{row['floor_ms']:9.2f} {row['share_of_floor']:9.0%} "
            f"{_times(row, 'float32'):>8} {_times(row, 'compiled'):>9} {_times(row, 'uncached'):>9} "
            f"{row['tokens_per_s']:9.0f}"
        )
    for row in result["peers"]:
        lines.append(
            f"{row['name']}: {row['ms_per_frame']:.2f} ms a coarse frame at 8 s, {row['tokens_per_s']:.0f} tokens/s; "
            f"{row['times']:.1f} times this"
        )
    return "\n".join(lines)
