"""M: does the semantic stage give back its training set? The longest stretch of tokens that both have.

Only the semantic stage is run: what it does not copy, the later stages cannot. Hold-out recordings share stretches with
the training set too, by chance and by style: they are the measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from audiolm.config import SEMANTIC_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.holdout import cached
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.prompts import continue_semantic, read_prompts
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import mean_interval

TITLE = "Memory: the longest stretch of semantic tokens shared with the training set"
MARGIN = 2.0  # merged tokens
MIN_PROMPTS = 10
TARGET = (
    f"continuations share less than {MARGIN:g} merged tokens more than the originals do "
    f"(the upper end of the difference's interval, of at least {MIN_PROMPTS} prompts)"
)
NUM_PROMPTS = 50


@dataclass(frozen=True)
class Stretch:
    """`length` tokens from `start` of sequence `query`, found from `found_start` of recording `found`."""

    length: int
    query: int
    start: int
    found: int
    found_start: int


def longest_shared(
    queries: Sequence[np.ndarray], recordings: Sequence[np.ndarray]
) -> tuple[np.ndarray, Stretch | None]:
    """Length [N] of each query's longest stretch that occurs within a recording, exactly; and the longest of all.

    ids [S] each. Stretches of n + 1 tokens are sought among the places where n already agree, which are numbered by
    their content (R. Karp, R. Miller and A. Rosenberg, 1972): few are left after a handful of tokens.
    """
    sequences = [*recordings, *queries]
    lengths = np.array([len(one) for one in sequences], dtype=np.int64)
    tokens = np.concatenate(sequences).astype(np.int64)
    owner = np.repeat(np.arange(len(sequences)), lengths) - len(recordings)  # below 0: a recording
    ends = np.cumsum(lengths)
    longest, stretch = np.zeros(len(queries), dtype=np.int64), None
    places, content, size = np.arange(len(tokens)), tokens, 1
    while True:
        number = np.unique(content, return_inverse=True)[1]
        asked = owner[places] >= 0
        shared = np.isin(number, number[asked]) & np.isin(number, number[~asked])
        places, number, asked = places[shared], number[shared], asked[shared]
        if not len(places):
            return longest, stretch
        longest[owner[places[asked]]] = size
        start = places[asked][0]
        where = places[~asked & (number == number[asked][0])][0]
        query, found = owner[start], owner[where] + len(recordings)
        first = ends - lengths
        stretch = Stretch(
            size, int(query), int(start - first[query + len(recordings)]), int(found), int(where - first[found])
        )
        goes_on = places + size < ends[owner[places] + len(recordings)]
        places, number = places[goes_on], number[goes_on]
        content, size = number * (tokens.max() + 1) + tokens[places + size], size + 1


def merge(ids: np.ndarray) -> np.ndarray:
    """ids [S] -> [M] without repeats of the one before."""
    return ids[np.append(True, ids[1:] != ids[:-1])]


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without a whole checkpoint, recordings, or a token cache with the split "train"."""
    models, holdout, request = inputs.subject.require_whole(), inputs.holdout, inputs.request
    if not holdout.training.tokens:
        raise EvaluationError("needs the tokens it was trained on: give --tokens")
    known = cached(holdout.training.tokens, "train")
    if not known:
        raise EvaluationError("the token caches have no items of the split train")
    count = NUM_PROMPTS if holdout.num_items is None else holdout.num_items
    total_s = request.prompt_s + request.continuation_s
    prompts = read_prompts(holdout, models, count, request.prompt_s, total_s, seed=request.seed)
    if not prompts:
        raise EvaluationError("no prompt could be continued")
    num_known, num_positions = len(prompts[0].semantic), round(total_s * SEMANTIC_RATE_HZ)
    made = continue_semantic(models, prompts, num_positions, request.semantic)
    continuations = _arrays([ids[num_known:] for ids in made])
    originals = _arrays([prompt.whole_semantic[num_known:num_positions] for prompt in prompts])
    trained = _arrays([one.semantic for one in known])
    figures, notes = figures_of(continuations, originals, trained, [one.item.id for one in known])
    hours = sum(map(len, trained)) / SEMANTIC_RATE_HZ / 3600.0
    lengths = f"{len(prompts)} prompts of {request.prompt_s:g} s, {request.continuation_s:g} s continued"
    report = RowReport("M", TITLE, TARGET, figures, notes=(f"{lengths}; {hours:.1f} h of training tokens", *notes))
    return replace(report, met=within_margin(report.figure("merged tokens, difference")))


def within_margin(difference: Figure) -> bool | None:
    """Whether its interval excludes `MARGIN` tokens more than the originals; None with too few prompts to say."""
    return difference.high < MARGIN if difference.n >= MIN_PROMPTS else None


def figures_of(
    continuations: list[np.ndarray], originals: list[np.ndarray], trained: list[np.ndarray], names: Sequence[str]
) -> tuple[tuple[Figure, ...], list[str]]:
    """Means and maxima over the clips, with repeats merged and as they are at 25 Hz; and where the longest lie."""
    figures, notes = [], []
    for kind, change in (("merged tokens", merge), ("tokens at 25 Hz", np.asarray)):
        recordings, longest = [change(ids) for ids in trained], {}
        for side, clips in (("continuations", continuations), ("originals", originals)):
            longest[side], stretch = longest_shared([change(ids) for ids in clips], recordings)
            figures.append(Figure.of(f"{kind}, {side}", mean_interval(longest[side])))
            figures.append(Figure(f"{kind}, {side}, longest of all", float(longest[side].max()), n=len(clips)))
            if stretch is not None:
                notes.append(f"{kind}, {side}: the longest is {stretch.length}, found in {names[stretch.found]}")
        difference = longest["continuations"] - longest["originals"]
        figures.append(Figure.of(f"{kind}, difference", mean_interval(difference)))
    return tuple(figures), notes


def _arrays(rows: Sequence[Tensor]) -> list[np.ndarray]:
    return [ids.numpy() for ids in rows]
