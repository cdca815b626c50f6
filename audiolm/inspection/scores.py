"""How a model doubts tokens: surprisal, entropy, rank and the likeliest ids of every token, teacher forced.

The scores are read in the windows that the stages decode in, none longer than a stage was trained on, so memory does
not grow with the clip. Each function is a generator of `Progress("score", steps done, steps in all)`, one a window,
that returns `TokenScores` on the CPU; closing it stops the work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audiolm.config import StageConfig
from audiolm.errors import RequestError
from audiolm.events import Progress
from audiolm.lm import StageModel
from audiolm.lm.sequences import expand_runs, merge_repeats
from audiolm.pipeline import Pipeline
from audiolm.stages import decoding_window, fine_window, semantic_limit, semantic_prompt

NUM_ALTERNATIVES = 5


@dataclass(frozen=True)
class TokenScores:
    """What a stage makes of tokens [N, L], given those before them (teacher forced).

    At temperature 1 without truncation, whatever the tokens were sampled with. Level l of a step is scored given the
    step's lower levels. NaN, and -1 for ids and ranks, where nothing was asked (ids of -1).

    `run_nats` is there for semantic tokens of a stage that predicts run lengths: the surprisal of a run's length, at
    every position of the run. It is no part of `nats`. NaN in the last run, which the end of the clip has cut.
    """

    nats: Tensor  # float32 [N, L], surprisal: -log p(token)
    entropy: Tensor  # float32 [N, L], nats
    rank: Tensor  # int32 [N, L], how many ids are likelier
    top_ids: Tensor  # int32 [N, L, 5], likeliest first
    top_probabilities: Tensor  # float32 [N, L, 5]
    run_nats: Tensor | None = None  # float32 [N]

    def rows(self, steps: slice) -> TokenScores:
        """The scores of some of the steps, as views."""
        return TokenScores(
            self.nats[steps],
            self.entropy[steps],
            self.rank[steps],
            self.top_ids[steps],
            self.top_probabilities[steps],
            None if self.run_nats is None else self.run_nats[steps],
        )


Scoring = Generator[Progress, None, TokenScores]
Span = tuple[int, int, int]
"""A window: (first step that is read, first step that is scored, end)."""


def score_semantic(pipeline: Pipeline, ids: Tensor) -> Scoring:
    """Semantic ids [S] at 25 Hz -> [S, 1]. A run is one step of the stage: its scores stand at all its positions.

    Ids from the first -1 on are not scored.
    """
    model = pipeline.models.stages["semantic"]
    known = ids[: int((ids >= 0).long().cumprod(0).sum())].cpu()
    steps, length = semantic_prompt(model.config, known), len(known)
    depth = model.config.layout == "depth"
    runs = steps[:, 1] + 1 if depth else merge_repeats(known)[1]
    limit = semantic_limit(model.config, max(1, length) / max(1, len(steps)))
    by_step = yield from _score(model, steps, None, overlapping_spans(model.config, len(steps), limit))
    step_of, scores = expand_runs(torch.arange(len(steps)), runs), unscored(len(ids), 1)
    for name in ("nats", "entropy", "rank", "top_ids", "top_probabilities"):
        getattr(scores, name)[:length] = getattr(by_step, name)[step_of, :1]
    if not depth:
        return scores
    run_nats = torch.full((len(ids),), torch.nan)
    run_nats[:length] = by_step.nats[step_of, 1].masked_fill(step_of == len(steps) - 1, torch.nan)
    return replace(scores, run_nats=run_nats)


def score_coarse(pipeline: Pipeline, semantic: Tensor, codes: Tensor) -> Scoring:
    """Codes [F, Q] given semantic ids [S] -> [F, Lc] of the coarse levels. Raises ConfigError where 2 S < F."""
    model = pipeline.models.stages["coarse"]
    targets = _levels(codes, 0, model.config)
    spans = overlapping_spans(model.config, len(targets), model.config.max_steps)
    return (yield from _score(model, targets, semantic[:, None].cpu(), spans))


def score_fine(pipeline: Pipeline, codes: Tensor) -> Scoring:
    """Codes [F, Q] -> [F, Lf] for the fine levels given the coarse ones, in the windows of 3 s that the stage decodes.

    Raises RequestError for codes without the fine levels.
    """
    model = pipeline.models.stages["fine"]
    num_coarse = len(model.config.condition_levels)
    targets, size = _levels(codes, num_coarse, model.config), fine_window(model.config)
    spans = [(start, start, min(start + size, len(targets))) for start in range(0, len(targets), size)]
    return (yield from _score(model, targets, codes[:, :num_coarse].cpu(), spans))


def _levels(codes: Tensor, first: int, config: StageConfig) -> Tensor:
    end = first + len(config.levels)
    if codes.shape[1] < end:
        raise RequestError(f"scores of the {config.stage} stage need {end} levels, found {codes.shape[1]}")
    return codes[:, first:end].cpu()


def overlapping_spans(config: StageConfig, total: int, limit: int) -> list[Span]:
    """Windows of at most `limit` steps over `total`; each reads a history of half of it, as in decoding."""
    spans, done = [], 0
    while done < total:
        start, room = decoding_window(config, done, total, limit)
        spans.append((start, done, done + room))
        done += room
    return spans


def unscored(num_steps: int, num_levels: int) -> TokenScores:
    """Scores of steps of which nothing was asked."""
    shape = (num_steps, num_levels)
    return TokenScores(
        nats=torch.full(shape, torch.nan),
        entropy=torch.full(shape, torch.nan),
        rank=torch.full(shape, -1, dtype=torch.int32),
        top_ids=torch.full((*shape, NUM_ALTERNATIVES), -1, dtype=torch.int32),
        top_probabilities=torch.full((*shape, NUM_ALTERNATIVES), torch.nan),
    )


def _score(model: StageModel, targets: Tensor, condition: Tensor | None, spans: Iterable[Span]) -> Scoring:
    """targets [N, L], condition [C, Lc] -> their scores, window by window."""
    scores, stride = unscored(*targets.shape), model.config.condition_stride
    yield Progress("score", 0, len(targets), 0.0)
    for start, first, end in spans:
        known = None if condition is None else condition[start // stride : -(-end // stride)]
        _score_window(model, targets[start:end], known, first - start, scores.rows(slice(first, end)))
        yield Progress("score", end, len(targets), 0.0)
    return scores


@torch.no_grad()
def _score_window(model: StageModel, targets: Tensor, condition: Tensor | None, skip: int, into: TokenScores) -> None:
    """Scores the steps of targets [N, L] from `skip` on."""
    device = model.start.device
    targets = targets.to(device)
    logits = model.logits(targets[None], None if condition is None else condition[None].to(device))
    for level, of_level in enumerate(logits):
        log_p = of_level[0, skip:].float().log_softmax(dim=-1)  # [n, V]
        own = log_p.gather(1, targets[skip:, level, None])
        top = log_p.topk(min(NUM_ALTERNATIVES, log_p.shape[1]))
        into.nats[:, level] = -own[:, 0].cpu()
        into.entropy[:, level] = -(log_p.exp() * log_p).sum(dim=1).cpu()
        into.rank[:, level] = (log_p > own).sum(dim=1).int().cpu()
        into.top_ids[:, level, : top.indices.shape[1]] = top.indices.int().cpu()
        into.top_probabilities[:, level, : top.indices.shape[1]] = top.values.exp().cpu()
