"""D3: what level, silence, offset, bandwidth or length alone would reach: it should be little more than chance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from audiolm.audio.loudness import rms_db, silent_share
from audiolm.audio.spectra import occupied_bands
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.pairs import PairSet
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.probes import probe
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_rate

TITLE = "Shortcut models: one plain figure of the clip each"
TARGET = "accuracy <= 0.55 each"
MOST = 0.55
NUM_TRAIN_PAIRS = 1000
EQUAL = (
    "the two clips of a pair are equal in duration, level and offset by construction, and pairs on the whole in what "
    "they were selected for: these figures are at chance or near it, whatever made the clips"
)


def shortcut_figures(waveforms: Tensor) -> dict[str, Tensor]:
    """[B, T] -> plain figures [B]: seconds, share of silence, level, offset, mel bands below 99 % of the power."""
    return {
        "duration": torch.full((len(waveforms),), waveforms.shape[1] / SAMPLE_RATE_HZ),
        "silence": silent_share(waveforms),
        "level": rms_db(waveforms),
        "offset": waveforms.mean(dim=1),
        "bandwidth": occupied_bands(waveforms),
    }


def best_threshold(values: np.ndarray, generated: np.ndarray) -> tuple[float, bool]:
    """values [N], generated [N] bool -> (threshold, above): the decision that is right most often on these clips."""
    order = np.argsort(values, kind="stable")
    ranked, positive = values[order], generated[order]
    # Calling what lies from place k on: right are the originals before it and the generated ones from it on.
    right = np.r_[0, np.cumsum(~positive)] + positive.sum() - np.r_[0, np.cumsum(positive)]
    possible = np.r_[True, ranked[1:] > ranked[:-1], True]  # no threshold lies between equal values
    edges = np.r_[-np.inf, (ranked[1:] + ranked[:-1]) / 2, np.inf]
    above, below = np.where(possible, right, -1), np.where(possible, len(values) - right, -1)
    return (edges[above.argmax()], True) if above.max() >= below.max() else (edges[below.argmax()], False)


def measure(inputs: DetectionInputs) -> RowReport:
    """Raises EvaluationError where the pairs are another checkpoint's."""
    train, test = inputs.pair_set("train"), inputs.pair_set("test")
    num_train = inputs.count(min(NUM_TRAIN_PAIRS, train.num_rows))
    known, asked = _all_figures(inputs, train, num_train), _all_figures(inputs, test, inputs.count(test.num_rows))
    generated = np.tile([True, False], num_train)
    groups = np.repeat([row["group"] for row in test.rows[: inputs.count(test.num_rows)]], 2)
    truth = np.tile([True, False], len(groups) // 2)
    figures = []
    for name in known:
        threshold, above = best_threshold(known[name], generated)
        called = (asked[name] >= threshold) == above
        figures.append(Figure.of(name, grouped_rate(called == truth, groups)))
    met = all(figure.value <= MOST for figure in figures)
    both = torch.tensor(np.stack([np.r_[known[name], asked[name]] for name in known], axis=1))
    is_train = torch.arange(len(both)) < len(generated)
    together = probe(both, torch.tensor(np.r_[generated, truth]).long(), is_train)
    figures.append(Figure.of("all five, linear", grouped_rate(together.numpy(), groups)))
    note = f"the best threshold of each figure on {num_train} training pairs, tried on the pairs of D1; half is chance"
    notes = (note, EQUAL, *inputs.selection_note(), *_reversed_notes(figures))
    return RowReport("D3", TITLE, TARGET, tuple(figures), met, notes, headlines=tuple(known))


def _reversed_notes(figures: list[Figure]) -> list[str]:
    """One for each figure that tells test clips apart the wrong way round."""
    return [
        f"{figure.name}: under one half, its interval too: what it learnt from training pairs is the wrong way round"
        for figure in figures
        if figure.high is not None and figure.high < 0.5
    ]


def _all_figures(inputs: DetectionInputs, pairs: PairSet, num_pairs: int) -> dict[str, np.ndarray]:
    """[2 num_pairs] each, a generated clip and its original in turn."""
    rows = [
        shortcut_figures(pairs.pair(row, 0, pairs.length)) for row in inputs.progress(range(num_pairs), "shortcuts")
    ]
    return {name: torch.cat([row[name] for row in rows]).double().numpy() for name in rows[0]}
