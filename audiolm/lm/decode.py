"""Autoregressive decoding of rows of equal length: prefill once, then one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from audiolm.config import SamplingConfig
from audiolm.errors import RequestError
from audiolm.lm.masked import MaskedModel, fill_windows
from audiolm.lm.slots import SlotBatch
from audiolm.lm.stage import StageModel


def generate_steps(
    model: StageModel | MaskedModel,
    *,
    prompt: Tensor | None,
    condition: Tensor | None,
    num_steps: int,
    sampling: SamplingConfig,
    generators: list[torch.Generator],
    stop: Callable[[Tensor], bool] | None = None,
) -> Iterator[Tensor]:
    """Yields `num_steps` new steps [B, L] one by one, B = the number of generators, one a row.

    prompt [B or 1, N0, L] or None; condition [B or 1, C, Lc] of prompt and continuation, or None where the stage has
    none. Where both are shared by all rows they are read once. `stop` sees the new steps so far [B, n, L] after each,
    and ends the decoding by returning True; so may the caller, by iterating no further. Nothing is kept in the model.
    A masked model fills all the window that the condition spans before its first step is there.

    Raises RequestError for rows that do not fit together, ConfigError for a condition shorter than the steps.
    """
    levels = len(model.config.levels)
    device = next(model.parameters()).device
    prompt = torch.zeros(1, 0, levels, dtype=torch.long) if prompt is None else prompt
    prompt = prompt.to(device)
    condition = None if condition is None else condition.to(device)
    _require_rows(model, prompt, condition, generators, num_steps)
    if isinstance(model, MaskedModel):
        steps = _fill(model, prompt, condition, num_steps, sampling, generators)
    else:
        steps = _generate(model, prompt, condition, num_steps, sampling, generators)
    return steps if stop is None else _until(stop, steps)


def _until(stop: Callable[[Tensor], bool], steps: Iterator[Tensor]) -> Iterator[Tensor]:
    history: list[Tensor] = []
    for step in steps:
        history.append(step)
        yield step
        if stop(torch.stack(history, dim=1)):
            return


def _fill(
    model: MaskedModel,
    prompt: Tensor,
    condition: Tensor,
    num_steps: int,
    sampling: SamplingConfig,
    generators: list[torch.Generator],
) -> Iterator[Tensor]:
    rows, known = len(generators), prompt.shape[1]
    if num_steps:
        windows = {"prompt": prompt.expand(rows, -1, -1), "condition": condition.expand(rows, -1, -1)}
        *_, frames = fill_windows(model, **windows, sampling=sampling, generators=generators)
        yield from frames[:, known : known + num_steps].unbind(1)


def _require_rows(
    model: StageModel | MaskedModel,
    prompt: Tensor,
    condition: Tensor | None,
    generators: list[torch.Generator],
    num_steps: int,
) -> None:
    rows, levels = len(generators), len(model.config.levels)
    if rows < 1 or num_steps < 0:
        raise RequestError(f"decoding needs at least one generator and no negative length, found {rows}, {num_steps}")
    if prompt.ndim != 3 or prompt.shape[0] not in (1, rows) or prompt.shape[2] != levels:
        raise RequestError(f"prompt must be [1 or {rows}, steps, {levels}], found {tuple(prompt.shape)}")
    known = len(model.config.condition_levels)
    if (condition is None) != (known == 0):
        raise RequestError(
            f"the {model.config.stage} stage has {known} condition levels, condition given: {condition is not None}"
        )
    if condition is not None and (condition.shape[0] not in (1, rows) or condition.shape[-1] != known):
        raise RequestError(f"condition must be [1 or {rows}, steps, {known}], found {tuple(condition.shape)}")


def _generate(
    model: StageModel,
    prompt: Tensor,
    condition: Tensor | None,
    num_steps: int,
    sampling: SamplingConfig,
    generators: list[torch.Generator],
) -> Iterator[Tensor]:
    if num_steps == 0:
        return
    num_condition = 0 if condition is None else condition.shape[1]
    batch = SlotBatch(model, len(generators), prompt.shape[1] + num_steps, num_condition)
    shared = prompt.shape[0] == 1 and (condition is None or condition.shape[0] == 1)
    for row, generator in enumerate(generators):
        if shared and row:
            batch.fork(0, generator=generator, sampling=sampling)
            continue
        known = None if condition is None else condition[row % condition.shape[0]]
        own = prompt[row % prompt.shape[0]]
        batch.join(own, known, generator=generator, sampling=sampling, num_steps=num_steps)
    for _ in range(num_steps):
        yield torch.stack(list(batch.step().values()))
