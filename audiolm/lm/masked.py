"""The fine stage in parallel: a bidirectional Transformer that fills masked frames, a few passes a window.

SoundStorm (arXiv 2305.09636) with the confidence schedule of MaskGIT (arXiv 2202.04200), with two deviations. Frames
are masked as a whole, and the levels of a frame are predicted in turn by the small MLPs of the autoregressive stage's
depth head: a pass costs the body once, and what a level says of the next one in its frame is never lost. The window's
coarse codes are the condition; frames of a prompt are known from the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import MaskedConfig, SamplingConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm.heads import DepthHead, logits
from audiolm.lm.sampling import sample
from audiolm.lm.tables import INITIAL_STD, embed
from audiolm.nn.transformer import Transformer

CHOICE_NOISE = 1.0
"""Gumbel noise, in nats a level, on which frames are kept: high at first, none in the end (MaskGIT's 4.5 a token)."""


class FactoredTables(nn.Module):
    """One table [V, D] a level: a code's vector in the codec, and learnt numbers of its own, times the level's map."""

    def __init__(self, levels: tuple[int, ...], width: int, feature_dimension: int, learnt_dimension: int) -> None:
        super().__init__()
        inner = feature_dimension + learnt_dimension
        self.learnt = nn.ParameterList(nn.Parameter(torch.randn(size, learnt_dimension)) for size in levels)
        self.maps = nn.ParameterList(
            nn.Parameter(torch.randn(inner, width) * (INITIAL_STD / inner**0.5)) for _ in levels
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        """features [L, V, D_f], of unit rms -> L tables [V, D]."""
        rows = zip(features, self.learnt, self.maps, strict=True)
        return [torch.cat([feature, learnt], dim=1) @ matrix for feature, learnt, matrix in rows]


@dataclass
class MaskedTables:
    """[V, D] a level; `lower` and `outputs` as in the depth head."""

    inputs: list[Tensor]
    condition: list[Tensor]
    lower: list[Tensor]
    outputs: list[Tensor]


class MaskedModel(nn.Module):
    """Predicts masked frames [B, F, L] given condition [B, F, Lc] and the other frames.

    Raises ConfigError on use before `set_codebooks`.
    """

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        width, sizes = config.transformer.width, (config.feature_dimension, config.learnt_dimension)
        self.inputs = FactoredTables(config.levels, width, *sizes)
        self.condition = FactoredTables(config.condition_levels, width, *sizes)
        self.outputs = FactoredTables(config.levels, config.depth_width, *sizes)
        self.mask = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.body = Transformer(config.transformer, causal=False)
        self.head = DepthHead(len(config.levels), width, config.depth_width)
        self.register_buffer("target_features", None, persistent=False)
        self.register_buffer("condition_features", None, persistent=False)

    def set_codebooks(self, target: Tensor, condition: Tensor) -> None:
        """target [L, V, D], condition [Lc, V, D]: the codec's codebooks of these levels, each then of unit rms.

        Raises ConfigError for a shape that does not fit the config.
        """
        config = self.config
        for name, value, levels in (
            ("target", target, config.levels),
            ("condition", condition, config.condition_levels),
        ):
            expected = (len(levels), levels[0], config.feature_dimension)
            if tuple(value.shape) != expected:
                raise ConfigError(f"{name} codebooks must be {expected}, found {tuple(value.shape)}")
            scale = value.float().square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-8)
            setattr(self, f"{name}_features", (value.float() / scale).to(self.mask.device))

    def tables(self) -> MaskedTables:
        if self.target_features is None:
            raise ConfigError("the masked fine stage uses codebook vectors: call set_codebooks first")
        inputs = self.inputs(self.target_features)
        outputs = self.outputs(self.target_features)
        return MaskedTables(inputs, self.condition(self.condition_features), self.head.lower_tables(inputs), outputs)

    def states(self, tables: MaskedTables, frames: Tensor, condition: Tensor, masked: Tensor) -> Tensor:
        """frames [B, F, L], of which `masked` [B, F] are not read -> states [B, F, D]."""
        known = torch.where(masked[..., None], self.mask, embed(tables.inputs, frames))
        return self.body(embed(tables.condition, condition) + known)

    def loss(
        self, targets: Tensor, condition: Tensor, masked: Tensor, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Nats a masked frame, and its levels' shares [L]; `inputs` replaces the frames that are read."""
        tables = self.tables()
        states = self.states(tables, targets if inputs is None else inputs, condition, masked)[masked]
        hidden = targets[masked]
        outputs = zip(self.head(states, tables.lower, hidden), tables.outputs, strict=True)
        per_level = torch.stack(
            [F.cross_entropy(logits(x, table), hidden[:, level]) for level, (x, table) in enumerate(outputs)]
        )
        return per_level.sum(), per_level.detach()


def num_masked(num_frames: int, done: int, passes: int) -> int:
    """How many of the frames to be filled are left after `done` of `passes` passes: the cosine schedule."""
    return math.floor(num_frames * math.cos(math.pi / 2 * done / passes) + 1e-9)


def fill_windows(
    model: MaskedModel,
    *,
    prompt: Tensor | None,
    condition: Tensor,
    sampling: SamplingConfig,
    generators: list[torch.Generator],
    num_passes: int | None = None,
) -> Iterator[Tensor]:
    """Fills windows of condition [B, F, Lc], whose first frames are prompt [B, F0, L]; B = the number of generators.

    Yields, after every pass, all frames so far [B, F, L], -1 where they are masked still; the last has none. A row
    depends on its own generator alone. Passes: the config's, where None.

    Raises RequestError for rows that do not fit together or a window longer than the model was trained on.
    """
    config, passes = model.config, num_passes or model.config.num_passes
    rows, num_frames = condition.shape[:2]
    prompt = torch.zeros(rows, 0, len(config.levels), dtype=torch.long) if prompt is None else prompt
    if rows != len(generators) or prompt.shape[::2] != (rows, len(config.levels)) or prompt.shape[1] > num_frames:
        raise RequestError(
            f"masked decoding needs a prompt and a condition a generator ({len(generators)}), "
            f"found {tuple(prompt.shape)} and {tuple(condition.shape)}"
        )
    if num_frames > config.max_steps:
        raise RequestError(f"a window has at most {config.max_steps} frames, found {num_frames}")
    return _fill(model, prompt, condition, sampling, generators, passes)


def _fill(
    model: MaskedModel,
    prompt: Tensor,
    condition: Tensor,
    sampling: SamplingConfig,
    generators: list[torch.Generator],
    passes: int,
) -> Iterator[Tensor]:
    device, (rows, num_frames, _), known = model.mask.device, condition.shape, prompt.shape[1]
    levels = len(model.config.levels)
    with torch.inference_mode():
        condition, tables = condition.to(device), model.tables()
        frames = torch.full((rows, num_frames, levels), -1, device=device)
        frames[:, :known] = prompt.to(device)
    for done in range(1, passes + 1):
        with torch.inference_mode():
            numbers = [torch.rand(num_frames, levels + 1, generator=each, device=each.device) for each in generators]
            left = num_masked(num_frames - known, done, passes)
            noise = CHOICE_NOISE * levels * (1 - done / passes)
            frames = _pass(model, tables, frames, condition, torch.stack(numbers).to(device), (left, noise, sampling))
        yield frames.clone()


def _pass(
    model: MaskedModel,
    tables: MaskedTables,
    frames: Tensor,
    condition: Tensor,
    uniforms: Tensor,
    choice: tuple[int, float, SamplingConfig],
) -> Tensor:
    """One pass: all masked frames are drawn, and all but the `left` least certain of each row are kept."""
    left, noise, sampling = choice
    masked = frames[..., 0] < 0
    count = int(masked[0].sum())
    if not count:
        return frames
    places = masked.nonzero()[:, 1].view(len(frames), count)  # as many in every row
    states = model.states(tables, frames.clamp_min(0), condition, masked)
    numbers = uniforms[masked]
    drawn, certainty = _draw(model, tables, states[masked], numbers[:, :-1], sampling)
    gumbel = -torch.log(-torch.log(numbers[:, -1].clamp(1e-6, 1 - 1e-6)))
    certainty = (certainty + noise * gumbel).view(len(frames), count)
    kept = certainty.topk(count - left, dim=1).indices
    drawn = drawn.view(len(frames), count, -1)
    index = torch.arange(len(frames), device=frames.device)[:, None]
    frames = frames.clone()
    frames[index, places.gather(1, kept)] = drawn[index, kept]
    return frames


def _draw(
    model: MaskedModel, tables: MaskedTables, states: Tensor, uniforms: Tensor, sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """states [M, D] -> frames [M, L], level by level, and the sum of their log probabilities [M]."""
    x = model.head.state(states)
    drawn: list[Tensor] = []
    certainty = states.new_zeros(len(states))
    for level, module in enumerate(model.head.levels):
        scores = logits(module(x), tables.outputs[level]).float()
        drawn.append(sample(scores, uniforms[:, level], sampling))
        certainty += scores.log_softmax(-1).gather(1, drawn[-1][:, None])[:, 0]
        if level < len(tables.lower):
            x = x + F.embedding(drawn[-1], tables.lower[level])
    return torch.stack(drawn, dim=1), certainty
