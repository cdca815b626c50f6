"""C2: how evenly the quantizer's codes are used on the hold-out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import normal_intervals

TITLE = "Codebook use of every quantizer level (perplexity / codebook size)"
TARGET = ">= 0.5 at every level"
NUM_ITEMS = 400
ENOUGH_FRAMES_PER_CODE = 20  # with fewer the perplexity of a finite sample lies visibly under the true one


def code_counts(codes: Tensor, codebook_size: int) -> np.ndarray:
    """codes [F, Q] -> [Q, K] how often each code occurs at each level."""
    return torch.stack([torch.bincount(level, minlength=codebook_size) for level in codes.T]).numpy()


def use_share(counts: np.ndarray) -> np.ndarray:
    """counts [..., K] -> exp(entropy) / K [...]: 1 where all codes are used alike, 1 / K where one is."""
    shares = counts / counts.sum(axis=-1, keepdims=True)
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=-1)
    return np.exp(entropy) / counts.shape[-1]


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without a codec, or without recordings or tokens."""
    inputs.subject.require("codec")
    size = inputs.subject.codec.codebook_size
    pairs = inputs.holdout.pairs(NUM_ITEMS)
    counts = np.stack([code_counts(pair.codes, size) for pair in pairs]).astype(np.float64)  # [n, Q, K]
    groups = [pair.group for pair in pairs]
    intervals = normal_intervals(lambda weights: use_share(np.tensordot(weights, counts, axes=1)), groups)
    figures = tuple(Figure.of(f"level {level}", interval) for level, interval in enumerate(intervals))
    frames = int(counts[:, 0].sum())
    notes = [
        f"{frames} frames of {len(pairs)} items, {size} codes a level",
        f"intervals over {len(set(groups))} speakers or pieces",
    ]
    met: bool | None = all(interval.value >= 0.5 for interval in intervals)
    if frames < ENOUGH_FRAMES_PER_CODE * size:
        notes.append(f"under {ENOUGH_FRAMES_PER_CODE} frames a code the figures are biased low: take more items")
        met = met or None  # too low a figure proves nothing
    return RowReport("C2", TITLE, TARGET, figures, met, tuple(notes))
