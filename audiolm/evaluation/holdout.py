"""On what is measured: items of the hold-out, evenly over speakers or pieces, as sound and as tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from audiolm.config import FRAMES_PER_SEMANTIC, SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC
from audiolm.data.corpus import Corpus, Item
from audiolm.data.tokens import TokenCorpus, TokenItem
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


def spread(items: Sequence[AnyItem], count: int, each: int = 1) -> list[AnyItem]:
    """At most `count` items, as evenly over their groups as can be, each group's first ones; in the order given.

    A group that has not, or would not get, `each` items is left out. No draw: the same items every time, so that
    checkpoints are compared on the same ones.
    """
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    large = [own for own in groups.values() if len(own) >= each][: count // each]
    rounds = (index for turn in zip_longest(*large) for index in turn if index is not None)
    chosen = [index for index, _ in zip(rounds, range(count), strict=False)]
    return [items[index] for index in sorted(chosen)]


@dataclass(frozen=True)
class CachedItem:
    """An item of a token cache."""

    cache: TokenCorpus
    item: TokenItem

    @property
    def group(self) -> str:
        return self.item.group

    @property
    def semantic(self) -> Tensor:
        """[S] int16."""
        return self.cache.semantic(self.item)

    def pair(self) -> TokenPair:
        semantic = self.semantic.long()
        codes = self.cache.codes(self.item).long()[: semantic.shape[0] * FRAMES_PER_SEMANTIC]
        return TokenPair(self.item.id, self.group, codes, semantic)


class HoldOut:
    """Items of a corpus and their tokens, from token caches where any are given, else encoded here.

    The first cache is that of the corpus; all together have what the models were trained on.

    `training` is the hold-out whose training split baselines are counted on: this one itself, or for a further corpus,
    which is all test, the one that the models were trained beside.

    Raises EvaluationError where a token cache was made with other tokenizers.
    """

    def __init__(
        self,
        subject: Subject,
        corpus: Corpus | None,
        tokens: Sequence[TokenCorpus] = (),
        num_items: int | None = None,
        training: HoldOut | None = None,
    ) -> None:
        self.subject, self.corpus, self.tokens, self.num_items = subject, corpus, tuple(tokens), num_items
        self.training = self if training is None else training
        for cache, (name, digest) in product(tokens, subject.token_hashes.items()):
            if cache.meta[name] != digest:
                made_with = f"{name} {cache.meta[name][:12]}"
                raise EvaluationError(f"{cache.folder} was made with {made_with}, this one is {digest[:12]}")

    @property
    def name(self) -> str:
        """The folder name of the corpus, or of its token cache."""
        return next((source.folder.name for source in (self.corpus, *self.tokens) if source is not None), "")

    def items(
        self,
        default: int,
        split: str = "test",
        min_s: float = 1.0,
        limited: bool = True,
        accept: Callable[[Item], bool] | None = None,
        each: int = 1,
    ) -> list[Item]:
        """Fluent items of at least `min_s` that `accept` takes: `default` of them, or `num_items` where `limited`.

        At least `each` come from a speaker or piece, else none. Raises EvaluationError without any.
        """
        if self.corpus is None:
            raise EvaluationError("needs recordings: give --data")
        fluent = self.corpus.select(split=split, fluent=True)
        long_enough = [item for item in fluent if item.duration_s >= min_s and (accept is None or accept(item))]
        if not long_enough:
            usable = "" if accept is None else " that this row can use"
            raise EvaluationError(f"the corpus has no fluent items of split {split} of at least {min_s:g} s{usable}")
        return spread(long_enough, self._count(default, limited), each)

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

    def pairs(self, default: int) -> list[TokenPair]:
        """Tokens of hold-out items, as many as `items` would give. Raises EvaluationError without any."""
        if not self.tokens:
            return [self.encode(item) for item in self.items(default)]
        chosen = spread(cached(self.tokens[:1], "test", fluent=True), self._count(default, limited=True))
        return _pairs(chosen, "test")

    def training_pairs(self, default: int) -> list[TokenPair]:
        """Tokens of all fluent training items of the caches; without a cache of `default` of them, encoded here.

        Raises EvaluationError without any.
        """
        if not self.tokens:
            return [self.encode(item) for item in self.items(default, "train", limited=False)]
        return _pairs(cached(self.tokens, "train", fluent=True), "train")

    def _count(self, default: int, limited: bool) -> int:
        return self.num_items if limited and self.num_items is not None else default


def cached(caches: Iterable[TokenCorpus], split: str, fluent: bool | None = None) -> list[CachedItem]:
    """The items of a split in all the caches."""
    return [CachedItem(cache, item) for cache in caches for item in cache.select(split, fluent)]


def _pairs(items: Sequence[CachedItem], split: str) -> list[TokenPair]:
    if not items:
        raise EvaluationError(f"the token cache has no fluent items of split {split}")
    return [item.pair() for item in items]
