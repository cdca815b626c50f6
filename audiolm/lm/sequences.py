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


def flatten(codes: Tensor, codebook_size: int) -> Tensor:
    """codes [F, Q] -> [F * Q], row-major (all levels of a frame, then the next frame), level q offset by q * K."""
    return (codes + torch.arange(codes.shape[1], device=codes.device) * codebook_size).flatten()


def unflatten(ids: Tensor, num_levels: int, codebook_size: int) -> Tensor:
    """[F * Q] -> codes [F, Q]; undoes `flatten`.

    Raises ValueError where the length is no multiple of `num_levels` or an id is not of its position's level.
    """
    if ids.shape[0] % num_levels:
        raise ValueError(f"{ids.shape[0]} ids are no whole number of frames of {num_levels} levels")
    codes = ids.view(-1, num_levels) - torch.arange(num_levels, device=ids.device) * codebook_size
    if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < codebook_size):
        raise ValueError("an id does not belong to the quantizer level of its position")
    return codes
