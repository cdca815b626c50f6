"""The fine stage in parallel: a bidirectional Transformer that fills masked frames, a few passes a window.

SoundStorm (arXiv 2305.09636) with the confidence schedule of MaskGIT (arXiv 2202.04200), with two deviations. Frames
are masked as a whole, and the levels of a frame are predicted in turn by the small MLPs of the autoregressive stage's
depth head: a pass costs the body once, and what a level says of the next one in its frame is never lost. The window's
coarse codes are the condition; frames of a prompt are known from the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.config import MaskedConfig, SamplingConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm.heads import logits
from audiolm.lm.sampling import sample
from audiolm.lm.stage import ConditionMixer, StageModel, Tables
from audiolm.lm.steps import prepared
from audiolm.lm.tables import INITIAL_STD, embed
from audiolm.nn.transformer import Transformer

CHOICE_NOISE = 1.0
"""Gumbel noise, in nats a level, on which frames are kept: high at first, none in the end (MaskGIT's 4.5 a token)."""


class MaskedModel(nn.Module):
    """Predicts masked frames [B, F, L] given condition [B, F, Lc] and the other frames.

    The input at a frame is what its coarse codes say and the frame before it, as the autoregressive stage reads them: a
    body of the same sizes that starts from that stage's has only to learn to look ahead. Tables and head are that
    stage's, frozen.

    Raises ConfigError on use before `attach`.
    """

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.mixer = ConditionMixer(width)
        self.mask = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.body = Transformer(config.transformer, causal=False)
        self._fine: tuple[StageModel, ...] = ()  # no part of this module: it has its own place in a checkpoint

    def attach(self, fine: StageModel) -> None:
        """Takes tables and head of this stage. Raises ConfigError where it is of another layout or of other sizes."""
        own, other = self.config, fine.config
        mine = ("depth", own.levels, own.condition_levels, own.transformer.width)
        found = (other.layout, other.levels, other.condition_levels, other.transformer.width)
        if mine != found:
            raise ConfigError(f"the masked fine stage needs the tables of a stage {mine}, found {found}")
        self._fine = (fine,)

    @property
    def fine(self) -> StageModel:
        if not self._fine:
            raise ConfigError("the masked fine stage uses tables of another one: call attach first")
        return self._fine[0]

    def states(self, tables: Tables, frames: Tensor, condition: Tensor, masked: Tensor) -> Tensor:
        """frames [B, F, L], of which `masked` [B, F] are not read -> states [B, F, D]."""
        known = torch.where(masked[..., None], self.mask, embed(tables.inputs, frames))
        before = torch.cat([self.mask.expand(len(known), 1, -1), known[:, :-1]], dim=1)
        return self.body(self.mixer(embed(tables.condition, condition)) + before)

    def loss(
        self, tables: Tables, targets: Tensor, condition: Tensor, masked: Tensor, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Nats a masked frame, and its levels' shares [L]; `inputs` replaces the frames that are read."""
        states = self.states(tables, targets if inputs is None else inputs, condition, masked)[masked]
        hidden = targets[masked]
        outputs = zip(self.fine.head(states, tables.lower, hidden), tables.outputs, strict=True)
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
        condition, tables = condition.to(device), prepared(model.fine).tables
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
    tables: Tables,
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
    model: MaskedModel, tables: Tables, states: Tensor, uniforms: Tensor, sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """states [M, D] -> frames [M, L], level by level, and the sum of their log probabilities [M]."""
    x = model.fine.head.state(states)
    drawn: list[Tensor] = []
    certainty = states.new_zeros(len(states))
    for level, module in enumerate(model.fine.head.levels):
        scores = logits(module(x), tables.outputs[level]).float()
        drawn.append(sample(scores, uniforms[:, level], sampling))
        certainty += scores.log_softmax(-1).gather(1, drawn[-1][:, None])[:, 0]
        if level < len(tables.lower):
            x = x + F.embedding(drawn[-1], tables.lower[level])
    return torch.stack(drawn, dim=1), certainty
