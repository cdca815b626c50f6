"""Sequence layouts: how target steps [B, N, L] and the condition [B, C, Lc] become one sequence of positions.

Pure and reversible: `restore(arrange(...))` gives back what went in. They know ids only; embeddings and heads are the
model's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.config import StageConfig
from audiolm.errors import ConfigError
from audiolm.lm.sequences import flatten, unflatten

START = -1
UNKNOWN = -1  # in a condition: nothing is known there


@dataclass(frozen=True)
class DepthLayout:
    """One position a step: the model reads step n - 1 (START at first) and condition n, and predicts step n."""

    def num_positions(self, num_steps: int, num_condition: int) -> int:
        """Positions read to predict `num_steps` steps; the condition is added to them and takes none."""
        return num_steps

    def arrange(self, targets: Tensor) -> Tensor:
        """-> ids [B, N + 1, L]: a START step, then the targets."""
        return F.pad(targets, (0, 0, 1, 0), value=START)

    def restore(self, ids: Tensor) -> Tensor:
        """Undoes `arrange`."""
        return ids[:, 1:]


@dataclass(frozen=True)
class FlattenedLayout:
    """The paper's: [condition, row-major][separator][targets, row-major], each level with its own offset.

    Ids: condition levels first, then the separator, then the target levels.
    """

    levels: tuple[int, ...]
    condition_levels: tuple[int, ...]

    @property
    def separator(self) -> int:
        return sum(self.condition_levels)

    @property
    def vocabulary_size(self) -> int:
        return self.separator + 1 + sum(self.levels)

    def num_positions(self, num_steps: int, num_condition: int) -> int:
        """Positions read to predict `num_steps` steps: the last target is predicted, never read."""
        return num_condition * len(self.condition_levels) + num_steps * len(self.levels)

    def arrange(self, targets: Tensor, condition: Tensor | None) -> Tensor:
        """-> ids [B, C * Lc + 1 + N * L]."""
        parts = [targets.new_full((targets.shape[0], 1), self.separator)]
        if condition is not None:
            parts.insert(0, flatten(condition, self.condition_levels))
        parts.append(flatten(targets, self.levels) + self.separator + 1)
        return torch.cat(parts, dim=1)

    def restore(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Undoes `arrange`; the condition is None where it had no levels."""
        at = int((ids[0] == self.separator).nonzero()[0])
        targets = unflatten(ids[:, at + 1 :] - self.separator - 1, self.levels)
        return targets, unflatten(ids[:, :at], self.condition_levels) if self.condition_levels else None


Layout = DepthLayout | FlattenedLayout


def layout_of(config: StageConfig) -> Layout:
    """Raises ConfigError for an unknown layout."""
    if config.layout == "depth":
        return DepthLayout()
    if config.layout == "flattened":
        return FlattenedLayout(config.levels, config.condition_levels)
    raise ConfigError(f"layout must be depth or flattened, found {config.layout!r}")
