"""How a model doubts tokens: surprisal, entropy, rank and the likeliest ids of every token, teacher forced."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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
