"""The one model of all three stages: a decoder-only Transformer over a sequence layout.

Two layouts (`audiolm.lm.layouts`): "flattened" is the paper's (AudioLM, arXiv 2209.03143): every level of every step a
position of its own. "depth" reads one position a step and predicts its levels in turn with small MLPs; it needs a
quarter of the positions for four levels and learns much faster on small compute. The semantic stage in the depth layout
predicts (token, run length - 1) where the paper drops the durations of merged repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import StageConfig
from audiolm.errors import ConfigError
from audiolm.lm.heads import DepthHead, FlatHead, logits
from audiolm.lm.layouts import START, UNKNOWN, DepthLayout, layout_of
from audiolm.lm.tables import INITIAL_STD, LevelTables, embed
from audiolm.nn.transformer import Transformer

CONDITION_KERNEL = 9


@dataclass
class Tables:
    """The model's tables with the codebook features worked in: [V_l, D] each."""

    inputs: list[Tensor]
    condition: list[Tensor]
    lower: list[Tensor]
    outputs: list[Tensor]


class ConditionMixer(nn.Module):
    """[B, C, D] -> [B, C, D]: every condition step sees four neighbours on either side (depthwise), then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv1d(width, width, CONDITION_KERNEL, padding=CONDITION_KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        spread = self.norm(self.spread(x.mT).mT)
        return x + self.contract(F.gelu(self.expand(spread)))


class StageModel(nn.Module):
    """Predicts target steps [B, N, L] one after another, given a condition [B, C, Lc] known as a whole.

    Condition steps of UNKNOWN ids add nothing; in the flattened layout they must be the same in all rows. That is for
    ablations, and for stages that are trained to do without (`audiolm.training.stage`, `--condition-dropout`).

    Raises ConfigError at birth where levels with codebook features differ in size, and on use before `set_codebooks`
    where the config says that there are features.
    """

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = layout_of(config)
        width, dimension = config.transformer.width, config.feature_dimension
        # Only stages conditioned on codes have features of the condition: coarse knows semantic ids, which have none.
        condition_dimension = dimension if config.stage == "fine" else 0
        self.inputs = LevelTables(config.levels, width, dimension)
        self.outputs = LevelTables(config.levels, config.depth_width, dimension)
        self.condition = LevelTables(config.condition_levels, width, condition_dimension)
        self.start = nn.Parameter(torch.randn(width) * INITIAL_STD)
        if isinstance(self.layout, DepthLayout):
            self.mixer = ConditionMixer(width) if config.condition_levels else None
            self.head = DepthHead(len(config.levels), width, config.depth_width)
            self.body = Transformer(config.transformer, window=config.max_steps)
        else:
            self.head = FlatHead(width, config.depth_width)
            self.body = Transformer(config.transformer)
        self.register_buffer("target_features", None, persistent=False)
        self.register_buffer("condition_features", None, persistent=False)

    def set_codebooks(self, target: Tensor | None, condition: Tensor | None = None) -> None:
        """target [L, K, D], condition [Lc, K, D]: the codec's codebooks of these levels, each then scaled to unit rms.

        What a stage has no use for is ignored. Raises ConfigError for a shape that does not fit the config.
        """
        if len(self.inputs.maps):
            self.target_features = self._features("target", target, self.config.levels)
        if len(self.condition.maps):
            self.condition_features = self._features("condition", condition, self.config.condition_levels)

    def _features(self, name: str, codebooks: Tensor | None, levels: tuple[int, ...]) -> Tensor:
        expected = (len(levels), levels[0], self.config.feature_dimension)
        if codebooks is None or tuple(codebooks.shape) != expected or len(set(levels)) > 1:
            found = None if codebooks is None else tuple(codebooks.shape)
            raise ConfigError(f"{name} codebooks of a {self.config.stage} stage must be {expected}, found {found}")
        scale = codebooks.float().square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-8)
        return (codebooks.float() / scale).to(self.start.device)

    def tables(self) -> Tables:
        """The effective tables; cheap against a batch, kept in the state when decoding."""
        missing = (len(self.inputs.maps) and self.target_features is None) or (
            len(self.condition.maps) and self.condition_features is None
        )
        if missing:
            raise ConfigError(f"the {self.config.stage} stage uses codebook features: call set_codebooks first")
        inputs = self.inputs(self.target_features)
        lower = self.head.lower_tables(inputs) if isinstance(self.head, DepthHead) else []
        return Tables(inputs, self.condition(self.condition_features), lower, self.outputs(self.target_features))

    # ---- whole sequences

    def loss(
        self, targets: Tensor, condition: Tensor | None, mask: Tensor | None = None, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced negative log-likelihood in nats a step, and its levels' shares [L].

        targets [B, N, L], condition [B, C, Lc]; mask [B, N] is False on steps that do not count; `inputs` [B, N, L]
        replaces the past that the model reads (the targets, unless noise was added to them).
        """
        tables = self.tables()
        states = self._states(tables, targets if inputs is None else inputs, condition)
        states, targets = (
            (states.flatten(0, 1), targets.flatten(0, 1)) if mask is None else (states[mask], targets[mask])
        )
        per_level = torch.stack(
            [
                F.cross_entropy(logits(x, table), targets[:, level])
                for level, (x, table) in enumerate(
                    zip(self._heads(states, tables, targets), tables.outputs, strict=True)
                )
            ]
        )
        return per_level.sum(), per_level.detach()

    def logits(
        self,
        targets: Tensor,
        condition: Tensor | None,
        tables: Tables | None = None,
        inputs: Tensor | None = None,
    ) -> list[Tensor]:
        """The slow reference: L tensors [B, N, V_l], no cache; position n sees targets before n only.

        `tables` are `self.tables()` where the caller keeps them; `inputs` as in `loss`.
        """
        tables = self.tables() if tables is None else tables
        batch, steps, _ = targets.shape
        states = self._states(tables, targets if inputs is None else inputs, condition).flatten(0, 1)
        heads = self._heads(states, tables, targets.flatten(0, 1))
        return [logits(x, table).unflatten(0, (batch, steps)) for x, table in zip(heads, tables.outputs, strict=True)]

    def _states(self, tables: Tables, targets: Tensor, condition: Tensor | None) -> Tensor:
        """Body states that predict each step: [B, N, D] (depth) or [B, N, L, D] (flattened)."""
        if isinstance(self.layout, DepthLayout):
            return self.body(
                self._depth_inputs(tables, targets, self._known(tables, condition, targets.shape[1]))[:, :-1]
            )
        states = self.body(self._flattened_inputs(tables, targets, condition)[:, :-1])
        return states[:, states.shape[1] - targets[0].numel() :].unflatten(1, targets.shape[1:])

    def _heads(self, states: Tensor, tables: Tables, targets: Tensor) -> list[Tensor]:
        """States of M steps -> L tensors [M, D_depth]."""
        if isinstance(self.head, DepthHead):
            return self.head(states, tables.lower, targets)
        return list(self.head(states).unbind(1))

    def _depth_inputs(self, tables: Tables, targets: Tensor, known: Tensor | None) -> Tensor:
        """[B, N + 1, D], the inputs that predict steps 0..N; `known` [B, *, D] is what the condition adds to them."""
        ids = self.layout.arrange(targets)
        past = embed(tables.inputs, ids.clamp_min(0))
        x = torch.where(ids[:, :, :1] == START, self.start.to(past.dtype), past)
        if known is None:
            return x
        known = known[:, : x.shape[1]]
        return x + F.pad(known, (0, 0, 0, x.shape[1] - known.shape[1]))

    def _known(self, tables: Tables, condition: Tensor | None, num_steps: int) -> Tensor | None:
        """condition [B, C, Lc] -> [B, C * stride, D]. Raises ConfigError where it does not reach `num_steps`."""
        if self.mixer is None:
            return None
        needed = -(-num_steps // self.config.condition_stride)
        if condition is None or condition.shape[1] < needed:
            found = None if condition is None else tuple(condition.shape)
            raise ConfigError(f"{num_steps} steps need {needed} condition steps, found condition {found}")
        unknown = condition[:, :, :1] == UNKNOWN
        known = embed(tables.condition, condition.clamp_min(0)).masked_fill(unknown, 0.0)
        known = self.mixer(known).masked_fill(unknown, 0.0)
        return known.repeat_interleave(self.config.condition_stride, dim=1)

    def _flattened_inputs(self, tables: Tables, targets: Tensor, condition: Tensor | None) -> Tensor:
        if (condition is None) != (not self.config.condition_levels):
            raise ConfigError(f"condition levels are {self.config.condition_levels}, condition is {condition}")
        if condition is not None:
            condition = condition[:, condition[0, :, 0] != UNKNOWN]
        vocabulary = torch.cat([*tables.condition, self.start[None].to(tables.inputs[0].dtype), *tables.inputs])
        return F.embedding(self.layout.arrange(targets, condition), vocabulary)

    # ---- decoding (through audiolm.lm.slots)

    def prompt_inputs(self, tables: Tables, prompt: Tensor, condition: Tensor | None) -> Tensor:
        """What the body reads before the first new step: [B, P, D] for prompt [B, N0, L].

        condition: in the depth layout what is known of the steps, [B, >= N0 + 1, D]; else ids [B, C, Lc]; or None.
        """
        if isinstance(self.layout, DepthLayout):
            return self._depth_inputs(tables, prompt, condition)
        return self._flattened_inputs(tables, prompt, condition)
