"""Pure, reversible token arithmetic: merging repeats, splitting long runs, flattening levels."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_repeats(ids: Tensor) -> tuple[Tensor, Tensor]:
    """ids [S] -> (ids without consecutive repeats [R], run lengths [R]), both long.

    >>> merge_repeats(torch.tensor([5, 5, 2, 5]))
    (tensor([5, 2, 5]), tensor([2, 1, 1]))
    """
    merged, runs = torch.unique_consecutive(ids.long(), return_counts=True)
    return merged, runs


def split_runs(ids: Tensor, runs: Tensor, max_run: int) -> tuple[Tensor, Tensor]:
    """Splits runs longer than `max_run` into pieces of at most that length; durations stay as they are."""
    pieces = torch.div(runs + max_run - 1, max_run, rounding_mode="floor")
    ids, last = ids.repeat_interleave(pieces), pieces.cumsum(0) - 1
    split = torch.full_like(ids, max_run)
    split[last] = runs - (pieces - 1) * max_run
    return ids, split


def expand_runs(ids: Tensor, runs: Tensor) -> Tensor:
    """ids [R], runs [R] -> ids [S] with S = sum(runs); undoes `merge_repeats`, with or without `split_runs`."""
    return ids.repeat_interleave(runs)


def flatten(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """codes [..., F, L] -> [..., F * L]: row-major (all levels of a frame, then the next frame).

    Level l is offset by the vocabulary sizes of the levels before it, so that an id tells its level.
    """
    return (codes + _offsets(sizes, codes)).flatten(-2)


def unflatten(ids: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """[..., F * L] -> codes [..., F, L]; undoes `flatten`.

    Raises ValueError where the length is no multiple of the number of levels or an id is not of its position's level.
    """
    if ids.shape[-1] % len(sizes):
        raise ValueError(f"{ids.shape[-1]} ids are no whole number of frames of {len(sizes)} levels")
    codes = ids.unflatten(-1, (ids.shape[-1] // len(sizes), len(sizes))) - _offsets(sizes, ids)
    if not bool(((codes >= 0) & (codes < torch.tensor(sizes, device=ids.device))).all()):
        raise ValueError("an id does not belong to the level of its position")
    return codes


def _offsets(sizes: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor((0, *sizes[:-1]), device=like.device).cumsum(0)
