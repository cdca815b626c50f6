"""One step of decoding as arithmetic on tensors: what is known, inputs, body, heads, for rows that stand anywhere.

`StepModel` holds a stage's weights as decoding reads them; what rows remember is in `audiolm.lm.slots`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.lm.heads import DepthHead, DepthLevel
from audiolm.lm.layouts import UNKNOWN
from audiolm.lm.stage import CONDITION_KERNEL, ConditionMixer, StageModel
from audiolm.lm.tables import embed
from audiolm.nn.packing import EXACT_ROWS, Matrix, in_blocks, matrix, on_grid
from audiolm.nn.steps import BodySteps

Pick = Callable[[int, Tensor], Tensor]
"""(level, logits [B, V]) -> ids [B]."""
REACH = CONDITION_KERNEL // 2
"""Condition steps to either side that the mixer sees: what is known of a step is final once so many follow it."""


@dataclass(frozen=True)
class MixerSteps:
    """`ConditionMixer` for a piece of a condition at a time, each step with the same bits in whatever piece."""

    spread: Tensor  # [kernel, D]
    spread_bias: Tensor
    norm: Tensor
    expand: Matrix
    expand_bias: Tensor
    contract: Matrix
    contract_bias: Tensor

    @classmethod
    def of(cls, mixer: ConditionMixer, packed: bool, dtype: torch.dtype) -> MixerSteps:
        return cls(
            mixer.spread.weight[:, 0].T.to(dtype).contiguous(),
            mixer.spread.bias.to(dtype),
            mixer.norm.weight.to(dtype),
            matrix(mixer.expand.weight.to(dtype), packed),
            mixer.expand.bias.to(dtype),
            matrix(mixer.contract.weight.to(dtype), packed),
            mixer.contract.bias.to(dtype),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """x [REACH + C + REACH, D], neighbours included -> [C, D]."""
        missing = max(0, EXACT_ROWS - (x.shape[0] - 2 * REACH))
        x = F.pad(x, (0, 0, 0, missing))
        count = x.shape[0] - 2 * REACH
        spread = self.spread_bias.expand(count, -1)
        for offset, weight in enumerate(self.spread):
            spread = torch.addcmul(spread, x[offset : offset + count], weight)
        hidden = F.gelu(self.expand.plus(self.expand_bias, F.layer_norm(spread, x.shape[1:], self.norm)))
        mixed = self.contract.plus(x[REACH : REACH + count] + self.contract_bias, hidden)
        return mixed[: count - missing]


@dataclass(frozen=True)
class LevelSteps:
    """One `DepthLevel`'s weights."""

    norm: Tensor
    expand: Matrix
    expand_bias: Tensor
    contract: Matrix
    contract_bias: Tensor
    out_norm: Tensor

    @classmethod
    def of(cls, level: DepthLevel, packed: bool, dtype: torch.dtype) -> LevelSteps:
        return cls(
            level.norm.weight.to(dtype),
            matrix(level.expand.weight.to(dtype), packed),
            level.expand.bias.to(dtype),
            matrix(level.contract.weight.to(dtype), packed),
            level.contract.bias.to(dtype),
            level.out_norm.weight.to(dtype),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """[B, D_depth] -> [B, D_depth]."""
        size = x.shape[-1:]
        hidden = F.gelu(self.expand.plus(self.expand_bias, F.layer_norm(x, size, self.norm)))
        x = self.contract.plus(x + self.contract_bias, hidden)
        return F.layer_norm(x, size, self.out_norm)


class StepModel:
    """A stage as decoding reads it.

    On a CPU, where all its linear maps are what a checkpoint file stores, they are int8 here too
    (`audiolm.nn.packing`), and the output tables, which mix learnt rows with codebook vectors, are rounded to int8 as
    well; else all is float32. On other devices all is bfloat16 (`dtype`: something else).

    `inputs` [sum of V + 2, D]: the input tables of all levels, the start, and a row of zeros.
    """

    def __init__(self, model: StageModel, dtype: torch.dtype | None = None) -> None:
        self.layout, self.stride = model.layout, model.config.condition_stride
        on_cpu = model.start.device.type == "cpu"
        self.dtype = dtype = dtype or (torch.float32 if on_cpu else torch.bfloat16)
        self.tables = tables = model.tables()
        linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
        packable = dtype == torch.float32 and all(in_blocks(table) for table in tables.outputs)
        self.packed = packable and all(on_grid(weight) for weight in linear)
        self.body = BodySteps(model.body, self.packed, dtype)
        mixer = getattr(model, "mixer", None)
        self.mixer = None if mixer is None else MixerSteps.of(mixer, self.packed, dtype)
        self.inputs = torch.cat([*tables.inputs, model.start[None], torch.zeros_like(model.start[None])]).to(dtype)
        sizes = torch.tensor([0, *(len(table) for table in tables.inputs)], device=self.inputs.device)
        self.offsets = sizes.cumsum(0)[:-1]
        self.start = self._start_ids(len(tables.inputs))
        self.outputs = [matrix(table.to(dtype), self.packed) for table in tables.outputs]
        self.lower = [table.to(dtype) for table in tables.lower]
        self.state = matrix(model.head.state.weight.to(dtype), self.packed)
        levels = model.head.levels if isinstance(model.head, DepthHead) else ()
        self.levels = [LevelSteps.of(level, self.packed, dtype) for level in levels]

    @property
    def num_bytes(self) -> int:
        """Weights that a step reads: all matrices, once. Of the input tables it looks up a row a level."""
        levels = [each for level in self.levels for each in (level.expand, level.contract)]
        return sum(each.num_bytes for each in (*self.body.matrices, *levels, *self.outputs, self.state))

    def _start_ids(self, num_levels: int) -> Tensor:
        """[L] ids of `inputs` whose sum, and the last of which alone where there is one level, is the start."""
        total = self.inputs.shape[0]
        return torch.tensor([total - 1] * (num_levels - 1) + [total - 2], device=self.inputs.device)

    # ---- what is known (depth layout)

    def embed_condition(self, condition: Tensor) -> Tensor:
        """ids [C, Lc] -> [C, D], zero where unknown."""
        embedded = embed(self.tables.condition, condition.clamp_min(0)).to(self.dtype)
        return embedded.masked_fill(condition[:, :1] == UNKNOWN, 0.0)

    def mix(self, embedded: Tensor, unknown: Tensor, start: int, end: int) -> Tensor:
        """embedded [C, D], unknown [C, 1] -> [(end - start) * stride, D], what is added to the steps of that piece."""
        before, after = max(0, REACH - start), max(0, end + REACH - embedded.shape[0])
        x = F.pad(embedded[max(0, start - REACH) : end + REACH], (0, 0, before, after))
        mixed = self.mixer(x).masked_fill(unknown[start:end], 0.0)
        return mixed.repeat_interleave(self.stride, dim=0)

    # ---- steps

    def embed(self, ids: Tensor) -> Tensor:
        """A step's ids of `inputs` [B, L] -> [B, D]."""
        return F.embedding(ids, self.inputs).sum(1)

    def choose_depth(self, states: Tensor, pick: Pick) -> Tensor:
        """States [B, D] -> a step's levels in turn, [B, L]; pick(level, logits [B, V]) -> ids [B]."""
        x = self.state(states)
        chosen: list[Tensor] = []
        for level, module in enumerate(self.levels):
            chosen.append(pick(level, self.outputs[level](module(x))))
            if level < len(self.lower):
                x = x + F.embedding(chosen[-1], self.lower[level])
        return torch.stack(chosen, dim=1)

    def flat_logits(self, states: Tensor, level: int) -> Tensor:
        """The flattened layout's: states [B, D] -> [B, V]."""
        return self.outputs[level](self.state(states))


_PREPARED: WeakKeyDictionary[StageModel, tuple[list[object], StepModel]] = WeakKeyDictionary()


def prepared(model: StageModel, dtype: torch.dtype | None = None) -> StepModel:
    """The model's StepModel, made once for the weights and codebooks that it has now and the `dtype` last asked for."""
    with torch.inference_mode():
        features = [value for value in (model.target_features, model.condition_features) if value is not None]
        version = [dtype, *((value.data_ptr(), value._version) for value in (*model.parameters(), *features))]
        known = _PREPARED.get(model)
        if known is None or known[0] != version:
            known = _PREPARED[model] = (version, StepModel(model, dtype))
        return known[1]
