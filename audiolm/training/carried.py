"""What a stage knew of a semantic tokenizer's ids, carried over to those of another one.

A tokenizer that is trained on, or clustered anew, numbers the same sounds otherwise, and a stage would have to learn
them from nothing. Both have read the same recordings, so it shows which ids meet at the same instants.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from audiolm.data.tokens import TokenCorpus
from audiolm.errors import TrainingError

SEMANTIC_TABLES = {"semantic": ("inputs.rows.0", "outputs.rows.0"), "coarse": ("condition.rows.0",)}


def carrying_over(stage: str, before: Path, now: TokenCorpus) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """-> what makes weights of a stage trained on the cache `before` into weights for the ids of the cache `now`.

    Each new id begins as the mean of the old ids' rows, by how often they meet in the split train; one that never
    occurs there as the mean of all. Raises DataError for an unreadable cache, TrainingError for a stage that knows no
    semantic ids, for caches without a recording in common and, when called, for tables of another size.
    """
    if stage not in SEMANTIC_TABLES:
        raise TrainingError(f"a {stage} stage knows no semantic ids that could be carried over")
    shares = meetings(TokenCorpus(before), now)

    def carry(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        sizes = {name: len(tensors[name]) for name in SEMANTIC_TABLES[stage] if name in tensors}
        if list(sizes.values()) != [shares.shape[1]] * len(SEMANTIC_TABLES[stage]):
            raise TrainingError(f"the ids of {before} are {shares.shape[1]}, the stage's tables have {sizes}")
        return tensors | {name: shares @ tensors[name].float() for name in sizes}

    return carry


def meetings(before: TokenCorpus, now: TokenCorpus) -> Tensor:
    """[V_now, V_before]: shares of the old ids at the instants of every new one; rows add up to 1."""
    sizes = now.meta["num_clusters"], before.meta["num_clusters"]
    counts, known = torch.zeros(sizes), {item.id: item for item in before.items}
    for item in now.select(split="train"):
        if (other := known.get(item.id)) is None or other.num_semantic != item.num_semantic:
            continue
        pairs = now.semantic(item).long() * sizes[1] + before.semantic(other).long()
        counts += torch.bincount(pairs, minlength=sizes[0] * sizes[1]).view(sizes)
    if not counts.any():
        raise TrainingError(f"{before.folder} and {now.folder} have no training recording in common")
    counts[counts.sum(dim=1) == 0] = 1.0
    return counts / counts.sum(dim=1, keepdim=True)
