"""Random crops of token streams, over the borders of items that follow each other in the same group.

Read sentences are short; neighbours by the same reader joined give crops as long as the stage wants, without padding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from audiolm.config import FRAMES_PER_SEMANTIC
from audiolm.data.tokens import TokenCorpus, TokenItem


@dataclass(frozen=True)
class TokenCrop:
    """semantic [S] at 25 Hz and codes [2 S, Q] at 50 Hz of the same audio."""

    semantic: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Segment:
    """Items of one group that follow each other in a corpus; `ends` are cumulative frames."""

    corpus: TokenCorpus
    items: tuple[TokenItem, ...]
    ends: tuple[int, ...]

    @property
    def num_frames(self) -> int:
        return self.ends[-1]

    def crop(self, start: int, num_frames: int) -> TokenCrop:
        """Frames start .. start + num_frames (start even), cut at the segment's end."""
        semantic, codes = [], []
        end = min(start + num_frames, self.num_frames)
        index = bisect_right(self.ends, start)
        while start < end:
            offset = start - (self.ends[index] - self.items[index].num_frames)
            taken = min(end, self.ends[index]) - start
            item = self.items[index]
            codes.append(self.corpus.codes(item)[offset : offset + taken])
            first, last = offset // FRAMES_PER_SEMANTIC, (offset + taken) // FRAMES_PER_SEMANTIC
            semantic.append(self.corpus.semantic(item)[first:last])
            start, index = start + taken, index + 1
        return TokenCrop(torch.cat(semantic).long(), torch.cat(codes).long())


def segments(corpus: TokenCorpus, items: Sequence[TokenItem]) -> list[Segment]:
    """Groups items that are neighbours in the corpus and belong to one group."""
    runs: list[list[TokenItem]] = []
    for item in sorted(items, key=lambda one: one.frame_start):
        last = runs[-1][-1] if runs else None
        follows = last is not None and last.frame_start + last.num_frames == item.frame_start
        if last is not None and follows and last.group == item.group:
            runs[-1].append(item)
        elif item.num_frames:
            runs.append([item])
    return [Segment(corpus, tuple(run), tuple(accumulate(item.num_frames for item in run))) for run in runs]


class TokenCrops:
    """Draws crops uniformly over the audio of its segments, starting on even frames."""

    def __init__(self, parts: Sequence[Segment]) -> None:
        self.parts = list(parts)
        self.ends = list(accumulate(part.num_frames for part in self.parts))

    @property
    def num_frames(self) -> int:
        return self.ends[-1] if self.ends else 0

    def draw(self, num_frames: int, count: int, generator: torch.Generator) -> list[TokenCrop]:
        """`count` crops of `num_frames` (shorter where the segment is)."""
        crops = []
        for position in torch.randint(self.num_frames, (count,), generator=generator).tolist():
            index = bisect_right(self.ends, position)
            part = self.parts[index]
            start = position - (self.ends[index] - part.num_frames)
            start = max(0, min(start, part.num_frames - num_frames))
            crops.append(part.crop(start - start % FRAMES_PER_SEMANTIC, num_frames))
        return crops
