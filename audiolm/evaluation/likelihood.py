"""C4: negative log-likelihood of the stages on the hold-out, beside unigrams, a bigram and a foreign condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC, SEMANTIC_RATE_HZ, STAGES, StageConfig
from audiolm.errors import EvaluationError
from audiolm.evaluation.holdout import TokenPair
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import grouped_gain, grouped_ratio
from audiolm.stages import semantic_prompt

TITLE = "Negative log-likelihood a step of each stage, in nats (semantic: merged repeats; coarse and fine: frames)"
TARGET = "each stage >= 10 % below the unigram and (coarse, fine) below a shuffled condition, (semantic) below a bigram"
NUM_ITEMS = 150
NUM_TRAIN_ITEMS = 400  # to count unigrams and bigrams on, where there is no token cache
MIN_FRAMES = FRAME_RATE_HZ
GAIN = 0.10


@dataclass(frozen=True)
class Window:
    """Steps of one window [N, L], its condition [C, Lc] or None, and whose it is."""

    group: str
    targets: Tensor
    condition: Tensor | None


def stage_window(config: StageConfig, group: str, semantic: Tensor, codes: Tensor) -> Window:
    """semantic [S], codes [2 S, Q] of one crop -> the steps that a stage of this config predicts, and its condition."""
    num_levels, num_known = len(config.levels), len(config.condition_levels)
    if config.stage == "semantic":
        # The last run goes on beyond the crop: its length is not known.
        return Window(group, semantic_prompt(config, semantic)[:-1], None)
    if config.stage == "coarse":
        return Window(group, codes[:, :num_levels], semantic[:, None])
    return Window(group, codes[:, num_known : num_known + num_levels], codes[:, :num_known])


def crop_windows(config: StageConfig, pairs: Sequence[TokenPair]) -> list[Window]:
    """Neighbouring items of one group end to end, cut into windows of the length the stage was trained on.

    A rest under 1 s is left out. Read sentences are short; joined they give the model the context it knows.
    """
    rate_hz = SEMANTIC_RATE_HZ if config.stage == "semantic" else FRAME_RATE_HZ
    length = config.max_steps * SEMANTIC_RATE_HZ // rate_hz  # semantic positions a window
    windows = []
    for group, own in groupby(pairs, key=lambda pair: pair.group):
        members = list(own)
        semantic = torch.cat([pair.semantic for pair in members])
        codes = torch.cat([pair.codes for pair in members])
        for start in range(0, semantic.shape[0], length):
            ids = semantic[start : start + length]
            frames = codes[start * FRAMES_PER_SEMANTIC : (start + length) * FRAMES_PER_SEMANTIC]
            if frames.shape[0] >= MIN_FRAMES:
                windows.append(stage_window(config, group, ids, frames))
    return [window for window in windows if window.targets.shape[0]]


def foreign_condition(windows: Sequence[Window], index: int) -> Tensor:
    """The condition of the next window of another group, repeated or cut to the length of window `index`'s own.

    Raises EvaluationError where all windows are of one group.
    """
    for offset in range(1, len(windows)):
        other = windows[(index + offset) % len(windows)]
        if other.group != windows[index].group:
            needed = windows[index].condition.shape[0]
            return other.condition[torch.arange(needed) % other.condition.shape[0]]
    raise EvaluationError("a shuffled condition needs hold-out items of at least two groups")


class Unigram:
    """Shares of the ids of every level, counted with one added to each (so that none is impossible)."""

    def __init__(self, targets: Iterable[Tensor], levels: Sequence[int]) -> None:
        """targets: [N, L] each."""
        steps = torch.cat(list(targets))
        counts = [torch.bincount(ids, minlength=size) + 1.0 for ids, size in zip(steps.T, levels, strict=True)]
        self.log_shares = [torch.log(count / count.sum()).double() for count in counts]

    def nats(self, targets: Tensor) -> np.ndarray:
        """[N, L] -> [L] sums of nats."""
        return np.array([-float(table[ids].sum()) for table, ids in zip(self.log_shares, targets.T, strict=True)])


class Bigram:
    """First-level ids given the one before, Witten-Bell smoothing: new successors in proportion to those seen."""

    def __init__(self, targets: Iterable[Tensor], size: int, unigram: Unigram) -> None:
        self.log_start, counts = unigram.log_shares[0], torch.zeros(size * size, dtype=torch.double)
        for steps in targets:
            counts += torch.bincount(steps[:-1, 0] * size + steps[1:, 0], minlength=size * size)
        counts = counts.view(size, size)
        total, kinds = counts.sum(dim=1, keepdim=True), (counts > 0).sum(dim=1, keepdim=True).double()
        backoff = torch.where(total > 0, kinds / (total + kinds).clamp_min(1.0), 1.0)
        self.log_next = torch.log(counts / (total + kinds).clamp_min(1.0) + backoff * self.log_start.exp())

    def nats(self, ids: Tensor) -> float:
        """ids [N] -> sum of nats, the first one's under the unigram."""
        return -float(self.log_start[ids[0]] + self.log_next[ids[:-1], ids[1:]].sum())


@torch.inference_mode()
def stage_nats(model: Any, targets: Tensor, condition: Tensor | None) -> np.ndarray:
    """targets [N, L], condition [C, Lc] or None -> [L] sums of nats under a stage model (teacher forced)."""
    _, per_level = model.loss(targets[None], None if condition is None else condition[None])
    return per_level.double().numpy() * targets.shape[0]


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without both tokenizers, a stage, or recordings or tokens."""
    inputs.subject.require("codec", "semantic")
    if not inputs.subject.stages:
        raise EvaluationError(f"needs a stage, which {inputs.subject.name} lacks")
    pairs = inputs.holdout.pairs(NUM_ITEMS)
    train = inputs.holdout.training.training_pairs(NUM_TRAIN_ITEMS)
    figures, gains = [], []
    for stage in STAGES:
        if stage in inputs.subject.stages:
            own, own_gains = stage_figures(inputs.subject.stages[stage], pairs, train, inputs)
            figures += own
            gains += own_gains
        else:
            figures.append(Figure(f"{stage}: nats", None, reason=f"{inputs.subject.name} has no such stage"))
    counted_on_all = bool(inputs.holdout.training.tokens)
    met = None if len(inputs.subject.stages) < len(STAGES) else is_met(gains, counted_on_all)
    source = "all that the token caches have" if counted_on_all else "too few to judge by: give --tokens"
    notes = (
        f"{len(pairs)} hold-out items, joined by speaker or piece, cut into windows of the trained length; n = windows",
        f"intervals over {len({pair.group for pair in pairs})} speakers or pieces, whose windows hang together",
        f"unigram and bigram counted on {len(train)} fluent training items, {source}",
    )
    return RowReport("C4", TITLE, TARGET, tuple(figures), met, notes)


def is_met(gains: Sequence[float], counted_on_all: bool) -> bool | None:
    """Whether every gain is large enough. Baselines counted on few items flatter: then only a miss is believed."""
    if min(gains) < GAIN:
        return False
    return True if counted_on_all else None


def stage_figures(
    model: Any, pairs: list[TokenPair], train: list[TokenPair], inputs: Inputs
) -> tuple[list[Figure], list[float]]:
    """Figures of one stage, and the relative gains that are judged."""
    config: StageConfig = model.config
    windows, training = crop_windows(config, pairs), [window.targets for window in crop_windows(config, train)]
    unigram = Unigram(training, config.levels)
    steps, groups = [window.targets.shape[0] for window in windows], [window.group for window in windows]
    progress = inputs.progress(windows, f"C4 {config.stage}")
    nats = np.array([stage_nats(model, window.targets, window.condition) for window in progress])  # [n, L]
    plain = np.array([unigram.nats(window.targets) for window in windows])
    baselines = {"unigram": (nats.sum(axis=1), plain.sum(axis=1))}
    if config.stage == "semantic":
        bigram = Bigram(training, config.levels[0], unigram)
        following = np.array([bigram.nats(window.targets[:, 0]) for window in windows])
        baselines["bigram (ids alone)"] = (nats[:, 0], following)
    else:
        foreign = [stage_nats(model, w.targets, foreign_condition(windows, i)).sum() for i, w in enumerate(windows)]
        baselines["shuffled condition"] = (nats.sum(axis=1), np.array(foreign))
    figures = [Figure.of(f"{config.stage}: nats", grouped_ratio(nats.sum(axis=1), steps, groups))]
    gains = []
    for name, (own, other) in baselines.items():
        gain = grouped_gain(own, other, groups)
        figures.append(Figure.of(f"{config.stage}: {name}, nats", grouped_ratio(other, steps, groups)))
        figures.append(Figure.of(f"{config.stage}: relative gain over {name}", gain))
        gains.append(gain.value)
    return figures + _level_figures(config, nats, plain, steps, groups), gains


def _level_figures(
    config: StageConfig, nats: np.ndarray, plain: np.ndarray, steps: list[int], groups: list[str]
) -> list[Figure]:
    names = ("id", "run length") if config.stage == "semantic" else [f"level {level}" for level in range(nats.shape[1])]
    figures = []
    for level, name in enumerate(names[: nats.shape[1]]):
        for kind, values in (("nats", nats[:, level]), ("unigram, nats", plain[:, level])):
            figures.append(Figure.of(f"{config.stage}, {name}: {kind}", grouped_ratio(values, steps, groups)))
    return figures
