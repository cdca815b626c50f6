"""The strong small baseline of D1: a linear probe of the checkpoint's own semantic features."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.probes import probe
from audiolm.evaluation.statistics import grouped_rate
from audiolm.intervals import Interval

NUM_TRAIN_PAIRS = 300
NUM_TEST_PAIRS = 200


def probe_accuracy(inputs: DetectionInputs) -> Interval:
    """Share of the whole clips of split test that a ridge classifier of `pooled` features, fitted on train, names.

    Raises EvaluationError without a semantic tokenizer; DataError without pairs of split train.
    """
    inputs.subject.require("semantic")
    features, labels, groups, train = [], [], [], []
    for split, most in (("train", NUM_TRAIN_PAIRS), ("test", NUM_TEST_PAIRS)):
        pairs = inputs.pair_set(split)
        for row in inputs.progress(range(inputs.count(min(most, pairs.num_rows))), f"semantic features, {split}"):
            features.append(pooled(inputs.subject.semantic, pairs.pair(row, 0, pairs.length)))
            labels += [1, 0]
            groups += 2 * [pairs.rows[row]["group"]]
            train += 2 * [split == "train"]
    training = torch.tensor(train)
    right = probe(torch.cat(features), torch.tensor(labels), training)
    return grouped_rate(right.numpy(), [group for group, known in zip(groups, train, strict=True) if not known])


@torch.inference_mode()
def pooled(semantic: torch.nn.Module, waveforms: Tensor) -> Tensor:
    """waveforms [B, T] -> [B, 2 D]: mean and spread of the features over time."""
    rows = semantic.features(waveforms.to(semantic.mean.device)).float().cpu()
    return torch.cat([rows.mean(dim=1), rows.std(dim=1)], dim=1)
