"""On what is measured: items of the hold-out, evenly over speakers or pieces, as sound and as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from audiolm.config import FRAMES_PER_SEMANTIC, SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC
from audiolm.data.corpus import Corpus, Item
from audiolm.errors import EvaluationError
from audiolm.evaluation.subject import Subject

MAX_ENCODED_S = 30.0


class _Grouped(Protocol):
    group: str


AnyItem = TypeVar("AnyItem", bound=_Grouped)


@dataclass(frozen=True)
class TokenPair:
    """Both token streams of one item: codes [F, Q] long at 50 Hz, semantic [S] long at 25 Hz with 2 S = F, or None."""

    id: str
    group: str
    codes: Tensor
    semantic: Tensor | None


def spread(items: Sequence[AnyItem], count: int) -> list[AnyItem]:
    """At most `count` items, as evenly over their groups as can be, each group's first ones; in the order given.

    No draw: the same items every time, so that checkpoints are compared on the same ones.
    """
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    rounds = (index for turn in zip_longest(*groups.values()) for index in turn if index is not None)
    chosen = [index for index, _ in zip(rounds, range(count), strict=False)]
    return [items[index] for index in sorted(chosen)]


class HoldOut:
    """Items of a corpus and their tokens, from a token cache where one is given, else encoded here.

    `training` is the hold-out whose training split baselines are counted on: this one itself, or for a further corpus,
    which is all test, the one that the models were trained beside.

    Raises EvaluationError where the token cache was made with other tokenizers.
    """

    def __init__(
        self,
        subject: Subject,
        corpus: Corpus | None,
        tokens: Any | None = None,
        num_items: int | None = None,
        training: HoldOut | None = None,
    ) -> None:
        self.subject, self.corpus, self.tokens, self.num_items = subject, corpus, tokens, num_items
        self.training = self if training is None else training
        for name, digest in subject.token_hashes.items():
            if tokens is not None and tokens.meta[name] != digest:
                raise EvaluationError(
                    f"the token cache was made with {name} {tokens.meta[name][:12]}, this one is {digest[:12]}"
                )

    @property
    def name(self) -> str:
        """The folder name of the corpus, or of its token cache."""
        source = self.corpus if self.tokens is None or self.corpus is not None else self.tokens
        return "" if source is None else source.folder.name

    def items(
        self,
        default: int,
        split: str = "test",
        min_s: float = 1.0,
        limited: bool = True,
        accept: Callable[[Item], bool] | None = None,
    ) -> list[Item]:
        """Fluent items of at least `min_s` that `accept` takes: `default` of them, or `num_items` where `limited`.

        Raises EvaluationError without any.
        """
        if self.corpus is None:
            raise EvaluationError("needs recordings: give --data")
        fluent = self.corpus.select(split=split, fluent=True)
        long_enough = [item for item in fluent if item.duration_s >= min_s and (accept is None or accept(item))]
        if not long_enough:
            usable = "" if accept is None else " that this row can use"
            raise EvaluationError(f"the corpus has no fluent items of split {split} of at least {min_s:g} s{usable}")
        return spread(long_enough, self._count(default, limited))

    def waveform(self, item: Item, max_s: float = MAX_ENCODED_S) -> Tensor:
        """[T] float32, at most the first `max_s`, T a multiple of 640 so that both token streams cover it."""
        if self.corpus is None:
            raise EvaluationError("needs recordings: give --data")
        samples = self.corpus.waveform(item)
        length = min(samples.shape[0], round(max_s * SAMPLE_RATE_HZ))
        return samples[: length // SAMPLES_PER_SEMANTIC * SAMPLES_PER_SEMANTIC]

    @torch.inference_mode()
    def encode(self, item: Item, max_s: float = MAX_ENCODED_S) -> TokenPair:
        """Tokens of an item's first `max_s`; `semantic` is None where the subject has no semantic tokenizer."""
        self.subject.require("codec")
        batch = self.waveform(item, max_s)[None]
        semantic = None if self.subject.semantic is None else self.subject.semantic.encode(batch)[0]
        return TokenPair(item.id, item.group, self.subject.codec.encode(batch)[0], semantic)

    def pairs(self, default: int, split: str = "test", limited: bool = True) -> list[TokenPair]:
        """Tokens of items of a split, as many as `items` would give. Raises EvaluationError without any."""
        if self.tokens is None:
            return [self.encode(item) for item in self.items(default, split, limited=limited)]
        chosen = spread(self.tokens.select(split=split, fluent=True), self._count(default, limited))
        if not chosen:
            raise EvaluationError(f"the token cache has no fluent items of split {split}")
        return [self._cached(item) for item in chosen]

    def _count(self, default: int, limited: bool) -> int:
        return self.num_items if limited and self.num_items is not None else default

    def _cached(self, item: Any) -> TokenPair:
        codes, semantic = self.tokens.codes(item).long(), self.tokens.semantic(item).long()
        return TokenPair(item.id, item.group, codes[: semantic.shape[0] * FRAMES_PER_SEMANTIC], semantic)
