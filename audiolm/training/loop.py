"""The one training loop. A `Task` says what is trained on what; the loop knows only steps, time, devices and files.

bf16 autocast, gradient clipping, warm-up then cosine decay over the expected length of the run, optional weight
averaging, resume, a wall-clock budget, a progress bar and TensorBoard curves. Under `torchrun` every rank draws its own
batches and DistributedDataParallel averages the gradients.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from audiolm.config import Config
from audiolm.device import pick_device
from audiolm.errors import TrainingError
from audiolm.training import runs

LOG_INTERVAL_S = 10.0


class Task(ABC):
    """One component's training objective. `modules` holds everything trainable; `shipped` is what a run exports."""

    component: str
    config: Config
    modules: nn.ModuleDict
    shipped: nn.Module
    made_for: dict[str, str]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by optimizer group; groups are stepped in this order within a step."""
        return {"main": [p for p in self.modules.parameters() if p.requires_grad]}

    @abstractmethod
    def batch(self, generator: torch.Generator) -> Any:
        """A fresh training batch on the training device."""

    @abstractmethod
    def loss(self, group: str, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The scalar to minimise for one group, and figures to log.

        A figure `<group>_loss` is logged in place of the scalar, where that has no meaning as a number.
        """

    def after_step(self, step: int) -> None:
        """Called once a step, after all groups."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures on held-out data; `loss` (lower is better) must be among them."""

    def state(self) -> dict[str, Any]:
        """What `state.json` is to hold besides the loop's own step and time."""
        return {}

    def resumed(self, folder: Path, state: dict[str, Any]) -> None:
        """Called before the run in `folder` is gone on with, with its `state.json`.

        Raises TrainingError where that is another run than this task's.
        """

    def finish(self, folder: Path) -> dict[str, float]:
        """Called once after the run, on the first rank: what is left to do to the run folder, and its figures."""
        return {}


def require(valid: bool, option: str, limit: str, found: float) -> None:
    """Raises TrainingError for an option that cannot be."""
    if not valid:
        raise TrainingError(f"{option} must be {limit}, found {found:g}")


@dataclass(frozen=True)
class LoopOptions:
    """Budgets and schedules. `steps` and `max_minutes` both end a run, whichever comes first.

    Raises TrainingError for what cannot be.
    """

    steps: int = 1_000_000
    max_minutes: float = 30.0
    learning_rate: float = 5e-4
    final_learning_rate_ratio: float = 0.05
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    average_decay: float = 0.0  # exponential averaging of the shipped weights; 0 switches it off
    validate_minutes: float = 5.0
    keep_best: bool = False
    seed: int = 0
    precision: str = "bf16"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "--steps", "at least 1", self.steps)
        require(self.max_minutes > 0, "--max-minutes", "above 0", self.max_minutes)
        require(0 < self.learning_rate < math.inf, "--lr", "above 0 and finite", self.learning_rate)
        ratio = self.final_learning_rate_ratio
        require(0 <= ratio <= 1, "--final-lr-ratio", "0 to 1", ratio)
        require(self.warmup_steps >= 0, "--warmup-steps", "at least 0", self.warmup_steps)
        require(0 <= self.weight_decay < math.inf, "--weight-decay", "at least 0 and finite", self.weight_decay)
        require(0 <= self.average_decay < 1, "--average-decay", "at least 0 and under 1", self.average_decay)
        require(self.validate_minutes > 0, "--validate-minutes", "above 0", self.validate_minutes)


class _Objective(nn.Module):
    """Lets DistributedDataParallel see a task's loss as one forward pass."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.modules_of_task = task.modules
        self._task = [task]

    def forward(self, group: str, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        return self._task[0].loss(group, batch, step)


class Trainer:
    """Runs a task within its budgets and writes a run folder (see `audiolm.training.runs`)."""

    def __init__(self, task: Task, folder: Path, options: LoopOptions, device: torch.device) -> None:
        self.task, self.folder, self.options, self.device = task, folder, options, device
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.step, self.seconds = 0, 0.0
        self.kept: dict[str, float] = {}  # validation figures of the weights in the folder
        self.groups = task.groups()
        self.optimizers = {
            name: torch.optim.AdamW(
                _decay_groups(parameters, options.weight_decay), lr=options.learning_rate, betas=options.betas
            )
            for name, parameters in self.groups.items()
        }
        self.average = copy.deepcopy(task.shipped) if options.average_decay > 0 else None
        self.generator = torch.Generator().manual_seed(options.seed * 7919 + self.rank)
        self.writer = _summary_writer(folder) if self.rank == 0 else None

    def resume(self) -> None:
        """With `keep_best` the run's weights are validated first: what counts may have other weights than it had.

        Raises CheckpointError when the folder holds no run, TrainingError when it is one of something else.
        """
        task = self.task
        state = runs.require_resumable(self.folder, task.component, task.config, task.made_for)
        task.resumed(self.folder, state)
        runs.load_training(self.folder, task.modules, self.optimizers)
        self.step, self.seconds = state["step"], state["seconds"]
        self.generator.manual_seed(self.options.seed * 7919 + self.rank + self.step * 104_729)
        if self.average is not None:
            runs.load_weights(self.folder, task.component, self.average)
        if self.options.keep_best:
            self.kept = self._figures()

    def run(self) -> dict[str, float]:
        """Trains until a budget is spent; returns the validation figures of the weights that are in the folder."""
        objective = self._objective()
        start, last_log, last_validation = time.monotonic(), -LOG_INTERVAL_S, time.monotonic()
        start_step = self.step
        self.task.modules.train()
        bar = tqdm(
            total=100.0, disable=self.rank != 0, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        )
        while self.step < self.options.steps:
            elapsed = time.monotonic() - start
            progress = self._agreed(max(elapsed / (60 * self.options.max_minutes), self.step / self.options.steps))
            if progress >= 1.0:
                break
            figures = self._step(objective, progress, self.step - start_step)
            if elapsed - last_log >= LOG_INTERVAL_S:
                last_log = elapsed
                rate = (self.step - start_step) / max(time.monotonic() - start, 1e-9)
                self._log("train", figures | {"steps_per_s": rate}, elapsed)
                bar.n = min(100.0, round(100 * progress, 1))
                bar.set_postfix({k: f"{float(v):.4g}" for k, v in list(figures.items())[:5]} | {"step": self.step})
            if time.monotonic() - last_validation > 60 * self.options.validate_minutes:
                self._validate(elapsed)
                last_validation = time.monotonic()
        self.seconds += time.monotonic() - start
        self._validate(0.0)
        bar.close()
        return self.kept

    def _objective(self) -> nn.Module:
        objective = _Objective(self.task)
        if self.world == 1:
            return objective
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Tasks keep their buffers equal themselves: a broadcast would write into those of a graph still to be used.
        return DistributedDataParallel(objective, device_ids=ids, find_unused_parameters=True, broadcast_buffers=False)

    def _agreed(self, progress: float) -> float:
        """Clocks differ, but ranks need one learning rate, and to stop together: some would wait for gradients."""
        if self.world == 1:
            return progress
        furthest = torch.tensor(progress, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(furthest, torch.distributed.ReduceOp.MAX)
        return float(furthest)

    def _learning_rate(self, progress: float, steps_done: int) -> float:
        options = self.options
        warm = min(1.0, (steps_done + 1) / max(1, options.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        low = options.final_learning_rate_ratio
        return options.learning_rate * warm * (low + (1 - low) * cosine)

    def _step(self, objective: nn.Module, progress: float, steps_done: int) -> dict[str, float]:
        figures: dict[str, Any] = {}
        batch = self.task.batch(self.generator)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(progress, steps_done)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
                loss, values = objective(name, batch, self.step)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.groups[name], self.options.clip_norm)
            if torch.isfinite(norm):
                optimizer.step()
            for other in self.optimizers.values():
                other.zero_grad(set_to_none=True)
            figures |= {f"{name}_loss": loss.detach(), f"{name}_gradient_norm": norm, **values}
        self.task.after_step(self.step)
        self._update_average()
        self.step += 1
        return figures

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        decay = min(self.options.average_decay, (1 + self.step) / (10 + self.step))
        current = self.task.shipped.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name].to(value.dtype), 1 - decay)
            else:
                value.copy_(current[name])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within it `task.shipped` has the averaged weights, where there are any, and the average the raw ones."""
        self._swap_average()
        try:
            yield
        finally:
            self._swap_average()

    @torch.no_grad()
    def _swap_average(self) -> None:
        """In place and not by `load_state_dict`, which would restart the quantizer's statistics."""
        if self.average is None:
            return
        averages = self.average.state_dict()
        for name, value in self.task.shipped.state_dict().items():
            raw = value.clone()
            value.copy_(averages[name])
            averages[name].copy_(raw)

    def _validate(self, elapsed: float) -> None:
        figures = self._figures()
        self._log("valid", figures, elapsed)
        if not self.options.keep_best or figures["loss"] <= self.kept.get("loss", math.inf):
            self.kept = figures
            if self.rank == 0:
                self._save(elapsed)

    def _figures(self) -> dict[str, float]:
        self.task.modules.eval()
        with torch.no_grad(), self._averaged():
            figures = self.task.validate()
        self.task.modules.train()
        return figures

    def _save(self, elapsed: float) -> None:
        shipped = self.average if self.average is not None else self.task.shipped
        runs.write_run(self.folder, self.task.component, shipped, self.task.config, self.task.made_for)
        state = {"step": self.step, "seconds": self.seconds + elapsed, **self.task.state()}
        runs.write_training(self.folder, self.task.modules, self.optimizers, state)

    def _log(self, kind: str, figures: dict[str, Any], elapsed: float) -> None:
        if self.rank != 0:
            return
        row = {k: round(float(v), 6) for k, v in figures.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"kind": kind, "step": self.step, "seconds": round(self.seconds + elapsed, 1), **row}
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for key, value in row.items():
                self.writer.add_scalar(f"{kind}/{key}", value, self.step)


def _decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: gains, biases and other vectors are left alone."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _summary_writer(folder: Path) -> Any:
    """TensorBoard belongs to the extra `train`; without it the curves are in log.jsonl alone."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def setup_device(name: str, threads: int) -> torch.device:
    """Picks the device and joins the process group under `torchrun`.

    Each rank takes the GPU of its number. Raises RequestError for a device that this machine does not have.
    """
    torch.set_num_threads(threads)
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = pick_device(name)
    if several and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    return device
