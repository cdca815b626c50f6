"""What a stage knows of a semantic tokenizer's ids, transferred to those of another tokenizer.

A tokenizer that was trained or clustered anew numbers the same sounds otherwise, and a stage would have to learn them
from nothing. Both have read the same recordings, so it shows which ids meet at the same instants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audiolm.data.tokens import TokenCorpus
from audiolm.errors import TrainingError
from audiolm.training.runs import Tensors

SEMANTIC_TABLES = {"semantic": ("inputs.rows.0", "outputs.rows.0"), "coarse": ("condition.rows.0",)}
LEAST_SHARED = 0.5  # of the new caches' training recordings: of fewer, rare ids would say little


def transfer(stage: str, old: Sequence[TokenCorpus], new: Sequence[TokenCorpus]) -> Callable[[Tensors], Tensors]:
    """-> what turns weights of a stage trained on the caches `old` into weights for the ids of the caches `new`.

    `stage` is one of `SEMANTIC_TABLES`. Each new id begins as the mean of the old ids' rows, by how often they meet in
    the split train; one that never occurs there as the mean of all. Raises TrainingError as `cooccurrence`, and, when
    called, for tables of another size.
    """
    counts = cooccurrence(old, new)
    counts[counts.sum(dim=1) == 0] = 1.0
    shares = counts / counts.sum(dim=1, keepdim=True)

    def transferred(tensors: Tensors) -> Tensors:
        sizes = {name: len(tensors[name]) for name in SEMANTIC_TABLES[stage] if name in tensors}
        if list(sizes.values()) != [shares.shape[1]] * len(SEMANTIC_TABLES[stage]):
            raise TrainingError(f"the old caches have {shares.shape[1]} semantic ids, the stage's tables {sizes}")
        return tensors | {name: shares @ tensors[name].float() for name in sizes}

    return transferred


def cooccurrence(old: Sequence[TokenCorpus], new: Sequence[TokenCorpus]) -> Tensor:
    """[V_new, V_old]: at how many instants ids meet, in the training recordings that both have in the same length.

    Copies at other speeds are left out: only some caches have them. Raises TrainingError where the new caches have no
    training recordings, or the old ones less than half of them.
    """
    sizes = new[0].meta["num_clusters"], old[0].meta["num_clusters"]
    known = {item.id: (corpus, item) for corpus in old for item in corpus.items}
    wanted = [(corpus, item) for corpus in new for item in corpus.select(split="train") if not item.is_copy]
    if not wanted:
        raise TrainingError("the new token caches hold no recordings of the split train")
    pairs = []
    for corpus, item in wanted:
        before, other = known.get(item.id, (None, None))
        if before is not None and other.num_semantic == item.num_semantic:
            pairs.append(corpus.semantic(item).long() * sizes[1] + before.semantic(other).long())
    if len(pairs) < LEAST_SHARED * len(wanted):
        raise TrainingError(
            f"the old caches have {len(pairs)} of the {len(wanted)} training recordings of the new ones, "
            f"at least {LEAST_SHARED:.0%} are needed"
        )
    return torch.bincount(torch.cat(pairs), minlength=sizes[0] * sizes[1]).view(sizes).float()
